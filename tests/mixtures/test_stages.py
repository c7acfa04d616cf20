"""Stages: what they draw, what they leave to each other, which limits hold over all of them, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixtures.conditions import Conditions
from mixtures.corpus import Corpus, Rows, draw_keys
from mixtures.draw import EPOCH, Candidates, Kinds, claim_groups, is_heldout, number_kinds, settle_ends
from mixtures.plan import MixturePlan, plan_mixture, plan_stages, plans_json
from mixtures.policy import Policy
from mixtures.recipe import Recipe
from mixtures.select import write_mixture
from mixtures.yaml_files import load_yaml
from storage.errors import RecipeError
from storage.manifests import Dataset, Manifest
from storage.schema import IDENTIFIER
from tests.mixtures.tiny_run import Doc, Run, name_of
from trainer.data.mixture import open_mixture

MakeRun = Callable[..., Run]
RecipeFrom = Callable[..., Recipe]

WEB = "  - {name: web, where: source = 'web', weight: 3}\n"
WIKI = "  - {name: wiki, where: source = 'wiki', weight: 1}\n"
STAGES = """stages:
  - {name: long, tokens: 600}
  - name: anneal
    tokens: 150
    sources: {wiki: {weight: 1}}
    learning_rate: linear_to_zero
  - {name: far, after: long, tokens: 200, sequence_length: 4096, seed: 9}
