"""Briefs: what the model is sent, when a version changes, and what a file may not say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from classifiers.synthesis.brief import Brief, Wording, brief_from_json
from pipelines.briefs import SCHEMA, SHIPPED, brief_schema, load_brief
from storage.errors import RecipeError

ENGLISH, CHINESE = Wording(prompts={"write": 'Say {"a": 1}: {text}'}), Wording(prompts={"write": "写：{text}"})
BRIEF = Brief(name="toy", kind="text", wordings={"en": ENGLISH, "zh": CHINESE})


@pytest.mark.parametrize(
    ("language", "begins"), [("en", "Say"), ("zh", "写"), ("fr", "Say"), (None, "Say"), ("", "Say")]
)
def test_a_text_is_asked_about_in_its_language(language: str | None, begins: str) -> None:
    (message,) = BRIEF.messages(language, "write", {"text": "x {text} {abstracts}"})
    assert message["content"].startswith(begins) and message["content"].endswith("x {text} {abstracts}")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "list"}, {"source_text": "after"}, {"passage_tokens": 50}, {"least_tokens": 5}, {"answer_tokens": 5},
        {"temperature": 0.1}, {"wordings": {"en": ENGLISH}}, {"wordings": {"en": CHINESE, "zh": CHINESE}},
    ],
)  # fmt: skip
def test_every_change_of_what_is_written_is_another_version(change: dict[str, Any]) -> None:
    assert dataclasses.replace(BRIEF, **change).version() != BRIEF.version()


@pytest.mark.parametrize("change", [{"name": "other"}, {"where": "true"}, {"most_copied": None}])
def test_what_is_chosen_or_screened_is_no_part_of_the_version(change: dict[str, Any]) -> None:
    assert dataclasses.replace(BRIEF, **change).version() == BRIEF.version()


def test_a_brief_goes_through_json() -> None:
    assert brief_from_json(json.loads(json.dumps(dataclasses.asdict(BRIEF)))) == BRIEF


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_briefs_load_by_their_names_and_speak_both_languages(path: Path) -> None:
    brief = load_brief(path.stem)
    assert brief.name == path.stem and list(brief.wordings) == ["en", "zh"] and brief.where
    for language, wording in brief.wordings.items():
        for prompt in wording.prompts.values():
            assert any("\u4e00" <= character <= "\u9fff" for character in prompt) == (language == "zh")
            assert prompt.count("-" * 10) == 2


def test_the_schema_is_current() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == brief_schema(), "renew it: python -m pipelines.briefs"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("kind: text\nwordings: {en: {prompts: {write: Say it.}}}", "has no place"),
        ("kind: text\nwordings: {en: {prompts: {write: '{text} {text}'}}}", "write `{text}`, once"),
        ("kind: chain\nwordings: {en: {prompts: {write: '{text}'}}}", "segment, abstract, question"),
        ("kind: poem\nwordings: {en: {prompts: {write: '{text}'}}}", "kind"),
        ("kind: text\nwordings: {}", "wordings"),
        ("kind: text\nleast_tokens: 2000\nwordings: {en: {prompts: {write: '{text}'}}}", "from 2000 to 1000 tokens"),
        ("kind: text\nwordings: {en: {promts: {}, prompts: {write: '{text}'}}}", "unknown key `promts`"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(lines: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"format_version: 1\nname: mine\n{lines}\n")
    with pytest.raises(RecipeError) as told:
        load_brief(str(path))
    assert said in str(told.value) and "mine.yaml:" in str(told.value)
