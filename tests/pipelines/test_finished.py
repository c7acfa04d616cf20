"""What a finished run is recognised by: another policy, recipe or tokenizer makes another run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.commands.run import _yaml_files
from pipelines.request import RunRequest, quick_identity

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
