"""Two plans side by side."""

from __future__ import annotations

from collections.abc import Callable

from mixtures.compare import compare_plans, comparison_heading, comparison_rows, pair_stages
from mixtures.plan import MixturePlan, plan_mixture, plan_stages
from mixtures.policy import Policy
from mixtures.recipe import Recipe
from tests.mixtures.tiny_run import Doc, Run

DOCS = [Doc(f"w{i}", tokens=10) for i in range(20)] + [Doc(f"k{i}", source="wiki", tokens=10) for i in range(20)]
WEB = "  - {name: web, where: source = 'web', weight: 1}"
WIKI = "  - {name: wiki, where: source = 'wiki', weight: %s, max_epochs: 8}"


def test_sources_of_either_plan_are_shown_with_what_they_give_in_both(
    make_run: Callable[..., Run], recipe_from: Callable[..., Recipe], keep_all: Policy
) -> None:
    corpus = make_run(DOCS).corpus(keep_all)
    plans = [
        plan_mixture(recipe_from(sources, "tokens: 200"), corpus)
        for sources in (WEB, f"{WEB}\n{WIKI % 3}", f"{WEB}\n{WIKI % 3}")
    ]
    compared = compare_plans(*plans[:2])
    web, wiki = compared["sources"]
    assert (web["name"], web["tokens_given"], web["share"]) == ("web", [200, 50], [1.0, 0.25])
    assert (wiki["tokens_given"], wiki["share"], wiki["epochs"]) == ([None, 150], [None, 0.75], [None, 0.75])
    rows = comparison_rows(compared)
    assert rows[1] == ("web", "200", "50", "−150", "100.0 %", "25.0 %", "1.00", "0.25")  # noqa: RUF001
    assert rows[2][1:4] == ("–", "150", "+150") and rows[3][3] == "="  # noqa: RUF001
    assert all(row["tokens_given"][0] == row["tokens_given"][1] for row in compare_plans(*plans[1:])["sources"])


def test_the_heading_says_which_is_which_and_how_much_differs(
    make_run: Callable[..., Run], recipe_from: Callable[..., Recipe], keep_all: Policy
) -> None:
    corpus = make_run(DOCS).corpus(keep_all)
    one = plan_mixture(recipe_from(f"{WEB}\n{WIKI % 1}", "tokens: 200\nname: one"), corpus)
    other = plan_mixture(recipe_from(f"{WEB}\n{WIKI % 3}", "tokens: 200\nname: other\nsequence_length: 2048"), corpus)
    compared = compare_plans(one, other)
    assert compared["moved_share"] == 0.25
    assert comparison_heading(compared) == [
        "A: one", "B: other", "sequence length: 1,024 in A, 2,048 in B", "25.0 % of the tokens go to other sources",
    ]  # fmt: skip
    assert comparison_rows(compared)[0] == ("source", "given A", "B", "change", "share A", "B", "epochs A", "B")
    alone = compare_plans(one, plan_mixture(recipe_from(WEB, "tokens: 200"), corpus))
    assert alone["moved_share"] == 0.5


def test_stages_are_compared_by_name_else_by_place(
    make_run: Callable[..., Run], recipe_from: Callable[..., Recipe], keep_all: Policy
) -> None:
    corpus = make_run(DOCS).corpus(keep_all)

    def plans(*stages: str) -> tuple[MixturePlan, ...]:
        listed = "".join(f"\n  - {{name: {name}, tokens: 50}}" for name in stages)
        return plan_stages(recipe_from(WEB + (f"\nstages:{listed}" if stages else "")), corpus)

    def shown(first: tuple[MixturePlan, ...], second: tuple[MixturePlan, ...]) -> list[tuple[str | None, str | None]]:
        return [(one.stage, other.stage) for one, other in pair_stages(first, second)[0]]

    assert shown(plans(), plans()) == [(None, None)] and shown(plans(), plans("a", "b")) == [(None, "a")]
    assert shown(plans("a", "b"), plans("b", "c")) == [("b", "b")]
    assert pair_stages(plans("a", "b"), plans("b", "c"))[1] == [
        "only in test: stage `a`",
        "only in test: stage `c`",
    ]
    assert shown(plans("a", "b"), plans("c")) == [("a", "c")]
