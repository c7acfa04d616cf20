"""Which documents are rearranged for fill-in-the-middle: those of the sources that ask, at their rate, in every run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pyarrow as pa
import pytest

from mixtures.middle import AS_IT_IS, PREFIX_FIRST, SUFFIX_FIRST, choose_orders, identify_choice
from mixtures.policy import Policy
from mixtures.recipe import Recipe
from storage.errors import RecipeError
from storage.manifests import open_dataset
from tests.mixtures.tiny_run import Doc, Run
from tokenizer import middle

DOCS = [
    *(Doc(f"code{i}", source="code") for i in range(400)),
    *(Doc(f"web{i}") for i in range(50)),
    *(Doc(f"gone{i}", source="code", words=1) for i in range(50)),
]
CODE = "  - {name: code, where: source = 'code', fill_in_middle: {share: 0.5, suffix_first: 0.25}}\n"
WEB = "  - {name: web, where: source = 'web'}\n"


@pytest.fixture
def tables(make_run: Callable[..., Run], keep_all: Policy) -> tuple[pa.Table, pa.Table]:
    run = make_run(DOCS, part_rows=len(DOCS))
    verdicts = open_dataset(run.judge(keep_all) / "verdicts")
    return run.catalogue.read(run.catalogue.parts[0]), verdicts.read(verdicts.parts[0])


def test_a_share_of_the_sources_that_ask(tables: tuple[pa.Table, pa.Table], recipe_from: Callable[..., Recipe]) -> None:
    orders = choose_orders(recipe_from(CODE + WEB), *tables)
    code = Counter(orders[:400].tolist())
    assert 160 < code[PREFIX_FIRST] + code[SUFFIX_FIRST] < 240 and 30 < code[SUFFIX_FIRST] < 70
    assert set(orders[400:].tolist()) == {AS_IT_IS}, "other sources and dropped documents are left as they are"
    again = choose_orders(recipe_from(WEB + CODE, "seed: 99"), *tables)
    assert again.tolist() == orders.tolist(), "neither the seed nor the place of another source matters"
    more = choose_orders(recipe_from(CODE.replace("0.5", "0.9")), *tables)
    assert ((more != AS_IT_IS) >= (orders != AS_IT_IS)).all()


def test_only_what_decides_keys_the_store(recipe_from: Callable[..., Recipe]) -> None:
    assert identify_choice(recipe_from(WEB)) is None
    base = identify_choice(recipe_from(CODE + WEB))
    assert base == identify_choice(recipe_from(CODE + WEB.replace("'web'", "'books'"), "seed: 5"))
    weighted = recipe_from(CODE.replace("name:", "weight: 1, name:") + WEB.replace("name:", "weight: 3, name:"))
    assert base == identify_choice(weighted)
    for other in (WEB + CODE, CODE.replace("0.25", "0.5"), CODE.replace("'code'", "'c'")):
        assert identify_choice(recipe_from(other)) != base


def test_a_share_of_nothing_is_refused(recipe_from: Callable[..., Recipe]) -> None:
    with pytest.raises(RecipeError, match="share"):
        recipe_from(CODE.replace("0.5", "0"))


def test_both_rooms_mean_the_same_orders() -> None:
    ours = (AS_IT_IS, PREFIX_FIRST, SUFFIX_FIRST)
    assert ours == (middle.AS_IT_IS, middle.PREFIX_FIRST, middle.SUFFIX_FIRST)
