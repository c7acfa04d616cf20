"""Every YAML block of the documentation is what it says: it is loaded by the models and bound to the real names."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from classifiers.fluency.thirds import WITH_THIRD
from classifiers.quality.stage import QUALITY
from classifiers.scorers.told import Telling, told_type
from mixtures.binding import bind_policy
from mixtures.catalogue import DOCUMENT_FIELDS
from mixtures.conditions import bind_sources
from mixtures.ensemble import SCORES
from mixtures.hosts import HOST_COUNTS
from mixtures.json_schemas import FOLDER as SCHEMAS
from mixtures.labelling import load_labelling
from mixtures.names import column_of, names_of
from mixtures.policy import SHIPPED as POLICIES
from mixtures.policy import Policy, load_policy
from mixtures.recipe import SHIPPED as RECIPES
from mixtures.recipe import load_recipe
from pipelines.briefs import load_brief
from pipelines.experiments import load_matrix
from pipelines.rubrics import load_rubric
from pipelines.stages import measuring_stages
from trainer.settings import PRESETS, load_preset

SCORED = pa.schema(
    [
        ("edu", told_type((), Telling())),
        ("dclm", told_type(("hq", "cc"), Telling(positive=("hq",)))),
        ("domain", told_type(("Science", "Sports"), Telling())),
    ]
)
"""The scorers that the documentation speaks of."""
ONE_RULE = "format_version: 1\nname: fragment\nrules:\n"


@pytest.fixture(scope="module")
def catalogue() -> pa.Schema:
    """The catalogue of a run with all stages, from their own schemas."""
    stages = [(stage.name, stage.writes) for stage in measuring_stages(language_model=None, measure=("url_lists",))]
    stages += [("quality", QUALITY), ("fluency", WITH_THIRD), ("hosts", HOST_COUNTS), (SCORES, SCORED)]
    structs = [pa.field(column_of(name), pa.struct(list(writes))) for name, writes in stages]
    return pa.schema([*DOCUMENT_FIELDS, *structs])


KIND_OF_KEY = {
    "tokenizer": "recipe",
    "rules": "policy",
    "training": "preset",
    "prompt": "rubric",
    "wordings": "brief",
    "axes": "matrix",
    "positive": "labelling",
    "examples": "labelling",
}
"""Of each kind of file a key that no other has."""


def kind_of(text: str) -> str:
    values = yaml.safe_load(text)
    if isinstance(values, list) and all("rule" in item for item in values):
        return "rules"
    if isinstance(values, dict):
        for key, kind in KIND_OF_KEY.items():
            if key in values:
                return kind
    raise AssertionError(f"no kind of YAML that the documentation may show:\n{text}")


@pytest.fixture(scope="module")
def yaml_files(blocks: list, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[str, Path]]]:
    """(place, file) by kind; a list of rules becomes a policy of its own."""
    folder = tmp_path_factory.mktemp("yaml")
    found: dict[str, list[tuple[str, Path]]] = {kind: [] for kind in KIND_OF_KEY.values()}
    for number, block in enumerate(block for block in blocks if block.language == "yaml"):
        kind = kind_of(block.text)
        path = folder / f"block-{number}.yaml"
        path.write_text(ONE_RULE + block.text if kind == "rules" else block.text, encoding="utf-8")
        found["policy" if kind == "rules" else kind].append((str(block), path))
    return found


def test_policies_load_and_name_what_is_measured(
    yaml_files: dict[str, list[tuple[str, Path]]], catalogue: pa.Schema
) -> None:
    assert len(yaml_files["policy"]) >= 8
    for place, path in yaml_files["policy"]:
        policy = load_policy(str(path))
        assert len(bind_policy(policy, catalogue).rules) <= len(policy.rules), place


def test_recipes_load_and_name_what_is_measured(
    yaml_files: dict[str, list[tuple[str, Path]]], catalogue: pa.Schema
) -> None:
    assert len(yaml_files["recipe"]) >= 3
    for _, path in yaml_files["recipe"]:
        recipe = load_recipe(str(path))
        bind_sources(recipe, catalogue)
        load_policy(recipe.policy, beside=recipe.folder)


def test_presets_load(yaml_files: dict[str, list[tuple[str, Path]]]) -> None:
    assert yaml_files["preset"]
    for _, path in yaml_files["preset"]:
        assert load_preset(str(path)).model_config(1024).vocabulary_size == 1024


def test_matrices_load_and_name_fields_of_presets(yaml_files: dict[str, list[tuple[str, Path]]]) -> None:
    assert yaml_files["matrix"]
    for _, path in yaml_files["matrix"]:
        matrix = load_matrix(str(path))
        preset = yaml.safe_load((PRESETS / f"{matrix.preset}.yaml").read_text(encoding="utf-8"))
        for values in matrix.combinations():
            for axis in values.keys() - {"data"}:
                section, _, name = axis.partition(".")
                preset[section][name] = values[axis]
            path.write_text(yaml.safe_dump(preset), encoding="utf-8")
            assert load_preset(str(path)).model["num_layers"] == values["model.num_layers"]


def test_rubrics_load(yaml_files: dict[str, list[tuple[str, Path]]]) -> None:
    assert yaml_files["rubric"]
    for _, path in yaml_files["rubric"]:
        assert load_rubric(str(path)).messages("a text")


def test_briefs_load(yaml_files: dict[str, list[tuple[str, Path]]]) -> None:
    assert yaml_files["brief"]
    for _, path in yaml_files["brief"]:
        assert load_brief(str(path)).messages("en", "write", {"text": "a text"})


def test_labelling_recipes_load(yaml_files: dict[str, list[tuple[str, Path]]]) -> None:
    assert len(yaml_files["labelling"]) >= 2
    for _, path in yaml_files["labelling"]:
        assert load_labelling(path).choices()


def test_the_policies_guide_shows_every_form(yaml_files: dict[str, list[tuple[str, Path]]]) -> None:
    """Each key that a rule may have stands in an example."""
    shown: set[str] = set()
    for _, path in yaml_files["policy"]:
        for rule in load_policy(str(path)).rules:
            shown |= rule.model_fields_set
    assert shown == set(Policy.model_fields["rules"].annotation.__args__[0].model_fields)  # type: ignore[union-attr]


NOT_FOR_POLICIES = {"quality.fold", "quality.labelled", "privacy.spans"}
"""Of the fit, and a list, which the catalogue leaves behind."""


def test_the_policies_guide_lists_every_name(project_root: Path, catalogue: pa.Schema) -> None:
    guide = (project_root / "docs" / "guides" / "policies.md").read_text(encoding="utf-8")
    known = {re.sub(r"^scores\.\w+", "scores.NAME", name) for name in names_of(catalogue).columns}
    known = {name for name in known if not name.endswith("_gram_char_ratio")}
    assert not {name for name in known if f"`{name}`" not in guide} - NOT_FOR_POLICIES


@pytest.mark.parametrize("name", sorted(path.stem for path in POLICIES.glob("*.yaml")))
def test_shipped_policies_name_what_is_measured(name: str, catalogue: pa.Schema) -> None:
    assert bind_policy(load_policy(name), catalogue).bindings


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_shipped_recipes_name_what_is_measured(name: str, catalogue: pa.Schema) -> None:
    assert bind_sources(load_recipe(name), catalogue).bindings


def test_the_recipe_of_the_readme_is_the_shipped_one(blocks: list, tmp_path: Path) -> None:
    (block,) = [block for block in blocks if block.page.name == "README.md" and block.language == "yaml"]
    path = tmp_path / "readme.yaml"
    path.write_text(block.text, encoding="utf-8")
    assert load_recipe(str(path)).identity() == load_recipe("web_wiki").identity()


def test_schema_lines_name_schemas_that_exist(blocks: list) -> None:
    """`# yaml-language-server: $schema=…` names a file of the schemas' folder."""
    lines = [line for block in blocks for line in block.text.splitlines() if "$schema=" in line]
    assert lines
    for line in lines:
        assert (SCHEMAS / line.rpartition("/")[2].strip()).is_file(), line
