"""Rubrics: what the model is sent, when a version changes, and what a file may not say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from classifiers.annotation.rubric import Rubric
from pipelines.rubrics import SCHEMA, SHIPPED, load_rubric, rubric_schema
from storage.errors import RecipeError

RUBRIC = Rubric(name="toy", prompt="Grade {json: 1} this:\n{text}\nGrade:", best="good", worst="bad", text_characters=5)


def test_the_text_stands_where_the_prompt_says_and_is_cut() -> None:
    (message,) = RUBRIC.messages("abcdefgh")
    assert message == {"role": "user", "content": "Grade {json: 1} this:\nabcde\nGrade:"}


def test_a_text_that_holds_the_place_is_not_read_as_a_prompt() -> None:
    wide = dataclasses.replace(RUBRIC, text_characters=100)
    assert wide.messages("x {text} y")[0]["content"].count("{text}") == 1


@pytest.mark.parametrize(
    "change",
    [{"prompt": "Other: {text}"}, {"system": "Be kind."}, {"highest": 4}, {"lowest": 1}, {"text_characters": 6}],
)
def test_every_change_of_what_is_asked_is_another_version(change: dict) -> None:
    assert dataclasses.replace(RUBRIC, **change).version() != RUBRIC.version()


@pytest.mark.parametrize("change", [{"name": "other"}, {"best": "better"}, {"threshold": 2.0}])
def test_what_the_model_is_not_told_is_no_part_of_the_version(change: dict) -> None:
    assert dataclasses.replace(RUBRIC, **change).version() == RUBRIC.version()


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_rubrics_load_by_their_names(path: Path) -> None:
    rubric = load_rubric(path.stem)
    grades = "0123456789" if path.stem.startswith("story_") else "012345"
    assert rubric.name == path.stem and rubric.digits == tuple(grades)
    chinese = any("\u4e00" <= character <= "\u9fff" for character in rubric.prompt)
    assert chinese == path.stem.endswith("_zh")


def test_the_schema_is_current() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == rubric_schema(), "renew it: python -m pipelines.rubrics"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("prompt: Grade it.", "`{text}` 0 times"),
        ("prompt: '{text} {text}'", "`{text}` 2 times"),
        ("prompt: '{text}'\nlowest: 5", "from 5 to 5"),
        ("prompt: '{text}'\nhighest: 10", "highest"),
        ("prompt: '{text}'\nthreshold: 6", "threshold"),
        ("prompt: '{text}'\npromt: x", "unknown key `promt`"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"format_version: 1\nname: mine\nbest: good\nworst: bad\n{line}\n")
    with pytest.raises(RecipeError, match=said.replace("{", r"\{")) as told:
        load_rubric(str(path))
    assert "mine.yaml:" in str(told.value)


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(RecipeError, match="no rubric `educational`") as told:
        load_rubric("educational")
    assert "educational_direct_en" in str(told.value)
