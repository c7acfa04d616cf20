"""Withheld documents: a recipe never takes what its list names, and a plan knows which list it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixtures.corpus import Corpus
from mixtures.plan import plan_mixture
from mixtures.policy import Policy
from mixtures.recipe import Recipe
from mixtures.withheld import write_withheld
from storage.errors import RecipeError
from tests.mixtures.tiny_run import Doc, Run, doc_id

DOCS = [Doc(f"web{i:02d}", tokens=1 << i) for i in range(10)]
WEB = "  - {name: web, where: source = 'web'}\n"


@pytest.fixture
def corpus(make_run: Callable[..., Run], keep_all: Policy) -> Corpus:
    return make_run(DOCS, part_rows=4).corpus(keep_all)


def test_listed_documents_are_neither_trained_on_nor_held_out(
    corpus: Corpus, recipe_from: Callable[..., Recipe], tmp_path: Path
) -> None:
    listed = write_withheld(tmp_path, [doc_id("web03"), doc_id("web07"), doc_id("web07")])
    plain = plan_mixture(recipe_from(WEB), corpus)
    plan = plan_mixture(recipe_from(WEB, f"withheld: {listed}"), corpus)
    assert plain.tokens_given == 1023 and plan.tokens_given == 1023 - (1 << 3) - (1 << 7)
    held = plan_mixture(recipe_from(WEB, f"withheld: {listed}", heldout="{share: 0.5}"), corpus).sources[0]
    assert held.heldout_tokens + held.tokens_available == plan.tokens_given


def test_another_list_is_another_plan(corpus: Corpus, recipe_from: Callable[..., Recipe], tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    identities = set()
    for names in (["web01"], ["web02"]):
        write_withheld(tmp_path, [doc_id(name) for name in names]).replace(path)
        identities.add(plan_mixture(recipe_from(WEB, f"withheld: {path}"), corpus).identity())
    assert len(identities) == 2


def test_what_is_no_list_is_refused_with_its_line(
    corpus: Corpus, recipe_from: Callable[..., Recipe], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"there is no list"):
        plan_mixture(recipe_from(WEB, f"withheld: {tmp_path / 'gone.parquet'}"), corpus)
    pq.write_table(pa.table({"id": [1]}), tmp_path / "other.parquet")
    with pytest.raises(RecipeError, match=r"no list of withheld documents"):
        plan_mixture(recipe_from(WEB, f"withheld: {tmp_path / 'other.parquet'}"), corpus)
