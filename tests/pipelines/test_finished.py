"""What a finished run is recognised by: another policy, recipe or tokenizer makes another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.commands.run import _yaml_files
from pipelines.named_files import quick_identity
from pipelines.request import RunRequest

RECIPE = "policy: {policy}\ntokenizer: {tokenizer}\n"


def identity(recipe: Path) -> str:
    request = RunRequest(recipe=str(recipe))
    return quick_identity(request, _yaml_files(request))


@pytest.mark.parametrize("changed", ["policy.yaml", "recipe.yaml", "words/tokenizer.json"])
def test_what_a_recipe_names_beside_itself_counts(tmp_path: Path, changed: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    (tmp_path / "words").mkdir()
    recipe.write_text(RECIPE.format(policy="policy.yaml", tokenizer="{load: words}"))
    for file in ("policy.yaml", "words/tokenizer.json"):
        (tmp_path / file).write_text("{}")
    before = identity(recipe)
    assert identity(recipe) == before
    with (tmp_path / changed).open("a") as file:
        file.write(" ")
    assert identity(recipe) != before


@pytest.mark.parametrize("text", ["", "- 1", "policy: [", "tokenizer: 3", "policy: web_default", "\xff"])
def test_what_is_no_recipe_is_left_to_the_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_bytes(text.encode("latin-1"))
    assert identity(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("option", "file"),
    [
        ({"preset": "own.yaml"}, "own.yaml"),
        ({"language_model": "lid.bin"}, "lid.bin"),
        ({"labels": "labels"}, "labels/manifest.json"),
        ({"score": ("edu=models/edu:clip=0..5",)}, "models/edu/model.safetensors"),
        ({"measure": ("url_lists:folder=lists",)}, "lists/domains"),
    ],
)
def test_what_options_name_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: dict[str, Any], file: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("one")
    request = RunRequest(out="runs/first", **option)
    before = quick_identity(request, _yaml_files(request))
    assert quick_identity(request, _yaml_files(request)) == before
    (tmp_path / file).write_text("another")
    assert quick_identity(request, _yaml_files(request)) != before


def test_what_a_run_writes_does_not_make_it_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny" / "run").mkdir(parents=True)
    request = RunRequest(out="tiny/run", preset="tiny")
    before = quick_identity(request, [])
    (tmp_path / "tiny" / "run" / "report.html").write_text("done")
    (tmp_path / "tiny" / "notes.txt").write_text("mine")
    assert quick_identity(request, []) == before
