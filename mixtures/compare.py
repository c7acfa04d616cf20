"""Two plans side by side: what each source gives in one and in the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixtures.plan import MixturePlan, SourcePlan
from mixtures.wording import say_count

FIGURES = ("tokens_given", "epochs", "tokens_effective", "documents_given", "heldout_tokens")


def compare_plans(first: MixturePlan, second: MixturePlan) -> dict[str, Any]:
    """Of every source that one of them has, by name: its figures and its share in both (null where it is not)."""
    sides = [{source.name: source for source in plan.sources} for plan in (first, second)]
    names = [*sides[0], *(name for name in sides[1] if name not in sides[0])]
    totals = [plan.tokens_given for plan in (first, second)]
    return {
        "recipes": [first.recipe, second.recipe],
        "mixtures": [first.identity(), second.identity()],
        "tokens_given": totals,
        "tokens_effective": [first.tokens_effective, second.tokens_effective],
        "sources": [
            {
                "name": name,
                "share": [_share(side.get(name), total) for side, total in zip(sides, totals, strict=True)],
                **{figure: [getattr(side.get(name), figure, None) for side in sides] for figure in FIGURES},
            }
            for name in names
        ],
    }


def _share(source: SourcePlan | None, total: int) -> float | None:
    return None if source is None else source.tokens_given / total


def comparison_rows(compared: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A header, a row a source and the sum, as texts."""
    header = ("source", "given", "", "change", "share", "", "epochs", "")
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


def _count(tokens: int | None) -> str:
    return "–" if tokens is None else say_count(tokens)


def _change(before: int, after: int) -> str:
    if before == after:
        return "="
    return ("+" if after > before else "−") + say_count(abs(after - before))
