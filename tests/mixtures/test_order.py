"""`order`: which documents of a source are taken first, among equals by hash, over epochs and stages."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixtures.corpus import Corpus, draw_keys, order_keys
from mixtures.plan import plan_mixture, plan_stages
from mixtures.policy import Policy
from mixtures.recipe import Recipe
from storage.errors import SqlError
from storage.schema import IDENTIFIER
from tests.mixtures.test_stages import drawn
from tests.mixtures.tiny_run import Doc, Run

MakeRun = Callable[..., Run]
RecipeFrom = Callable[..., Recipe]

DOCS = [
    *(Doc(f"b{bucket:02d}x{i}", bucket=bucket, tokens=10) for bucket in range(-3, 17) for i in range(3)),
    Doc("unscored", bucket=None, tokens=10),
]


@pytest.fixture
def corpus(make_run: MakeRun, keep_all: Policy) -> Corpus:
    return make_run(DOCS, part_rows=13).corpus(keep_all)


def ordered(recipe_from: RecipeFrom, order: str, rest: str) -> Recipe:
    return recipe_from(f"  - {{name: web, where: 'true', max_epochs: 16, order: {order}}}\n", rest)


def buckets(recipe: Recipe, corpus: Corpus) -> list[int]:
    plan = plan_mixture(recipe, corpus)
    return sorted(int(name[1:3]) for name in drawn(recipe, corpus, plan).elements())


@pytest.mark.parametrize("order", ["quality.bucket", "quality.bucket asc", "'-quality.bucket DESC'"])
def test_the_lowest_come_first(corpus: Corpus, recipe_from: RecipeFrom, order: str) -> None:
    assert buckets(ordered(recipe_from, order, "tokens: 120"), corpus) == sorted([-3, -2, -1, 0] * 3)


def test_the_best_come_first_and_what_has_no_number_last(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    recipe = ordered(recipe_from, "quality.bucket DESC", "tokens: 80")
    taken = buckets(recipe, corpus)
    assert taken[2:] == [15] * 3 + [16] * 3 and taken[:2] == [14, 14]
    everything_but_one = drawn(
        *(r := ordered(recipe_from, "quality.bucket DESC", "tokens: 600"), corpus), plan_mixture(r, corpus)
    )
    assert len(everything_but_one) == 60 and "unscored" not in everything_but_one


def test_a_second_epoch_goes_through_the_same_order(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    recipe = ordered(recipe_from, "quality.bucket DESC", "tokens: 640")
    counts = drawn(recipe, corpus, plan_mixture(recipe, corpus))
    assert {name[:3] for name, times in counts.items() if times == 2} == {"b16"} and min(counts.values()) == 1


def test_a_stage_goes_on_where_the_one_before_stopped(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    stages = "stages: [{name: best, tokens: 60}, {name: next, tokens: 60}]\n"
    recipe = recipe_from(f"  - {{name: web, where: 'true', order: quality.bucket DESC}}\n{stages}")
    best, following = (drawn(recipe, corpus, plan) for plan in plan_stages(recipe, corpus))
    assert {name[:3] for name in best} == {"b16", "b15"} and {name[:3] for name in following} == {"b14", "b13"}


def test_equal_documents_are_drawn_by_the_seed(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    taken = set()
    for seed in range(20):
        recipe = ordered(recipe_from, "quality.bucket DESC", "tokens: 10").model_copy(update={"seed": seed})
        taken |= set(drawn(recipe, corpus, plan_mixture(recipe, corpus)))
    assert taken == {"b16x0", "b16x1", "b16x2"}


@pytest.mark.parametrize("order", ["language.label", "quality.buckt DESC", "DESC"])
def test_an_order_that_is_none_is_refused_with_its_line(corpus: Corpus, recipe_from: RecipeFrom, order: str) -> None:
    with pytest.raises(SqlError) as caught:
        plan_mixture(ordered(recipe_from, order, ""), corpus)
    assert "recipe.yaml:" in str(caught.value)


FLOATS = st.floats(allow_nan=False, width=32)


@given(st.lists(FLOATS, min_size=1, max_size=30))
def test_keys_are_in_the_order_of_their_numbers(numbers: list[float]) -> None:
    ids = pa.chunked_array([pa.array([i.to_bytes(16, "little") for i in range(len(numbers))], IDENTIFIER)])
    keys = order_keys(ids, np.array(numbers), seed=3)
    drawn_keys = draw_keys(ids, "train", 3) >> np.uint64(32)
    expected = sorted(range(len(numbers)), key=lambda i: (numbers[i], int(drawn_keys[i])))
    assert np.argsort(keys, kind="stable").tolist() == expected
