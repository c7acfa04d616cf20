"""Two plans side by side: what each source gives in one and in the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mixtures.plan import MixturePlan, SourcePlan
from mixtures.wording import say_count

SIDES = ("A", "B")
SETTINGS = ("sequence_length", "seed", "tokens_asked")
FIGURES = ("tokens_given", "epochs", "tokens_effective", "documents_given", "heldout_tokens")

Pair = tuple[MixturePlan, MixturePlan]


def compare_plans(first: MixturePlan, second: MixturePlan) -> dict[str, Any]:
    """Of every source that one of them has, by name: its figures and its share in both (null where it is not)."""
    sides = [{source.name: source for source in plan.sources} for plan in (first, second)]
    names = [*sides[0], *(name for name in sides[1] if name not in sides[0])]
    totals = [plan.tokens_given for plan in (first, second)]
    return {
        "recipes": [_called(first), _called(second)],
        "mixtures": [first.identity(), second.identity()],
        "tokens_given": totals,
        "tokens_effective": [first.tokens_effective, second.tokens_effective],
        "moved_share": sum(abs(a - b) for a, b in _shares(sides, names, totals)) / 2,
        "settings": {name: [getattr(first, name), getattr(second, name)] for name in SETTINGS},
        "sources": [
            {
                "name": name,
                "share": [_share(side.get(name), total) for side, total in zip(sides, totals, strict=True)],
                **{figure: [getattr(side.get(name), figure, None) for side in sides] for figure in FIGURES},
            }
            for name in names
        ],
    }


def _called(plan: MixturePlan) -> str:
    return f"{plan.recipe}, stage `{plan.stage}`" if plan.stage else plan.recipe


def _shares(
    sides: Sequence[Mapping[str, SourcePlan]], names: Sequence[str], totals: Sequence[int]
) -> Iterator[tuple[float, float]]:
    for name in names:
        a, b = (_share(side.get(name), total) or 0.0 for side, total in zip(sides, totals, strict=True))
        yield a, b


def pair_stages(first: Sequence[MixturePlan], second: Sequence[MixturePlan]) -> tuple[list[Pair], list[str]]:
    """The stages of two recipes that are compared, by name, else by their place; and those that only one has, as said.

    A recipe without stages is one of one.
    """
    named = {plan.stage: plan for plan in second}
    if not {plan.stage for plan in first} & set(named):
        return list(zip(first, second, strict=False)), _alone(first[len(second) :], second[len(first) :])
    pairs = [(plan, named[plan.stage]) for plan in first if plan.stage in named]
    both = {plan.stage for plan, _ in pairs}
    return pairs, _alone(*([plan for plan in side if plan.stage not in both] for side in (first, second)))


def _alone(first: Sequence[MixturePlan], second: Sequence[MixturePlan]) -> list[str]:
    return [f"only in {plan.recipe}: stage `{plan.stage}`" for plan in (*first, *second)]


def _share(source: SourcePlan | None, total: int) -> float | None:
    return None if source is None else source.tokens_given / total


def comparison_rows(compared: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A header, a row a source and the sums, as texts; the sides are called A and B."""
    a, b = SIDES
    header = ("source", f"given {a}", b, "change", f"share {a}", b, f"epochs {a}", b)
    body = [
        (
            row["name"],
            *(_count(tokens) for tokens in row["tokens_given"]),
            _change(*(tokens or 0 for tokens in row["tokens_given"])),
            *("–" if share is None else f"{100 * share:.1f} %" for share in row["share"]),
            *("–" if epochs is None else f"{epochs:.2f}" for epochs in row["epochs"]),
        )
        for row in compared["sources"]
    ]
    given, worth = compared["tokens_given"], [round(tokens) for tokens in compared["tokens_effective"]]
    sums = [
        ("all", *(_count(tokens) for tokens in given), _change(*given), "", "", "", ""),
        ("worth", *(_count(tokens) for tokens in worth), _change(*worth), "", "", "", ""),
    ]
    return [header, *body, *sums]


def comparison_heading(compared: Mapping[str, Any]) -> list[str]:
    """Lines that say which side is which, what else differs, and how much of the mixture does."""
    sides = [f"{side}: {recipe}" for side, recipe in zip(SIDES, compared["recipes"], strict=True)]
    differ = {name: pair for name, pair in compared["settings"].items() if pair[0] != pair[1]}
    settings = [f"{name.replace('_', ' ')}: {pair[0]:,} in A, {pair[1]:,} in B" for name, pair in differ.items()]
    return [*sides, *settings, f"{100 * compared['moved_share']:.1f} % of the tokens go to other sources"]


def _count(tokens: int | None) -> str:
    return "–" if tokens is None else say_count(tokens)


def _change(before: int, after: int) -> str:
    if before == after:
        return "="
    return ("+" if after > before else "−") + say_count(abs(after - before))
