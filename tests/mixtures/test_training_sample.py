"""The tokenizer's sample: groups get the shares asked for, the same documents every time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from mixtures.policy import Policy
from mixtures.recipe import Recipe
from mixtures.training_sample import TrainingSample, draw_training_sample
from storage.errors import RecipeError, SqlError
from storage.manifests import open_dataset
from tests.mixtures.tiny_run import Doc, Run

SIZE = 100
TWO = "  - {name: web, where: source = 'web'}\n  - {name: wiki, where: source = 'wiki'}"


Draw = Callable[..., TrainingSample]


@pytest.fixture
def draw(make_run: Callable[..., Run], recipe_from: Callable[..., Recipe], keep_all: Policy) -> Draw:
    """A sample of texts of SIZE bytes each; the recipe's `train` settings come as YAML."""
    made: dict[int, Run] = {}

    def sample(documents: Sequence[Doc], train: str, most_bytes: int) -> TrainingSample:
        run = made.setdefault(id(documents), make_run(documents, part_rows=7)) if not made else made[id(documents)]
        recipe = recipe_from(TWO, f"tokenizer: {{train: {{vocabulary_size: 500{train}}}}}")
        verdicts = open_dataset(run.judge(keep_all) / "verdicts")
        return draw_training_sample(recipe, run.catalogue, verdicts, most_bytes)

    return sample


def docs(**numbers: int) -> list[Doc]:
    """Documents by language and source: `en_web=3` are three English ones from the web."""
    return [
        Doc(f"{kind}{i}", label=kind.split("_")[0], source=kind.split("_")[1], text="x" * SIZE)
        for kind, number in numbers.items()
        for i in range(number)
    ]


def test_without_a_balance_the_sources_share_alike(draw: Draw) -> None:
    sample = draw(docs(en_web=20, zh_web=10, en_wiki=12), "", 2000)
    assert sample.group_bytes == {"web": 1000, "wiki": 1000}
    assert len(sample.row) == 20


def test_languages_by_their_weights(draw: Draw) -> None:
    sample = draw(docs(en_web=40, zh_web=20, fr_wiki=20), ", balance: {en: 2, zh: 1}", 1500)
    assert sample.group_bytes == {"en": 1000, "zh": 500}


def test_all_others_are_a_group(draw: Draw) -> None:
    sample = draw(docs(en_web=40, zh_web=9, fr_wiki=9), ", balance: {en: 1.5, other: 0.5}", 1600)
    assert sample.group_bytes == {"en": 1200, "other": 400}


def test_any_expression_makes_groups(draw: Draw) -> None:
    train = ", balance: {en wiki: 1, zh web: 3}, balance_by: \"language.label || ' ' || source\""
    sample = draw(docs(en_web=9, en_wiki=9, zh_web=30), train, 800)
    assert sample.group_bytes == {"en wiki": 200, "zh web": 600}


def test_a_group_that_runs_short_leaves_its_rest_to_nobody(draw: Draw) -> None:
    assert draw(docs(en_web=40, zh_web=2), ", balance: {en: 1, zh: 1}", 2000).group_bytes == {"en": 1000, "zh": 200}


def test_a_larger_sample_holds_the_smaller(draw: Draw) -> None:
    documents = docs(en_web=30, zh_wiki=30)
    small, large = draw(documents, "", 800), draw(documents, "", 3000)
    places = [set(zip(sample.part.tolist(), sample.row.tolist(), strict=True)) for sample in (small, large)]
    assert len(places[0]) == 8 and places[0] < places[1]


def test_what_no_source_takes_is_not_in_it(draw: Draw) -> None:
    sample = draw([*docs(en_web=3), *docs(en_books=5)], ", balance: {en: 1}", 10_000)
    assert sample.group_bytes == {"en": 300}


@pytest.mark.parametrize(
    ("train", "fault"),
    [
        (", balance: {en: 1}, balance_by: langauge.label", "langauge.label"),
        (", balance: {en: 1}, balance_by: (SELECT 1)", "subquery"),
    ],
)
def test_a_key_that_cannot_be_used_is_named(draw: Draw, train: str, fault: str) -> None:
    with pytest.raises(SqlError, match=fault):
        draw(docs(en_web=2), train, 1000)


@pytest.mark.parametrize(
    ("train", "fault"),
    [
        ("balance_by: source", "no `balance` names them"),
        ("balance: {en: 0}", "`en` has a weight of 0"),
        ("balance: {}", "balance"),
        ("special_tokens: [a1, a1]", "'a1' is named twice"),
        ("special_tokens: ['<|endoftext|>']", "named twice"),
        ("special_tokens: [a1, a2, a3], vocabulary_size: 258", "258 entries cannot hold 256 bytes and 4 tokens"),
        ("digits: 0", "digits"),
    ],
)
def test_settings_that_say_nothing_are_refused(recipe_from: Callable[..., Recipe], train: str, fault: str) -> None:
    size = "" if "vocabulary_size" in train else "vocabulary_size: 500, "
    with pytest.raises(RecipeError, match=fault):
        recipe_from(TWO, f"tokenizer: {{train: {{{size}{train}}}}}")
