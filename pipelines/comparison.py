"""What an ablation found: every average and interval computed from the single models' figures, and told in words.

Invariant: a cell of any table is a function of `runs` alone, and `runs` holds every figure that was measured, so that
anyone can recompute a table from the JSON beside it. A difference is taken seed by seed, because models of one seed
start alike; a mean of several held-out texts counts each alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from mixtures.wording import say_count
from pipelines.ablation import AblationPlan, asked_of
from pipelines.experiments import DATA, Experiment
from pipelines.intervals import Interval, difference_of, interval_of

ALL = "all"
"""The mean of all held-out texts."""
Run = Mapping[str, Any]


def compare(
    plan: AblationPlan, arms: Sequence[Mapping[str, Any]], heldout: Mapping[str, Any], proxies: Sequence[Run]
) -> dict[str, Any]:
    """The result of an ablation, from what the proxies job says of every model."""
    by_slug = {experiment.slug: experiment for experiment in plan.experiments}
    runs = [
        {
            "experiment": by_slug[proxy["name"]].name,
            "seed": proxy["seed"],
            "tokens": proxy["tokens"],
            "parameters": proxy["parameters"],
            "bits_per_byte": proxy["bits_per_byte"],
        }
        for proxy in proxies
    ]
    axes = {experiment.name: _axes_of(experiment) for experiment in plan.experiments}
    return {
        "format_version": 1,
        "identity": plan.identity,
        "name": plan.name,
        "request": asked_of(plan),
        "heldout": dict(heldout),
        "arms": list(arms),
        "experiments": experiment_rows(list(axes), axes, runs),
        "averages": averages(axes, runs),
        "runs": runs,
    }


def _axes_of(experiment: Experiment) -> dict[str, Any]:
    """Its values, data by its name in place of the path that it was asked for by."""
    return {**experiment.values, **({DATA: experiment.arm.name} if DATA in experiment.values else {})}


def texts_of(runs: Sequence[Run]) -> list[str]:
    """The held-out texts, and ALL where they are several."""
    names = list(runs[0]["bits_per_byte"])
    return [*names, *([ALL] if len(names) > 1 else [])]


def by_seed(runs: Sequence[Run], experiment: str, text: str) -> dict[int, float]:
    """Bits per byte of each seed's model on one held-out text."""
    return {run["seed"]: _figure(run, text) for run in runs if run["experiment"] == experiment}


def _figure(run: Run, text: str) -> float:
    bits: Mapping[str, float] = run["bits_per_byte"]
    return fmean(bits.values()) if text == ALL else bits[text]


def experiment_rows(
    names: Sequence[str], axes: Mapping[str, Mapping[str, Any]], runs: Sequence[Run]
) -> list[dict[str, Any]]:
    """A row an experiment: its interval on each text, and that of its difference to the first experiment."""
    first = names[0]
    return [
        {
            "name": name,
            "axes": dict(axes[name]),
            "parameters": next(run["parameters"] for run in runs if run["experiment"] == name),
            "tokens": next(run["tokens"] for run in runs if run["experiment"] == name),
            "bits_per_byte": {
                text: interval_of(list(by_seed(runs, name, text).values())).to_json() for text in texts_of(runs)
            },
            "difference": {
                text: difference_of(by_seed(runs, name, text), by_seed(runs, first, text)).to_json()
                for text in (texts_of(runs) if name != first else [])
            },
        }
        for name in names
    ]


def averages(axes: Mapping[str, Mapping[str, Any]], runs: Sequence[Run]) -> dict[str, list[dict[str, Any]]]:
    """By axis and value the mean over the experiments that have it, seed by seed; axes of one value are left out."""
    found: dict[str, list[dict[str, Any]]] = {}
    for axis in dict.fromkeys(axis for values in axes.values() for axis in values):
        values = list(dict.fromkeys(given[axis] for given in axes.values() if axis in given))
        if len(values) > 1 and len(axes) > len(values):
            found[axis] = [_average(axes, runs, axis, value) for value in values]
    return found


def _average(axes: Mapping[str, Mapping[str, Any]], runs: Sequence[Run], axis: str, value: object) -> dict[str, Any]:
    mine = [name for name, given in axes.items() if given.get(axis) == value]
    seeds = sorted({run["seed"] for run in runs})
    return {
        "value": value,
        "experiments": len(mine),
        "bits_per_byte": {
            text: interval_of([fmean(by_seed(runs, name, text)[seed] for name in mine) for seed in seeds]).to_json()
            for text in texts_of(runs)
        },
    }


