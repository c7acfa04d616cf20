"""What can be compared: lists of recipes and policies, matrices by axes or one by one, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixtures.policy import load_policy
from mixtures.recipe import load_recipe
from pipelines.experiments import Experiment, is_matrix, list_experiments, load_matrix
from storage.errors import InputError, RecipeError

RAW = "format_version: 1\nname: raw\nrules:\n  - {rule: nothing, when: 'false'}\n"
OTHER = RAW.replace("nothing", "no_words").replace("'false'", "rules.num_words = 0")
MATRIX = """\
format_version: 1
name: filters_and_rates
tokens: 2M
seeds: 2
axes:
  data: [raw.yaml, web_default]
  training.learning_rate: [0.003, 0.006]
  model.num_layers: [2, 4]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "raw.yaml").write_text(RAW)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "raw2.yaml").write_text(OTHER)
    return tmp_path


def listed(folder: Path, *references: str) -> list[Experiment]:
    own = load_recipe("web_wiki")
    return list_experiments([{"data": name} for name in references], own, load_policy("web_default"), folder)


def test_a_policy_takes_the_runs_recipe_and_a_recipe_its_own_policy(folder: Path) -> None:
    policy, recipe = listed(folder, "raw.yaml", "tinystories")
    assert (policy.name, policy.arm.recipe.name, policy.arm.policy.name) == ("raw", "web_wiki", "raw")
    assert recipe.arm.recipe.name == recipe.name == "tinystories"
    assert recipe.arm.policy.name == load_recipe("tinystories").policy


def test_data_of_one_name_goes_by_its_files(folder: Path) -> None:
    assert [one.name for one in listed(folder, "raw.yaml", "other/raw2.yaml")] == ["raw", "raw2"]


@pytest.mark.parametrize(
    ("references", "told"),
    [
        (("web_default", "web_default"), "stands there twice"),
        (("web_default",), "2 to 1,000 can be compared"),
        (("web_default", "no_such_thing"), "no recipe or policy `no_such_thing`"),
        (("web_default", "gone.yaml"), "no recipe or policy `gone.yaml`"),
    ],
)
def test_what_cannot_be_compared_is_refused(folder: Path, references: tuple[str, ...], told: str) -> None:
    with pytest.raises((InputError, RecipeError), match=told):
        listed(folder, *references)


def test_axes_are_combined_and_the_first_is_slowest(folder: Path) -> None:
    (folder / "matrix.yaml").write_text(MATRIX)
    assert is_matrix(str(folder / "matrix.yaml")) and not is_matrix(str(folder / "raw.yaml"))
    matrix = load_matrix(str(folder / "matrix.yaml"))
    assert (matrix.tokens, matrix.seeds) == (2_000_000, 2)
    found = list_experiments(matrix.combinations(), load_recipe("web_wiki"), load_policy("gopher"), matrix.folder)
    assert len(found) == 8 and len({one.slug for one in found}) == 8
    assert found[0].name == "raw, learning_rate 0.003, num_layers 2"
    assert [one.fields["model.num_layers"] for one in found[:4]] == [2, 4, 2, 4]
    assert [one.arm.name for one in found] == ["raw"] * 4 + ["web_default"] * 4


def test_without_data_all_learn_from_the_runs_own(folder: Path) -> None:
    combinations = [{"model.num_layers": 2}, {"model.num_layers": 3}]
    found = list_experiments(combinations, load_recipe("web_wiki"), load_policy("gopher"), folder)
    assert [(one.name, one.arm.recipe.name, one.arm.policy.name) for one in found] == [
        ("num_layers 2", "web_wiki", "gopher"),
        ("num_layers 3", "web_wiki", "gopher"),
    ]


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ("axes: {training.steps: [1, 2]}", "the same for all experiments"),
        ("axes: {training.seed: [1, 2]}", "the same for all experiments"),
        ("axes: {learning_rate: [1, 2]}", "no axis"),
        ("axes: {model.num_layers: [2, 2]}", "each once"),
        ("axes: {model.num_layers: []}", "each once"),
        ("experiments: [{data: a}]\naxes: {data: [a]}", "one of `axes` and `experiments`"),
    ],
)
def test_a_matrix_that_means_nothing_is_refused_with_its_line(folder: Path, axes: str, told: str) -> None:
    path = folder / "matrix.yaml"
    path.write_text(f"format_version: 1\nname: m\n{axes}\n")
    with pytest.raises(RecipeError, match=told):
        load_matrix(str(path))