"""
DOCS = [
    *(Doc(f"web{i:02d}", tokens=10 + i, bucket=i % 3) for i in range(20)),
    *(Doc(f"wiki{i:02d}", source="wiki", tokens=20) for i in range(25)),
]


@pytest.fixture
def corpus(make_run: MakeRun, keep_all: Policy) -> Corpus:
    return make_run(DOCS, part_rows=7).corpus(keep_all)


def staged(recipe_from: RecipeFrom, stages: str = STAGES, sources: str = WEB + WIKI, heldout: str = "") -> Recipe:
    return recipe_from(f"{sources}{stages}", heldout=heldout or "{share: 0.1}")


def drawn(recipe: Recipe, corpus: Corpus, plan: MixturePlan) -> Counter[str]:
    """How often a plan takes each document."""
    parts = corpus.rows(recipe, placed=True)
    kinds, numbers = number_kinds([(rows.source, rows.factor) for rows in parts], len(plan.sources))
    thresholds = [source.heldout for source in plan.sources]
    claimed = claim_groups(parts, thresholds)
    taken: Counter[str] = Counter()
    for rows, kind in zip(parts, numbers, strict=True):
        candidates = Candidates(kind, rows.order, rows.tokens)
        ends, starts = ([getattr(s, side) for s in plan.sources] for side in ("end", "start"))
        times = kinds.times(candidates, ends) - kinds.times(candidates, starts)
        times = np.where(is_heldout(rows, thresholds, claimed), 0, times)
        taken.update({name_of(rows.places.doc_id[i].as_py()): int(times[i]) for i in np.flatnonzero(times)})
    return taken


def test_a_stage_goes_on_where_the_one_before_stopped(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    recipe = staged(recipe_from)
    long, anneal, far = plan_stages(recipe, corpus)
    assert (long.stage, anneal.after, far.after) == ("long", "long", "long")
    assert anneal.after_mixture == far.after_mixture == long.identity()
    assert len({plan.identity() for plan in (long, anneal, far)}) == 3
    assert (far.sequence_length, long.sequence_length, far.seed) == (4096, 1024, 9)
    first, then = drawn(recipe, corpus, long), drawn(recipe, corpus, anneal)
    assert set(then) == {name for name in then if name.startswith("wiki")} and not set(first) & set(then)
    wiki = anneal.sources[1]
    assert wiki.tokens_so_far == long.sources[1].tokens_given + wiki.tokens_given
    assert wiki.epochs_so_far == pytest.approx(long.sources[1].epochs + wiki.epochs)
    assert anneal.sources[0].tokens_given == 0 and "web" not in [row[0] for row in anneal.rows()]


def test_stages_after_the_same_one_draw_alike(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    stages = "stages:\n  - {name: a, tokens: 300}\n  - {name: b, tokens: 200}\n"
    stages += "  - {name: c, after: a, tokens: 200, seed: 3}\n"
    recipe = staged(recipe_from, stages)
    _, b, c = plan_stages(recipe, corpus)
    assert drawn(recipe, corpus, b) == drawn(recipe, corpus, c) and b.identity() != c.identity()


def test_all_stages_together_are_what_one_of_their_sum_is(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    only = "  - {name: web, where: source = 'web'}\n"
    stages = "stages:\n" + "".join(f"  - {{name: s{i}, tokens: {100 + i}}}\n" for i in range(6))
    recipe = staged(recipe_from, stages, only)
    plans = plan_stages(recipe, corpus)
    total = sum((drawn(recipe, corpus, plan) for plan in plans), Counter())
    one = recipe_from(only, f"tokens: {plans[-1].sources[0].tokens_so_far}", "{share: 0.1}")
    (whole,) = plan_stages(one, corpus)
    assert drawn(one, corpus, whole) == total and max(total.values()) - min(total.values()) <= 1
    assert sum(plan.tokens_effective for plan in plans) == pytest.approx(whole.tokens_effective)
    assert whole.sources[0].heldout == plans[3].sources[0].heldout


def test_limits_hold_over_all_stages_on_the_way(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    sources = WEB + WIKI.replace("weight: 1", "weight: 3, max_epochs: 1")
    recipe = staged(recipe_from, "stages:\n  - {name: a, tokens: 600}\n  - {name: b, tokens: 600}\n", sources)
    a, b = plan_stages(recipe, corpus)
    assert b.sources[1].tokens_so_far == b.sources[1].tokens_available
    assert b.sources[1].limit == "max_epochs" and b.sources[0].tokens_target == 600 - b.sources[1].tokens_target
    assert a.sources[1].tokens_target == 300


def test_epochs_of_earlier_stages_count_for_warnings_and_refusals(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    many = "  - {name: wiki, where: source = 'wiki', max_epochs: 100}\n"
    recipe = staged(recipe_from, "stages:\n  - {name: a, tokens: 1500}\n  - {name: b, tokens: 1500}\n", many)
    a, b = plan_stages(recipe, corpus)
    assert a.warnings == () and "`wiki` is repeated 6.8 times by now, above 4" in b.warnings[0]
    more = staged(recipe_from, "stages:\n  - {name: a, tokens: 4k}\n  - {name: b, tokens: 4k}\n", many)
    with pytest.raises(RecipeError, match="repeats `wiki` 18.2 times, above the limit of 16"):
        plan_stages(more, corpus)
    assert plan_stages(more, corpus, force=True)[1].sources[0].epochs_so_far > 18


def test_a_stage_for_which_nothing_is_left_is_an_error(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    sources = WEB + "  - {name: wiki, where: source = 'wiki', max_epochs: 1, weight: 9}\n"
    stages = "stages:\n  - {name: a, tokens: 900}\n  - {name: b, tokens: 10, sources: {wiki: {}}}\n"
    with pytest.raises(RecipeError, match="nothing is left for stage `b`") as caught:
        plan_stages(staged(recipe_from, stages, sources), corpus)
    assert "recipe.yaml:12" in str(caught.value)


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ("  - {name: a, tokens: 1}\n  - {name: b, after: c, tokens: 1}\n", ["12: stage `b` goes on after `c`", "a, b"]),
        (
            "  - {name: a, after: b, tokens: 1}\n  - {name: b, tokens: 1}\n",
            ["11: the stages go in a circle: `a` after `b` after `a`"],
        ),
        ("  - {name: a, tokens: 1}\n  - {name: a, tokens: 1}\n", ["12: two stages are called `a`"]),
        (
            "  - name: a\n    tokens: 1\n    sources:\n      wki: {weight: 1}\n",
            ["14: stage `a` takes `wki`, which is no source of this recipe; its sources: web, wiki"],
        ),
        ("  - {name: a, tokens: 1, sources: {web: {}}}\n", ["9: source `wiki` is in no stage"]),
        (
            "  - {name: a, tokens: 5, sources: {web: {tokens: 6}, wiki: {}}}\n",
            ["ask for 6 tokens, but stage `a` has 5"],
        ),
        ("  - {name: a}\n", ["11", "stage `a` needs one of `tokens` and `epochs`"]),
        ("  - {name: a, tokens: 1, learning_rate: fast}\n", ['11: `learning_rate` is "fast"']),
        (
            "  - {name: a, tokens: 1, sequences: 3}\n",
            ["11: unknown key `sequences`", "did you mean `sequence_length`?"],
        ),
        ("  - {name: a, tokens: 1, sources: {web: {weight: 0}, wiki: {}}}\n", ["0 takes nothing"]),
    ],
)
def test_stages_that_cannot_be_say_so_with_their_line(recipe_from: RecipeFrom, stages: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from(f"{WEB}{WIKI}stages:\n{stages}")
    assert all(word in str(caught.value).replace("\n  at: ", " ") or _at(word, caught.value) for word in words)


def _at(word: str, error: RecipeError) -> bool:
    line, _, what = word.partition(": ")
    return what in str(error) and f"recipe.yaml:{line}" in str(error)


def test_tokens_beside_stages_are_refused(recipe_from: RecipeFrom) -> None:
    with pytest.raises(RecipeError, match="a recipe with `stages` has no `tokens` of its own"):
        recipe_from(f"{WEB}stages:\n  - {{name: a, tokens: 1}}\n", "tokens: 5")


def test_a_stages_source_that_cannot_be_met_points_at_it(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    stages = "stages:\n  - {name: a, tokens: 1k, sources: {web: {weight: 1}}}\n  - name: b\n    tokens: 3k\n"
    stages += "    sources:\n      wiki:\n        tokens: 2.9k\n      web: {weight: 1}\n"
    with pytest.raises(RecipeError, match="stage `b` asks for 2,900 tokens of `wiki`") as caught:
        plan_stages(staged(recipe_from, stages), corpus)
    assert "recipe.yaml:16" in str(caught.value) and "set `max_epochs: 7`" in str(caught.value)


def test_every_stage_has_a_folder_that_says_where_it_stands(
    make_run: MakeRun, recipe_from: RecipeFrom, keep_all: Policy, tmp_path: Path
) -> None:
    run = make_run(DOCS, part_rows=7)
    corpus, recipe = run.corpus(keep_all), staged(recipe_from)
    plans = plan_stages(recipe, corpus)
    folders = [
        write_mixture(run.root / plan.identity(), plan, recipe, corpus, vocabulary=run.vocabulary()) for plan in plans
    ]
    blends = [json.loads((folder / "blend.json").read_bytes()) for folder in folders]
    assert [blend["stage"]["name"] for blend in blends] == ["long", "anneal", "far"]
    assert blends[0]["stage"]["after"] is None
    assert blends[1]["stage"] == {
        "name": "anneal",
        "after": {"stage": "long", "mixture": plans[0].identity()},
        "learning_rate": "linear_to_zero",
    }
    assert {entry["source"] for entry in blends[1]["train"]} == {"wiki"}
    assert all(set(blend["heldout"]) == {"web", "wiki"} for blend in blends)
    sizes = [[(name, row["tokens"]) for name, row in blend["heldout"].items()] for blend in blends]
    assert sizes[0] == sizes[1] == sizes[2]
    for plan, folder in zip(plans, folders, strict=True):
        assert open_mixture(folder).train_tokens == plan.tokens_given
    assert json.loads(plans_json(plans))["stages"][2]["after"] == "long"


def test_a_recipe_without_stages_is_one_without_a_name(corpus: Corpus, recipe_from: RecipeFrom) -> None:
    recipe = recipe_from(WEB + WIKI)
    assert plan_stages(recipe, corpus) == (plan_mixture(recipe, corpus),)
    assert plan_mixture(recipe, corpus).stage is None
    assert json.loads(plans_json(plan_stages(recipe, corpus)))["mixture"] == plan_mixture(recipe, corpus).identity()


KEYS = st.one_of(st.integers(0, EPOCH - 1), st.integers(0, 5), st.integers(2**52 - 3, 2**52 + 3))
DRAWN = st.lists(st.tuples(st.integers(0, 3), KEYS, st.integers(1, 1000)), min_size=1, max_size=40)


@given(
    rows=DRAWN,
    factors=st.lists(st.sampled_from([1, 30, 100, 150, 333, 10_000]), min_size=4, max_size=4),
    target=st.integers(1, 100_000),
    cut=st.integers(0, 40),
)
def test_an_end_is_that_of_sorting_every_time_a_document_comes(
    rows: list[tuple[int, int, int]], factors: list[int], target: int, cut: int
) -> None:
    """Against the definition: a document of factor `f` and key `k` comes at ticks above `(j * EPOCH + k) / f`."""
    kinds = Kinds((0,) * 4, tuple(factors))
    parts = [
        Candidates(
            *(np.array([row[i] for row in piece], kind) for i, kind in enumerate((np.int32, np.uint64, np.int64)))
        )
        for piece in (rows[:cut], rows[cut:])
    ]
    (end,) = settle_ends(parts, kinds, [target])

    def given_at(ticks: int) -> int:
        return sum(
            tokens * max(0, -(-(Fraction(ticks * factors[kind], 100) - key) // EPOCH)) for kind, key, tokens in rows
        )

    times = [kinds.times(part, [end]) for part in parts]
    assert sum(int((part.tokens * often).sum()) for part, often in zip(parts, times, strict=True)) == given_at(end)
    assert given_at(end - 1) < target <= given_at(end)


@dataclasses.dataclass(frozen=True)
class Listed(Corpus):
    """A corpus of given rows, without files."""

    given: tuple[tuple[Rows, ...], ...] = ()

    def rows(self, recipe: Recipe, *, placed: bool = False) -> list[Rows]:
        return list(self.given[0])

    def bind(self, recipe: Recipe) -> Conditions:
        return Conditions("", None, None, None, {})


def listed(rows: Sequence[tuple[int, int, int, int]], sources: int, cuts: Sequence[int], seed: int) -> Listed:
    """(source, group, tokens, factor) as documents, cut into parts; the number in the list is the identifier."""
    several, pieces = Counter(row[1] for row in rows), np.split(np.arange(len(rows)), sorted(cuts))
    parts = []
    for piece in pieces:
        ids = pa.chunked_array([pa.array([hash_of(rows[i]) for i in piece], IDENTIFIER)])
        groups = pa.chunked_array([pa.array([rows[i][1].to_bytes(16, "big") for i in piece], IDENTIFIER)])
        parts.append(
            Rows(
                source=np.array([rows[i][0] % sources for i in piece], np.int32),
                order=draw_keys(ids, "train", seed),
                cluster=draw_keys(groups, "heldout", seed),
                grouped=np.array([several[rows[i][1]] > 1 for i in piece], np.bool_),
                tokens=np.array([rows[i][2] for i in piece], np.int32),
                bytes=np.zeros(len(piece), np.int32),
                factor=np.array([rows[i][3] for i in piece], np.int32),
            )
        )
    stage = {"policy_identity": "", "policy": {"name": "p"}}
    manifest = Manifest(kind="", identity="", stage=stage, parts=(), facts={"decided": {}})
    nothing = Dataset(Path(), manifest)
    return Listed(nothing, nothing, nothing, given=(tuple(parts),))


def hash_of(row: tuple[int, int, int, int]) -> bytes:
    return ":".join(map(str, row)).encode().ljust(16, b".")[:16]


DOCUMENTS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(1, 50), st.sampled_from([50, 100, 100, 300])),
    min_size=12,
    max_size=40,
    unique=True,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=DOCUMENTS,
    amounts=st.lists(st.tuples(st.integers(1, 400), st.integers(0, 3)), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 40), max_size=3),
    most=st.sampled_from(["0.5", "1", "2.5", "7"]),
    turn=st.randoms(use_true_random=False),
)
def test_of_any_stages_sums_are_exact_limits_hold_and_the_order_of_documents_is_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, int, int, int]],
    amounts: list[tuple[int, int]],
    cuts: list[int],
    most: str,
    turn: object,
) -> None:
    names = "".join(f"  - {{name: s{i}, where: 'true', weight: {i + 1}, max_epochs: {most}}}\n" for i in range(2))
    after = [f", after: t{parent % i}" if i else "" for i, (_, parent) in enumerate(amounts)]
    stages = "".join(f"  - {{name: t{i}, tokens: {n}{after[i]}}}\n" for i, (n, _) in enumerate(amounts))
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    head = "format_version: 1\nname: t\nseed: 5\npolicy: p\ntokenizer: {load: t}\nheldout: {tokens: 30}\n"
    path.write_text(f"{head}sources:\n{names}stages:\n{stages}")
    recipe, corpus = load_yaml(path, Recipe), listed(rows, 2, cuts, 5)
    try:
        plans = plan_stages(recipe, corpus)
    except RecipeError as error:
        assert any(word in str(error) for word in ("takes all", "nothing is left", "left without", "no document"))
        return
    shuffled = list(rows)
    turn.shuffle(shuffled)  # type: ignore[attr-defined]
    assert plan_stages(recipe, listed(shuffled, 2, cuts[:1], 5)) == plans
    _check_stages(recipe, corpus, plans, Fraction(most))


def _check_stages(recipe: Recipe, corpus: Listed, plans: Sequence[MixturePlan], most: Fraction) -> None:
    parts = corpus.rows(recipe)
    thresholds = [source.heldout for source in plans[0].sources]
    claimed = claim_groups(parts, thresholds)
    heldout = np.concatenate([is_heldout(rows, thresholds, claimed) for rows in parts])
    kinds, numbers = number_kinds([(rows.source, rows.factor) for rows in parts], 2)
    order, tokens = (np.concatenate([getattr(rows, name) for rows in parts]) for name in ("order", "tokens"))
    source, kind = np.concatenate([rows.source for rows in parts]), np.concatenate(numbers)
    so_far: dict[str | None, np.ndarray] = {None: np.zeros(len(order), np.int64)}
    for plan in plans:
        assert [s.heldout for s in plan.sources] == thresholds
        ends, starts = ([getattr(s, side) for s in plan.sources] for side in ("end", "start"))
        rows = Candidates(kind, order, tokens)
        times = np.where(heldout, 0, kinds.times(rows, ends) - kinds.times(rows, starts))
        so_far[plan.stage] = so_far[plan.after] + times
        assert times.min() >= 0 and so_far[plan.stage].max() <= -(-most // 1)
        for i, planned in enumerate(plan.sources):
            mine = source == i
            assert int((tokens * times)[mine].sum()) == planned.tokens_given
            assert int((times[mine] > 0).sum()) == planned.documents_given
            assert planned.tokens_target <= planned.tokens_given < planned.tokens_target + tokens[mine].max()
        assert all(s.limit or s.tokens_target >= s.tokens_asked for s in plan.sources)
        met = sum(s.tokens_target for s in plan.sources)
        assert met == plan.tokens_asked or (met < plan.tokens_asked and plan.warnings)