def table_of(result: Mapping[str, Any]) -> list[dict[str, str]]:
    """The experiments as people read them."""
    return [
        {
            "experiment": row["name"],
            "tokens": say_count(row["tokens"]),
            **{text: say_interval(found) for text, found in row["bits_per_byte"].items()},
        }
        for row in result["experiments"]
    ]


def average_tables(result: Mapping[str, Any]) -> dict[str, list[dict[str, str]]]:
    """By axis the averages as people read them."""
    return {
        axis: [
            {
                axis.partition(".")[2] or axis: str(row["value"]),
                "experiments": str(row["experiments"]),
                **{text: say_interval(found) for text, found in row["bits_per_byte"].items()},
            }
            for row in rows
        ]
        for axis, rows in result["averages"].items()
    }


def arm_table(result: Mapping[str, Any]) -> list[dict[str, str]]:
    """What each arm keeps, and how often its most repeated documents would come in one pass over its mixture."""
    return [
        {
            "data": arm["name"],
            "policy": arm["policy"],
            "documents": f"{arm['documents']:,}",
            "tokens there are": say_count(arm["tokens_available"]),
            "epochs": f"{arm['epochs']:.2f}",
        }
        for arm in result["arms"]
    ]


def say_interval(found: Mapping[str, Any], sign: str = "") -> str:
    """`1.9123 ± 0.0045`; without the interval for one seed."""
    half = "" if found["high"] is None else f" ± {found['high'] - found['mean']:.4f}"
    return f"{found['mean']:{sign}.4f}{half}"


def sentences_of(result: Mapping[str, Any]) -> list[str]:
    """Each experiment against the first, text by text: the difference, and whether seeds alone could have made it."""
    first, *others = result["experiments"]
    return [
        f"{row['name']} against {first['name']}, {text}: {say_interval(found, '+')} bits per byte, "
        + _doubt(_read(found), _read(row["bits_per_byte"][text]), _read(first["bits_per_byte"][text]))
        for row in others
        for text, found in row["difference"].items()
    ]


def _doubt(difference: Interval, mine: Interval, theirs: Interval) -> str:
    touches = mine.touches(theirs)
    if difference.low is None or difference.high is None or touches is None:
        return "of one seed, so nobody knows what chance did"
    if difference.low <= 0 <= difference.high:
        return "which seeds alone could have made"
    return f"{'better' if difference.mean < 0 else 'worse'}; their intervals {'touch' if touches else 'do not touch'}"


def _read(values: Mapping[str, Any]) -> Interval:
    return Interval(**values)


def markdown_of(result: Mapping[str, Any]) -> str:
    """The whole comparison as a page of Markdown."""
    asked = result["request"]
    texts = ", ".join(f"{name} ({say_count(row['tokens'])})" for name, row in result["heldout"].items())
    told = [
        f"# {result['name']}",
        f"Bits per byte on held-out text, less is better: mean and 95 % interval over {say_seeds(asked['seeds'])}. "
        f"Model `{asked['preset']}`, {say_count(asked['tokens'])} tokens each. Held-out tokens: {texts}.",
        _markdown_table(table_of(result)),
        "\n".join(f"- {sentence}" for sentence in sentences_of(result)),
    ]
    for axis, rows in average_tables(result).items():
        told += [f"## Averages over `{axis}`", _markdown_table(rows)]
    told += ["## The data", _markdown_table(arm_table(result))]
    for arm in result["arms"]:
        decided = [{"rule": rule, "documents dropped": f"{count:,}"} for rule, count in arm["rules"].items()]
        if decided:
            told += [
                f"### What `{arm['policy']}` dropped of {arm['kept'] + arm['dropped']:,}",
                _markdown_table(decided),
            ]
        told += [f"- warning: {warning}" for warning in arm["warnings"]]
    return "\n\n".join(part for part in told if part) + "\n"


def say_seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    header = list(rows[0])
    aligned = ["---", *("---:" for _ in header[1:])]
    return "\n".join(
        "| " + " | ".join(cells) + " |" for cells in [header, aligned, *(list(row.values()) for row in rows)]
    )
