"""Plans: what is available, asked and given; limits; held-out groups; errors that say what to do."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mixtures.conditions import NOBODY, assign_sources
from mixtures.corpus import Corpus, draw_keys, open_corpus
from mixtures.draw import Candidates, Kinds, claim_groups, is_heldout
from mixtures.plan import MixturePlan, plan_mixture
from mixtures.policy import Policy
from mixtures.recipe import Recipe
from storage.errors import DatasetError, RecipeError, SqlError
from storage.schema import IDENTIFIER
from tests.mixtures.tiny_run import Doc, Run, doc_id, name_of

MakeRun = Callable[..., Run]
RecipeFrom = Callable[..., Recipe]

WEB = "  - {name: web, where: source = 'web', weight: 1}\n"
WIKI = "  - {name: wiki, where: source = 'wiki', weight: 1}\n"
DOCS = [
    *(Doc(f"web{i:02d}", tokens=10 + i) for i in range(20)),
    *(Doc(f"wiki{i:02d}", source="wiki", tokens=100) for i in range(5)),
]
WEB_TOKENS, WIKI_TOKENS = sum(range(10, 30)), 500


@pytest.fixture
def corpus(make_run: MakeRun, keep_all: Policy) -> Corpus:
    return make_run(DOCS, part_rows=7).corpus(keep_all)


def by_name(plan: MixturePlan, field: str) -> dict[str, object]:
    return {source.name: getattr(source, field) for source in plan.sources}


def test_without_weights_and_tokens_everything_is_given_once(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    recipe = recipe_from("  - {name: web, where: source = 'web'}\n  - {name: wiki, where: source = 'wiki'}\n")
    plan = plan_mixture(recipe, corpus)
    assert by_name(plan, "tokens_given") == {"web": WEB_TOKENS, "wiki": WIKI_TOKENS}
    assert by_name(plan, "epochs") == {"web": 1.0, "wiki": 1.0}
    assert by_name(plan, "documents") == {"web": 20, "wiki": 5}
    assert plan.tokens_given == plan.tokens_asked == plan.tokens_effective == WEB_TOKENS + WIKI_TOKENS
    assert plan.warnings == ()


def test_weights_share_out_one_epoch_of_all_and_targets_are_passed_by_less_than_a_document(
    corpus: Corpus, recipe_from: RecipeFrom
) -> None:
    plan = plan_mixture(recipe_from(WEB + WIKI.replace("weight: 1", "weight: 3")), corpus)
    assert by_name(plan, "tokens_asked") == {"web": 223, "wiki": 667}
    web, wiki = plan.sources
    assert 0 <= web.tokens_given - 223 < 29
    assert (wiki.tokens_given, wiki.whole_epochs) == (700, 1)
    assert 0 < web.documents_given < 20 and wiki.documents_given == 5
    assert wiki.tokens_effective == pytest.approx(500 + 500 * 15.387756 * (1 - np.exp(-0.4 / 15.387756)))


def test_epochs_say_how_many_tokens_there_are_by_what_the_sources_hold(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    alike = recipe_from(
        "  - {name: web, where: source = 'web'}\n  - {name: wiki, where: source = 'wiki'}\n", "epochs: 2"
    )
    assert {source.epochs for source in plan_mixture(alike, corpus).sources} == {2.0}
    held = sum(source.tokens_available for source in plan_mixture(alike, corpus).sources)
    weighted = plan_mixture(recipe_from(WEB + WIKI, "epochs: 0.5"), corpus)
    assert weighted.tokens_asked == math.ceil(held / 2)
    with pytest.raises(RecipeError, match=r"`tokens` and `epochs`(.|\n)*recipe\.yaml:\d"):
        recipe_from(WEB, "tokens: 10\nepochs: 2")


def test_what_a_source_may_not_have_goes_to_the_others(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    recipe = recipe_from(WEB + WIKI.replace("weight: 1", "weight: 1, max_epochs: 1"), head="tokens: 1200")
    plan = plan_mixture(recipe, corpus)
    assert by_name(plan, "tokens_asked") == {"web": 600, "wiki": 600}
    assert by_name(plan, "tokens_target") == {"web": 700, "wiki": 500}
    assert by_name(plan, "limit") == {"web": None, "wiki": "max_epochs"}
    notes = [row[-1] for row in plan.rows()]
    assert notes == ["note", "100 more, from others", "100 short: max_epochs", ""]


def test_a_share_limits_a_source(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    recipe = recipe_from(WEB.replace("weight: 1", "weight: 9, max_share: 0.25") + WIKI, head="tokens: 800")
    plan = plan_mixture(recipe, corpus)
    assert by_name(plan, "tokens_target") == {"web": 200, "wiki": 600}
    assert by_name(plan, "limit") == {"web": "max_share", "wiki": None}


def test_what_nobody_can_give_is_said(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    sources = (WEB + WIKI).replace("weight: 1", "weight: 1, max_epochs: 1")
    plan = plan_mixture(recipe_from(sources, head="tokens: 5k"), corpus)
    assert plan.tokens_given == WEB_TOKENS + WIKI_TOKENS
    assert plan.warnings == (
        "5,000 tokens were asked, 890 are given: every source is at its limit; raise `max_epochs` or `max_share`, "
        "or add sources",
    )


def test_tokens_of_a_source_are_met_first(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    recipe = recipe_from(WEB.replace("weight: 1", "tokens: 100") + WIKI, head="tokens: 600")
    assert by_name(plan_mixture(recipe, corpus), "tokens_target") == {"web": 100, "wiki": 500}


def test_tokens_that_are_not_there_are_an_error_that_says_what_would_do(
    corpus: Corpus, recipe_from: RecipeFrom
) -> None:
    recipe = recipe_from(WEB + WIKI.replace("weight: 1", "tokens: 2.5k"))
    with pytest.raises(RecipeError) as caught:
        plan_mixture(recipe, corpus)
    text = str(caught.value)
    assert text.startswith("recipe asks for 2,500 tokens of `wiki`, but 500 passed the policy")
    assert "recipe.yaml:9" in text and "set `max_epochs: 5`, lower `tokens`, or run `gristmill plan " in text
    plan = plan_mixture(recipe_from(WEB + WIKI.replace("weight: 1", "tokens: 2.5k, max_epochs: 5")), corpus)
    assert plan.sources[1].tokens_given == 2500


def test_tokens_above_a_share_are_an_error(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    recipe = recipe_from(WEB + WIKI.replace("weight: 1", "tokens: 400, max_share: 0.5"), head="tokens: 600")
    with pytest.raises(RecipeError, match="`max_share` of 0.5 allows 300 of 600"):
        plan_mixture(recipe, corpus)


def test_repetition_is_warned_of_above_4_and_refused_above_16(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    def plan(tokens: int, *, force: bool = False) -> MixturePlan:
        recipe = recipe_from("  - {name: wiki, where: source = 'wiki', max_epochs: 100}\n", head=f"tokens: {tokens}")
        return plan_mixture(recipe, corpus, force=force)

    assert plan(2000).warnings == ()
    (warning,) = plan(2600).warnings
    assert "`wiki` is repeated 5.2 times, above 4" in warning and "dropout" in warning
    with pytest.raises(RecipeError, match="repeats `wiki` 16.2 times, above the limit of 16") as caught:
        plan(8100)
    assert "--force" in str(caught.value) and "recipe.yaml:9" in str(caught.value)
    assert plan(8100, force=True).sources[0].epochs == 16.2


def test_a_document_belongs_to_the_first_source_that_takes_it(
    make_run: MakeRun, recipe_from: RecipeFrom, keep_all: Policy
) -> None:
    run = make_run([Doc("a", bucket=12), Doc("b", bucket=3), Doc("c", words=1), Doc("d", source="wiki", bucket=None)])
    recipe = recipe_from("  - {name: best, where: quality.bucket >= 10}\n  - {name: rest, where: 'true'}\n")
    corpus = run.corpus(keep_all)
    found = [assign_sources(recipe, table, verdicts).tolist() for _, table, verdicts in corpus.judged()]
    assert found == [[0, 1, NOBODY], [1]]
    assert by_name(plan_mixture(recipe, corpus), "documents") == {"best": 1, "rest": 2}


def heldout_names(recipe: Recipe, corpus: Corpus) -> set[str]:
    plan = plan_mixture(recipe, corpus)
    thresholds = [source.heldout for source in plan.sources]
    parts = corpus.rows(recipe, placed=True)
    claimed = claim_groups(parts, thresholds)
    return {
        name_of(rows.places.doc_id[int(i)].as_py())
        for rows in parts
        for i in np.flatnonzero(is_heldout(rows, thresholds, claimed))
    }


def test_held_out_sets_reach_their_share_and_are_whole_groups(
    make_run: MakeRun, recipe_from: RecipeFrom, keep_all: Policy
) -> None:
    pairs = [
        Doc(f"{source}{i:02d}", source=source, tokens=10, cluster=f"wiki{i:02d}", cluster_size=2)
        for i in range(30)
        for source in ("web", "wiki")
    ]
    corpus = make_run([*pairs, *(Doc(f"alone{i:02d}", tokens=10) for i in range(30))], part_rows=13).corpus(keep_all)
    recipe = recipe_from(WEB + WIKI, heldout="{share: 0.2}")
    plan = plan_mixture(recipe, corpus)
    names = heldout_names(recipe, corpus)
    assert {name[3:] for name in names if name.startswith("web")} == {
        name[4:] for name in names if name.startswith("wiki")
    }
    assert plan.sources[0].heldout_tokens >= 120 and plan.sources[1].heldout_tokens >= 60
    assert sum(source.heldout_documents for source in plan.sources) == len(names)
    assert all(source.heldout_bytes == 9 * source.heldout_documents for source in plan.sources)
    assert sum(source.documents + source.heldout_documents for source in plan.sources) == 90


def test_a_small_source_does_not_hold_out_the_groups_of_a_large_one(
    make_run: MakeRun, recipe_from: RecipeFrom, keep_all: Policy
) -> None:
    grouped = [Doc(f"web{i:03d}", tokens=10, cluster=f"c{i // 2:03d}", cluster_size=2) for i in range(200)]
    wiki = [Doc(f"wiki{i}", source="wiki", tokens=10) for i in range(10)]
    corpus = make_run([*grouped, *wiki], part_rows=100).corpus(keep_all)
    plan = plan_mixture(recipe_from(WEB + WIKI, heldout="{tokens: 70}"), corpus)
    assert by_name(plan, "heldout_tokens") == {"web": 80, "wiki": 70}


def test_a_group_that_one_source_holds_out_is_trained_on_by_none_and_the_plan_says_what_that_costs(
    make_run: MakeRun, recipe_from: RecipeFrom, keep_all: Policy
) -> None:
    spanning = [
        Doc(f"{source}{i:02d}", source=source, tokens=10, cluster=f"c{i:02d}", cluster_size=2)
        for i in range(10)
        for source in ("web", "wiki")
    ]
    alone = [Doc(f"alone{i:03d}", tokens=10) for i in range(300)]
    corpus = make_run([*spanning, *alone], part_rows=100).corpus(keep_all)
    recipe = recipe_from(WEB + WIKI, heldout="{tokens: 50}")
    plan, names = plan_mixture(recipe, corpus), heldout_names(recipe, corpus)
    web, wiki = plan.sources
    assert {name[3:] for name in names if name.startswith("web")} == {
        name[4:] for name in names if name.startswith("wiki")
    }
    assert (wiki.heldout_tokens, wiki.withheld_documents) == (50, 0)
    assert web.heldout_tokens - web.withheld_tokens == 50 and web.withheld_documents > 0
    assert web.withheld_tokens == 10 * web.withheld_documents
    note = f"held out with another source's duplicates: {web.withheld_documents} documents, {web.withheld_tokens} token"
    assert note in plan.rows()[1][-1] and "held out" not in plan.rows()[2][-1]


def test_held_out_texts_follow_from_seed_and_recipe_alone(
    make_run: MakeRun, recipe_from: RecipeFrom, keep_all: Policy, tmp_path: Path
) -> None:
    one = make_run(DOCS, part_rows=7).corpus(keep_all)
    other = make_run(DOCS[::-1], part_rows=4, root=tmp_path / "turned").corpus(keep_all)
    recipe = recipe_from(WEB + WIKI, heldout="{tokens: 60}")
    assert heldout_names(recipe, one) == heldout_names(recipe, other)
    assert heldout_names(recipe, one) != heldout_names(recipe_from(WEB + WIKI, "seed: 2", "{tokens: 60}"), one)
    more = recipe_from(WEB + WIKI, heldout="{tokens: 150}")
    assert heldout_names(recipe, one) < heldout_names(more, one)


def test_a_held_out_set_that_takes_all_is_an_error(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    with pytest.raises(RecipeError, match="takes all 5 documents of `wiki`"):
        plan_mixture(recipe_from(WIKI, heldout="{tokens: 401}"), corpus)


def test_a_larger_partial_epoch_holds_the_smaller_one(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    drawn: list[set[bytes]] = []
    for tokens in (30, 90, 250):
        recipe = recipe_from("  - {name: web, where: source = 'web'}\n", head=f"tokens: {tokens}")
        ends = [source.end for source in plan_mixture(recipe, corpus).sources]
        drawn.append(
            {
                rows.places.doc_id[int(i)].as_py()
                for rows in corpus.rows(recipe, placed=True)
                for i in np.flatnonzero(Kinds.plain(1).times(Candidates(rows.source, rows.order, rows.tokens), ends))
            }
        )
    assert set() < drawn[0] < drawn[1] < drawn[2]


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        (WEB + "  - {name: x, where: source = 'wbe', weight: 1}\n", ["no document meets", "`web` (20)", "`wiki` (5)"]),
        (
            WEB + "  - {name: x, where: source = 'books', weight: 1}\n",
            ["none of the 2 documents of source `x` passed", "`too_few_words` (2)"],
        ),
        (
            WEB + "  - {name: x, where: url.host = 'example.org' AND source = 'web', weight: 1}\n",
            ["of the 20 that meet"],
        ),
    ],
)
def test_a_source_without_documents_says_why(
    make_run: MakeRun, recipe_from: RecipeFrom, keep_all: Policy, sources: str, words: list[str]
) -> None:
    docs = [*DOCS, Doc("book1", source="books", words=1), Doc("book2", source="books", words=2)]
    with pytest.raises(RecipeError) as caught:
        plan_mixture(recipe_from(sources), make_run(docs).corpus(keep_all))
    for word in [*words, "recipe.yaml:9"]:
        assert word in str(caught.value)


def test_conditions_are_checked_together(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    sources = (
        "  - {name: a, where: sorce = 'web'}\n  - {name: b, where: text_bytes}\n  - {name: c, where: (SELECT 1)}\n"
    )
    with pytest.raises(SqlError, match="3 expressions are wrong") as caught:
        plan_mixture(recipe_from(sources), corpus)
    assert all(f"recipe.yaml:{line}" in str(caught.value) for line in (8, 9, 10))


def test_a_kept_document_that_is_not_stored_is_an_error_but_one_without_tokens_is_not(
    make_run: MakeRun, recipe_from: RecipeFrom, keep_all: Policy
) -> None:
    recipe = recipe_from(WEB)
    run = make_run([Doc("a"), Doc("empty", tokens=0), Doc("b")], part_rows=2)
    corpus = run.corpus(keep_all)
    assert by_name(plan_mixture(recipe, corpus), "documents") == {"web": 2}
    manifest = corpus.tokens.manifest
    less = type(corpus.tokens)(corpus.tokens.folder, type(manifest)(**{**vars(manifest), "parts": manifest.parts[:1]}))
    with pytest.raises(DatasetError, match="1 documents of part"):
        plan_mixture(recipe, Corpus(corpus.catalogue, corpus.verdicts, less))


def test_decisions_on_other_measurements_are_refused(
    make_run: MakeRun, recipe_from: RecipeFrom, keep_all: Policy, tmp_path: Path
) -> None:
    run, other = make_run([Doc("a")]), make_run([Doc("a", words=11)], root=tmp_path / "other")
    corpus = open_corpus(run.root / "catalogue", other.judge(keep_all), run.tokenize())
    with pytest.raises(DatasetError, match="was not judged with its present measurements"):
        plan_mixture(recipe_from(WEB), corpus)


def test_a_plan_is_the_same_json_every_time_and_its_identity_is_of_its_content(
    make_run: MakeRun, recipe_from: RecipeFrom, keep_all: Policy, tmp_path: Path
) -> None:
    recipe = recipe_from(WEB + WIKI, "tokens: 700", "{share: 0.1}")
    plans = [plan_mixture(recipe, make_run(DOCS, 7, tmp_path / name).corpus(keep_all)) for name in ("one", "two")]
    assert plans[0].to_json() == plans[1].to_json()
    values = json.loads(plans[0].to_json())
    assert values["mixture"] == plans[1].identity()
    assert values["bindings"] == {"source": "source"}
    again = recipe_from(WEB + WIKI, "tokens: 701", "{share: 0.1}")
    assert plan_mixture(again, make_run(DOCS, 7, tmp_path / "one").corpus(keep_all)).identity() != plans[0].identity()


def test_draws_are_uniform_and_independent_of_each_other() -> None:
    ids = pa.chunked_array([pa.array([doc_id(str(i)) for i in range(20_000)], IDENTIFIER)])
    train, heldout = draw_keys(ids, "train", 1), draw_keys(ids, "heldout", 1)
    for keys in (train, heldout, train ^ heldout):
        counts = np.bincount((keys >> np.uint64(60)).astype(int), minlength=16)
        assert abs(counts - 1250).max() < 200
    assert draw_keys(ids.slice(5, 3), "train", 1).tolist() == train[5:8].tolist()
