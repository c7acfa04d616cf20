"""The plan as a plot: by source the tokens asked, given and worth, and how often each is seen, with the 4-epoch line.

Numbers become shares of a common axis here; the template draws them as boxes, so that text keeps its size at any width
of the page. The table beside it says the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixtures.plan import WARN_EPOCHS
from mixtures.wording import say_count
from pipelines.report.charts import ticks

NUM_TICKS = 4
COLUMNS = (
    "stage", "source", "documents", "tokens", "held out", "asked", "given", "share", "epochs", "so far", "worth",
    "note",
)  # fmt: skip
"""The table's order; a step's record keeps names, and no order of them."""
_UNITS = ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k"))


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A number on an axis: where it stands (percent of the width) and how it reads."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True)
class PlottedSource:
    """One source's row; `asked`, `given`, `worth` and `epochs` are percent of their axes' width."""

    name: str
    asked: float
    given: float
    worth: float
    epochs: float
    is_above: bool
    told: str


@dataclass(frozen=True, kw_only=True)
class MixturePlot:
    """`stage` is empty where there is one; epochs count from the first stage on."""

    stage: str
    rows: tuple[PlottedSource, ...]
    token_ticks: tuple[Tick, ...]
    epoch_ticks: tuple[Tick, ...]
    limit: Tick


def plot_mixture(plan: Mapping[str, Any]) -> MixturePlot:
    """The plot of a plan (as `plan.json` has it): its sources that are asked for or give something, in their order."""
    sources = [row for row in plan["sources"] if row["tokens_asked"] or row["tokens_given"]]
    tokens = ticks(0, max(max(row["tokens_asked"], row["tokens_given"]) for row in sources), NUM_TICKS)
    epochs = ticks(0, max(WARN_EPOCHS, *(_epochs(row) for row in sources)), NUM_TICKS)
    return MixturePlot(
        stage=plan.get("stage") or "",
        rows=tuple(_row(row, tokens[-1], epochs[-1]) for row in sources),
        token_ticks=tuple(Tick(at=_percent(value, tokens[-1]), text=_short(value)) for value in tokens),
        epoch_ticks=tuple(Tick(at=_percent(value, epochs[-1]), text=f"{value:g}") for value in epochs),
        limit=Tick(at=_percent(WARN_EPOCHS, epochs[-1]), text=f"{WARN_EPOCHS:g} epochs"),
    )


def _row(source: Mapping[str, Any], most_tokens: float, most_epochs: float) -> PlottedSource:
    asked, given, worth = (round(source[key]) for key in ("tokens_asked", "tokens_given", "tokens_effective"))
    return PlottedSource(
        name=source["name"],
        asked=_percent(asked, most_tokens),
        given=_percent(given, most_tokens),
        worth=_percent(worth, most_tokens),
        epochs=_percent(_epochs(source), most_epochs),
        is_above=_epochs(source) > WARN_EPOCHS,
        told=f"{source['name']}: {say_count(asked)} asked, {say_count(given)} given, worth {say_count(worth)}; "
        f"seen {_epochs(source):.2f} times",
    )


def _epochs(source: Mapping[str, Any]) -> float:
    return float(source.get("epochs_so_far", source["epochs"]))


def _percent(value: float, whole: float) -> float:
    return 100 * value / whole


def _short(value: float) -> str:
    """200,000,000 → 200 M."""
    size, unit = next(((size, unit) for size, unit in _UNITS if value >= size), (1, ""))
    return f"{value / size:g}{unit}"


def table_of(rows: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """The plan's table, its header first, with the columns in their order; stages may have different ones."""
    named = dict.fromkeys(name for row in rows for name in row)
    header = [name for name in COLUMNS if name in named]
    header += [name for name in named if name not in COLUMNS]
    return [header, *([row.get(name, "") for name in header] for row in rows)]
