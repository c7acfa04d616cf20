"""The recipes of others: each plans on sources of any size, and gives the shares that were published."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

import pytest

from mixtures.plan import MixturePlan, plan_mixture, plan_stages
from mixtures.policy import Policy
from mixtures.recipe import SHIPPED, Heldout, Recipe, load_recipe
from storage.errors import RecipeError
from tests.mixtures.tiny_run import Doc, Run

TOKENS = 10
OWN_WAY = {"web_wiki", "chuxin_two_epochs", "olmo2_stages"}
COPIED = sorted(path.stem for path in SHIPPED.glob("*.yaml") if path.stem not in OWN_WAY)


PUBLISHED = {
    "dolmino_50b": {"dclm": 47.2, "flan": 16.6, "stackexchange": 2.45, "pes2o": 5.85, "wiki": 7.11, "math": 20.8},
    "dolmino_100b": {"dclm": 50.2, "flan": 16.7, "stackexchange": 2.47, "pes2o": 9.52, "wiki": 3.57, "math": 17.5},
    "dolmino_300b": {"dclm": 51.9, "flan": 11.3, "stackexchange": 1.68, "pes2o": 19.4, "wiki": 4.86, "math": 10.8},
    "llama": {
        "common_crawl": 67, "c4": 15, "github": 4.5, "wikipedia": 4.5, "books": 4.5, "arxiv": 2.5, "stackexchange": 2,
    },
    "openseek_phi4_sampling": {
        "nemotron-cc": 64.23, "zh_cc": 9.65, "code": 3.43, "math": 0.83, "books": 1.98, "wiki": 0.29, "arxiv": 0.32,
        "stack": 0.19, "cot_synthesis_cc": 9.82, "cot_synthesis_code": 1.32, "cot_synthesis_math": 2.19,
        "cot_synthesis_wiki": 0.83, "cot_synthesis_arxiv": 4.15, "cot_synthesis_opensource": 0.46, "pes2o": 0.31,
    },
    "openseek_no_sampling": {
        "nemotron-cc": 11.5324, "arxiv": 0.6414, "books": 0.4696, "code": 3.1179, "cot_synthesis": 64.5112,
        "math": 5.1416, "pes2o": 7.6382, "stack": 0.4229, "wiki": 0.4202, "zh_cc": 6.1043,
    },
    "tinystories": {"tinystories": 1},
}  # fmt: skip
"""Shares as they are published (OLMo 2 report, table 13; LLaMA, table 1; OpenSeek's chart and its list by what names
begin with), typed anew; all but rounding sum to 100."""
PUBLISHED["openseek_small_v1"] = PUBLISHED["openseek_phi4_sampling"]


def names_of(where: str) -> list[str]:
    """A name of `source` that each condition of a shipped recipe takes."""
    found = re.findall(r"source (?:=|LIKE) '([^']+)'", where)
    return [
        name.replace("%", "_")
        if name.count("%") > 1
        else name.removesuffix("%").rstrip("-") + "-x" * name.endswith("%")
        for name in found
    ]


def corpus_documents(recipe: Recipe, unit: int = 3) -> list[Doc]:
    """Documents for every source of the recipe, a little more of each than its weight asks of some thousands."""
    weights = [source.weight or 1.0 for source in recipe.sources]
    scale = 4000 / sum(weights)
    return [
        Doc(f"{i:02d}-{j:05d}", source=names_of(source.where)[0], tokens=TOKENS)
        for i, (source, weight) in enumerate(zip(recipe.sources, weights, strict=True))
        for j in range(unit + int(scale * weight))
    ]


@pytest.fixture
def planned(make_run: Callable[..., Run], keep_all: Policy) -> Callable[[Recipe, list[Doc]], MixturePlan]:
    def plan(recipe: Recipe, docs: list[Doc]) -> MixturePlan:
        return plan_mixture(recipe, make_run(docs, part_rows=len(docs)).corpus(keep_all))

    return plan


@pytest.mark.parametrize("name", COPIED)
def test_shipped_recipes_give_the_published_shares(
    name: str, planned: Callable[[Recipe, list[Doc]], MixturePlan]
) -> None:
    recipe = load_recipe(name)
    plan = planned(recipe, corpus_documents(recipe))
    weights = [Fraction(str(source.weight)) for source in recipe.sources]
    for weight, source in zip(weights, plan.sources, strict=True):
        assert abs(source.tokens_given / plan.tokens_given - weight / sum(weights)) <= 0.001, source
    for group, published in PUBLISHED[name].items():
        given = [source.tokens_given for source in plan.sources if source.name.startswith(group)]
        difference = abs(sum(given) / plan.tokens_given - published / sum(PUBLISHED[name].values()))
        assert difference <= 0.001 + len(given) * TOKENS / plan.tokens_given, group  # each is over by one document
    assert not plan.warnings


def test_a_recipe_without_one_of_its_sources_says_which_and_what_there_is(
    planned: Callable[[Recipe, list[Doc]], MixturePlan],
) -> None:
    recipe = load_recipe("llama")
    docs = [doc for doc in corpus_documents(recipe) if doc.source != "books"]
    with pytest.raises(RecipeError, match="no document meets the condition of source `books`") as caught:
        planned(recipe, docs)
    assert re.search(r"recipes/llama.yaml:\d+", str(caught.value)) and "`common_crawl`" in str(caught.value)


def test_all_sources_that_are_missing_are_named_at_once(
    planned: Callable[[Recipe, list[Doc]], MixturePlan],
) -> None:
    recipe = load_recipe("llama")
    docs = [doc for doc in corpus_documents(recipe) if doc.source in ("c4", "github")]
    with pytest.raises(RecipeError, match="5 sources are left without documents") as caught:
        planned(recipe, docs)
    lines = re.findall(r"recipes/llama.yaml:\d+: no document meets the condition of source `(\w+)`", str(caught.value))
    assert lines == ["common_crawl", "wikipedia", "books", "arxiv", "stackexchange"]
    assert str(caught.value).count("`source` can be: `c4`") == 1 and "keep their proportions" in str(caught.value)
    large = load_recipe("openseek_small_v1")
    with pytest.raises(RecipeError, match=r"38 sources are left(.|\n)*and 30 more"):
        planned(large, docs)


LLAMA_EPOCHS = {
    "common_crawl": 1.10, "c4": 1.06, "github": 0.64, "wikipedia": 2.45, "books": 2.23, "arxiv": 1.06,
    "stackexchange": 1.03,
}  # fmt: skip


def llama_corpus(recipe: Recipe, total: int) -> list[Doc]:
    """As much of each source as LLaMA had, when 1.4 T tokens were `total`: its share divided by its epochs."""
    sizes = {source.name: total * (source.weight or 0) / 100 / LLAMA_EPOCHS[source.name] for source in recipe.sources}
    return [
        Doc(f"{name[:8]}{j:05d}", source=name, tokens=TOKENS)
        for name, tokens in sizes.items()
        for j in range(round(tokens / TOKENS))
    ]


def test_llamas_plan_repeats_its_sources_as_often_as_llama_did(
    planned: Callable[[Recipe, list[Doc]], MixturePlan],
) -> None:
    total = 70_000
    recipe = load_recipe("llama").model_copy(update={"tokens": total, "heldout": Heldout(tokens=0)})
    plan = planned(recipe, llama_corpus(recipe, total))
    for source in plan.sources:
        assert source.epochs == pytest.approx(LLAMA_EPOCHS[source.name], rel=0.01), source
    assert 0.95 < plan.tokens_effective / plan.tokens_given < 1


def test_olmo_2s_pretraining_takes_all_once_and_its_anneal_is_dolminos(
    make_run: Callable[..., Run], keep_all: Policy
) -> None:
    recipe = load_recipe("olmo2_stages")
    sizes = {"dclm": 3000, "flan": 600, "math": 600}
    docs = [
        Doc(f"{source.name[:8]}{j:05d}", source=source.name, tokens=TOKENS)
        for source in recipe.sources
        for j in range(sizes.get(source.name, 200))
    ]
    pretraining, anneal = plan_stages(recipe, make_run(docs, part_rows=len(docs)).corpus(keep_all))
    told = {source.name: source.epochs for source in pretraining.sources if source.tokens_given}
    assert set(told) == {s.name for s in recipe.sources} - {"flan", "stackexchange", "math"}
    assert set(told.values()) == {1.0}
    for source in anneal.sources:
        share = PUBLISHED["dolmino_50b"].get(source.name, 0) / sum(PUBLISHED["dolmino_50b"].values())
        assert abs(source.tokens_given / anneal.tokens_given - share) <= TOKENS / anneal.tokens_given, source.name
    assert anneal.after == "pretraining" and anneal.learning_rate == "linear_to_zero"
    assert anneal.tokens_asked == pytest.approx(
        0.06 * sum(s.tokens_available for s in anneal.sources if s.tokens_asked), abs=1
    )


def test_a_mix_like_chuxins_takes_everything_twice(make_run: Callable[..., Run], keep_all: Policy) -> None:
    docs = [
        Doc(f"{source}-{label}-{j:03d}", source=kind, label=label, tokens=TOKENS)
        for source, kind in (("web", "web"), ("wiki", "encyclopedia"))
        for label in ("en", "zh")
        for j in range(300 if label == "en" else 100)
    ]
    plan = plan_mixture(load_recipe("chuxin_two_epochs"), make_run(docs, part_rows=800).corpus(keep_all))
    assert [source.epochs for source in plan.sources] == [2, 2, 2, 2] and not plan.warnings
    assert plan.tokens_effective / plan.tokens_given == pytest.approx(0.984, abs=1e-3)
