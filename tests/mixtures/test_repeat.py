"""Factors of repetition and limits on hosts: what is taken how often, what is left, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixtures.corpus import Corpus, Rows
from mixtures.host_limits import choose_within
from mixtures.plan import plan_mixture
from mixtures.policy import Policy
from mixtures.recipe import Recipe
from mixtures.select import SPLITS, write_mixture
from storage.errors import RecipeError, SqlError
from storage.megatron import IndexedReader
from tests.mixtures.test_stages import drawn
from tests.mixtures.tiny_run import Doc, Run

MakeRun = Callable[..., Run]
RecipeFrom = Callable[..., Recipe]

DOCS = [
    *(Doc(f"b{bucket}x{i:02d}", bucket=bucket, tokens=10) for bucket in range(3) for i in range(20)),
    Doc("unscored", bucket=None, tokens=10),
]
BY = "  - {name: web, where: 'true', max_epochs: 16, repeat: {by: quality.bucket, factors: {0: 0, 1: 0.5, 2: 3}}}\n"


@pytest.fixture
def corpus(make_run: MakeRun, keep_all: Policy) -> Corpus:
    return make_run(DOCS, part_rows=17).corpus(keep_all)


def taken_by_bucket(counts: Counter[str]) -> dict[str, tuple[int, int, int]]:
    """Of each bucket: how many documents, and how often the least and the most repeated one."""
    found: dict[str, list[int]] = {}
    for name, times in counts.items():
        found.setdefault(name[:2], []).append(times)
    return {bucket: (len(times), min(times), max(times)) for bucket, times in found.items()}


def test_buckets_are_taken_as_often_as_their_factors_say(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    recipe = recipe_from(BY)
    plan = plan_mixture(recipe, corpus)
    (web,) = plan.sources
    found = taken_by_bucket(drawn(recipe, corpus, plan))
    assert "b0" not in found and found["b2"] == (20, 3, 3) and found["un"] == (1, 1, 1)
    count, low, high = found["b1"]
    assert (low, high) == (1, 1) and 3 <= count <= 17
    assert (web.documents, web.tokens_available) == (41, 410)
    assert web.tokens_given == web.tokens_asked == 610 + 10 * count and web.highest_epochs == 3.0
    assert web.tokens_effective < web.tokens_given and "up to 3.00 epochs by `repeat`" in plan.rows()[1][-1]


def test_a_part_of_an_epoch_and_several_keep_the_proportions(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    for tokens, low, high in ((237, 1, 1), (1420, 6, 6), (2840, 12, 12)):
        recipe = recipe_from(BY, f"tokens: {tokens}")
        plan = plan_mixture(recipe, corpus)
        counts = drawn(recipe, corpus, plan)
        assert plan.tokens_given == 10 * counts.total() and 0 <= plan.tokens_given - tokens < 10
        top = [times for name, times in counts.items() if name.startswith("b2")]
        assert low - 1 <= min(top) and max(top) <= high + 1 and max(top) - min(top) <= 1


def test_a_factor_may_be_any_expression_such_as_the_number_of_duplicates(
    make_run: MakeRun, recipe_from: RecipeFrom, keep_all: Policy
) -> None:
    docs = [
        Doc(f"d{size}x{i}", tokens=10, cluster=f"c{size}x{i}", cluster_size=size) for size in (1, 2, 9) for i in "ab"
    ]
    corpus = make_run(docs).corpus(keep_all)
    recipe = recipe_from("  - {name: web, where: 'true', max_epochs: 4, repeat: {factor: 'least(cluster_size, 4)'}}\n")
    plan = plan_mixture(recipe, corpus)
    counts = drawn(recipe, corpus, plan)
    assert counts == {"d1xa": 1, "d1xb": 1, "d2xa": 2, "d2xb": 2, "d9xa": 4, "d9xb": 4}
    assert plan.bindings["cluster_size"] == "cluster_size" and plan.sources[0].limit is None


def test_max_epochs_is_of_the_most_repeated_documents(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    recipe = recipe_from(BY.replace("16", "2"), "tokens: 5k")
    plan = plan_mixture(recipe, corpus)
    assert max(drawn(recipe, corpus, plan).values()) == 2
    assert plan.sources[0].limit == "max_epochs" and plan.tokens_given < 710
    many = recipe_from(BY.replace("16", "100"), "tokens: 5k")
    with pytest.raises(RecipeError, match="repeats what has the highest factor in `web` 2[01]"):
        plan_mixture(many, corpus)


def test_the_index_holds_each_document_as_often_as_the_plan_says(
    make_run: MakeRun, recipe_from: RecipeFrom, keep_all: Policy
) -> None:
    run = make_run(DOCS, part_rows=17)
    corpus, recipe = run.corpus(keep_all), recipe_from(BY, "tokens: 1500", "{share: 0.1}")
    plan = plan_mixture(recipe, corpus)
    folder = write_mixture(run.root / "m", plan, recipe, corpus, vocabulary=run.vocabulary())
    held: dict[str, Counter[int]] = {split: Counter() for split in SPLITS}
    for split in SPLITS:
        for path in sorted((folder / split).glob("*.idx")):
            reader = IndexedReader(path.with_suffix(""))
            held[split].update(int(reader[i][0]) for i in range(len(reader)))
    expected = {DOCS.index(next(d for d in DOCS if d.name == n)) + 1: t for n, t in drawn(recipe, corpus, plan).items()}
    assert held["train"] == expected and not held["train"].keys() & held["heldout"].keys()
    assert 10 * held["train"].total() == plan.tokens_given


@pytest.mark.parametrize(
    ("repeat", "words"),
    [
        ("{factor: text_bytes - 100}", ["`repeat` gives a document of `web` the factor -", "recipe.yaml:8"]),
        ("{factor: 101}", ["the factor 101; factors are between 0 and 100"]),
        ("{factor: source}", ["gives VARCHAR, not a number", "recipe.yaml:8"]),
        (
            "{factor: quality.buckets}",
            ["names `quality.buckets`, which does not exist", "quality.bucket", "recipe.yaml:8"],
        ),
        ("{factor: '(SELECT 1)'}", ["a subquery is not allowed"]),
    ],
)
def test_a_factor_that_is_none_says_so(corpus: Corpus, recipe_from: RecipeFrom, repeat: str, words: list[str]) -> None:
    with pytest.raises((RecipeError, SqlError)) as caught:
        plan_mixture(recipe_from(f"  - {{name: web, where: 'true', repeat: {repeat}}}\n"), corpus)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("repeat", "words"),
    [
        ("{}", ["`repeat` needs one of `factor` and `by`"]),
        ("{factor: '1', by: source}", ["`repeat` needs one of `factor` and `by`"]),
        ("{by: source}", ["`factors` goes with `by`"]),
        ("{by: source, factors: {web: 0.333}}", ["a factor counts in hundredths: 0.333 has more digits"]),
        ("{by: source, factors: {web: -1}}", ["`web` is -1"]),
    ],
)
def test_how_a_factor_is_written_is_checked(recipe_from: RecipeFrom, repeat: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from(f"  - {{name: web, where: 'true', repeat: {repeat}}}\n")
    assert all(word in str(caught.value) for word in [*words, "recipe.yaml:8"])


def test_a_source_whose_documents_all_have_factor_0_says_so(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    with pytest.raises(RecipeError, match="left without documents"):
        plan_mixture(recipe_from("  - {name: web, where: 'true', repeat: {factor: 0}}\n"), corpus)


def test_as_many_factors_as_documents_are_refused(
    corpus: Corpus, recipe_from: RecipeFrom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixtures.supply.MOST_FACTORS", 3)
    with pytest.raises(RecipeError, match="`web` 4 different factors; 3 may be") as caught:
        plan_mixture(recipe_from("  - {name: web, where: 'true', repeat: {factor: 'quality.bucket + 1.5'}}\n"), corpus)
    assert "recipe.yaml:8" in str(caught.value) and "round it" in str(caught.value)


HOSTED = [
    *(Doc(f"big{i:02d}", host="big.org", tokens=10) for i in range(30)),
    *(Doc(f"two{i}", host="two.org", tokens=10) for i in range(2)),
    *(Doc(f"own{i}", host=None, tokens=10) for i in range(4)),
]
LIMITED = "  - {name: web, where: source = 'web', max_documents_per_host: 3}\n"


def test_of_each_host_so_many_documents_are_taken_and_the_plan_says_what_is_left(
    make_run: MakeRun, recipe_from: RecipeFrom, keep_all: Policy, tmp_path: Path
) -> None:
    corpus = make_run(HOSTED, part_rows=8).corpus(keep_all)
    recipe = recipe_from(LIMITED)
    plan = plan_mixture(recipe, corpus)
    (web,) = plan.sources
    assert (web.documents, web.limited_documents, web.limited_tokens) == (9, 27, 270)
    assert "left by max_documents_per_host: 27 documents, 270 tokens" in plan.rows()[1][-1]
    assert plan.bindings["url.host"] == "url_facts.host"
    folder = write_mixture(tmp_path / "m", plan, recipe, corpus, vocabulary=make_run(HOSTED, 8).vocabulary())
    reader = IndexedReader(folder / "train" / "web-0000")
    numbers = [int(IndexedReader(path.with_suffix(""))[0][0]) for path in (folder / "train").glob("*.idx")]
    assert len(numbers) > 1 and reader.num_tokens > 0
    turned = make_run(HOSTED[::-1], part_rows=5, root=tmp_path / "turned").corpus(keep_all)
    names = [{str(name) for name in _names(recipe, either)} for either in (corpus, turned)]
    assert names[0] == names[1] and len(names[0]) == 9
    other = recipe_from(LIMITED, "seed: 2")
    assert {str(name) for name in _names(other, corpus)} != names[0]


def _names(recipe: Recipe, corpus: Corpus) -> list[str]:
    return list(drawn(recipe, Within(corpus.catalogue, corpus.verdicts, corpus.tokens), plan_mixture(recipe, corpus)))


class Within(Corpus):
    """A corpus of what the limits on hosts leave to a recipe."""

    def rows(self, recipe: Recipe, *, placed: bool = False) -> list[Rows]:
        parts = super().rows(recipe, placed=placed)
        within = choose_within(parts, [source.max_documents_per_host for source in recipe.sources])
        return [rows.take(chosen) for rows, chosen in zip(parts, within, strict=True)]


@given(
    documents=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 2**64 - 1)), unique=True),
    cut=st.integers(0, 50),
)
def test_limits_on_hosts_against_a_sort(documents: list[tuple[int, int, int]], cut: int) -> None:
    limits = [2, None, 1]
    parts = [_rows(piece) for piece in (documents[:cut], documents[cut:])]
    within = np.concatenate(choose_within(parts, limits)).tolist()
    for number, (source, host, spread) in enumerate(documents):
        limit = limits[source]
        before = sum((own, other) == (source, host) and place < spread for own, other, place in documents)
        ties = sum((own, other, place) == (source, host, spread) for own, other, place in documents)
        assert ties == 1 and within[number] == (host == 0 or limit is None or before < limit)


def _rows(documents: list[tuple[int, int, int]]) -> Rows:
    source, host, spread = (np.array([row[i] for row in documents], np.uint64) for i in range(3))
    none = np.zeros(len(documents), np.int32)
    grouped = none.astype(np.bool_)
    return Rows(source.astype(np.int32), spread, spread, grouped, none, none, host=host, spread=spread)


def test_a_limit_on_hosts_needs_the_hosts(make_run: MakeRun, recipe_from: RecipeFrom, keep_all: Policy) -> None:
    run = make_run(HOSTED)
    corpus = run.corpus(keep_all)
    schema = corpus.schema
    bare = schema.remove(schema.get_field_index("url_facts"))
    from mixtures.conditions import bind_sources

    with pytest.raises(SqlError, match="no stage `url` has measured") as caught:
        bind_sources(recipe_from(LIMITED), bare)
    assert "recipe.yaml:8" in str(caught.value)
