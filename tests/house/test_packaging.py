"""What is installed and what is said about it: versions, pins, data files, deployments, images."""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from click import Option
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from mixtures.inputs import KINDS
from mixtures.policy import SHIPPED as POLICIES
from mixtures.policy import load_policy
from mixtures.recipe import SHIPPED as RECIPES
from mixtures.recipe import load_recipe
from pipelines.cli import cli
from pipelines.request import RunRequest
from trainer.settings import PRESETS, load_preset

MACHINE_OPTIONS = {
    "--licence": "license",
    "--column": "columns",
    "--bucket-source": "bucket_sources",
    "--benchmark-field": "benchmark_fields",
}
"""Options of `gristmill run` whose field has another name."""
COMPANIONS = {"llvmlite", "pydantic-core"}
"""Libraries that numba and pydantic pin exactly and pass on."""


@pytest.fixture(scope="module")
def project(project_root: Path) -> dict[str, Any]:
    return tomllib.loads((project_root / "pyproject.toml").read_text())


def read_pins(file: Path) -> dict[str, Version]:
    """Name → version of a constraints file."""
    lines = file.read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line.strip() and not line.startswith(("#", "-"))]
    return {_name(r.name): Version(next(iter(r.specifier)).version) for r in requirements if r.marker is None}


@pytest.fixture(scope="module")
def pins(project_root: Path) -> dict[str, Version]:
    return read_pins(project_root / "constraints.txt")


def _name(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


@pytest.mark.parametrize(
    ("file", "extras"), [("constraints.txt", ["test"]), ("constraints-vllm.txt", ["test", "vllm"])]
)
def test_constraints_pin_every_dependency_inside_its_range(
    project: dict[str, Any], project_root: Path, file: str, extras: list[str]
) -> None:
    optional, pins = project["project"]["optional-dependencies"], read_pins(project_root / file)
    faults = []
    for requirement in map(Requirement, [*project["project"]["dependencies"], *chain(*(optional[e] for e in extras))]):
        pinned = pins.get(_name(requirement.name))
        if pinned is None or not requirement.specifier.contains(pinned, prereleases=True):
            faults.append(f"{requirement}: {pinned}")
    assert not faults


def test_vllm_holds_back_few_versions(project_root: Path, pins: dict[str, Version]) -> None:
    """All others are the same in both environments, so a run's files mean the same to both."""
    beside = read_pins(project_root / "constraints-vllm.txt")
    held = {name for name in pins if name in beside and beside[name] != pins[name]}
    assert held == {
        "fastapi", "llvmlite", "numba", "numpy", "packaging", "prefect", "python-slugify", "transformers", "virtualenv",
    }  # fmt: skip
    assert set(pins) <= set(beside) and all(beside[name] < pins[name] for name in held)


def test_python_versions_agree_everywhere(project: dict[str, Any], project_root: Path) -> None:
    """pyproject, doctor, Makefile and README name the same versions."""
    from pipelines.commands.doctor import MEASURED_PYTHONS

    allowed = SpecifierSet(project["project"]["requires-python"])
    versions = [f"3.{minor}" for minor in range(8, 20) if allowed.contains(f"3.{minor}.1")]
    assert versions == [f"{major}.{minor}" for major, minor in MEASURED_PYTHONS]
    makefile = (project_root / "Makefile").read_text()
    assert re.findall(r"\bpython(3\.\d+)\b", makefile) == versions
    readme = (project_root / "README.md").read_text()
    assert re.search("Python " + " or ".join(re.escape(v) for v in versions), readme)


def test_every_file_beside_the_code_is_installed(
    project: dict[str, Any], packages: tuple[str, ...], project_files: list[Path]
) -> None:
    """A recipe, schema or template that package-data forgets is missing from an image."""
    patterns = project["tool"]["setuptools"]["package-data"]
    forgotten = []
    for path in project_files:
        if path.parts[0] in packages and path.suffix not in (".py", ".pyi"):
            inside = Path(*path.parts[1:])
            if not any(inside.match(pattern) for pattern in patterns.get(path.parts[0], [])):
                forgotten.append(str(path))
    assert not forgotten


def test_the_image_holds_every_package(packages: tuple[str, ...], project_root: Path) -> None:
    copied = re.findall(r"^COPY (\w+) \1$", (project_root / "Dockerfile").read_text(), re.MULTILINE)
    assert sorted(copied) == sorted(packages)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_shipped_recipes_load(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert load_policy(recipe.policy, beside=recipe.folder).rules


@pytest.mark.parametrize("name", sorted(path.stem for path in POLICIES.glob("*.yaml")))
def test_shipped_policies_load(name: str) -> None:
    assert load_policy(name).name == name


@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_shipped_presets_load(name: str) -> None:
    assert load_preset(name).model_config(128).hidden_size > 0


def parameters(file: Path, function: str) -> dict[str, ast.expr | None]:
    """Name → default (None: it must be given) of a function's parameters, without importing its engine."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            names = [argument.arg for argument in node.args.args]
            return dict.fromkeys(names) | dict(zip(reversed(names), reversed(node.args.defaults), strict=False))
    raise AssertionError(f"{file} has no function {function}")


def deployments(project_root: Path) -> dict[str, tuple[Path, str]]:
    listed = yaml.safe_load((project_root / "prefect.yaml").read_text())["deployments"]
    entries = {entry["name"]: entry["entrypoint"].split(":") for entry in listed}
    return {name: (project_root / file, function) for name, (file, function) in entries.items()}


def test_every_deployment_names_a_flow(project_root: Path) -> None:
    found = deployments(project_root)
    fits, studies = {"fit-fasttext", "fit-encoder"}, {"ablate", "validate", "search-mixture"}
    assert set(found) == {"whole", "curate", "mix", "train", "annotate", "synthesize"} | fits | studies
    for file, function in found.values():
        assert "out" in parameters(file, function)


def test_the_command_a_deployment_and_a_request_ask_the_same(project_root: Path) -> None:
    """An option that only one of the three had would be lost on the way."""
    fields = {field.name for field in dataclasses.fields(RunRequest)}
    flow = parameters(*deployments(project_root)["whole"])
    options = [option for option in cli.commands["run"].params if isinstance(option, Option)]
    named = {MACHINE_OPTIONS.get(o.opts[0], o.opts[0].removeprefix("--").replace("-", "_")) for o in options}
    assert set(flow) == fields
    assert named == (fields - {"inputs"}) | set(KINDS)


def test_the_parts_of_the_path_take_what_they_need(project_root: Path) -> None:
    """Curation alone must be able to do what it does on the whole path; so must training."""
    found = {name: set(parameters(*place)) for name, place in deployments(project_root).items()}
    trained = {"preset", "train_processes", "train_steps"}
    assert found["curate"] == found["whole"] - trained
    assert trained | {"out", "ray_address", "workers"} <= found["train"]
    assert {"out", "recipe", "ray_address", "workers"} <= found["mix"]


def test_defaults_of_the_command_and_of_a_deployment_agree(project_root: Path) -> None:
    flow = parameters(*deployments(project_root)["whole"])
    options = {o.opts[0].removeprefix("--").replace("-", "_"): o for o in cli.commands["run"].params}
    for name, default in flow.items():
        if name in options and not getattr(options[name], "multiple", False):
            assert isinstance(default, ast.Constant) and default.value == options[name].default, name


def test_what_is_imported_is_declared(
    project: dict[str, Any], packages: tuple[str, ...], modules: list[Path], project_root: Path
) -> None:
    """A library that is only there because another needs it can go with the other's next release; what an extra brings
    may be absent here, and is known by its own name."""
    extras = project["project"]["optional-dependencies"]
    asked = project["project"]["dependencies"] + [text for name in extras if name != "docs" for text in extras[name]]
    declared = {_name(Requirement(text).name) for text in asked} | COMPANIONS
    owners = packages_distributions()
    faults: dict[str, str] = {}
    for path in modules:
        for name in imported_names(project_root / path) - set(packages) - sys.stdlib_module_names:
            if not {_name(owner) for owner in owners.get(name, [name])} & declared:
                faults[name] = str(path)
    assert not faults, f"not in pyproject.toml: {faults}"


def imported_names(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return {name.partition(".")[0] for name in found}


def test_modules_that_make_runs_exist(packages: tuple[str, ...], project_root: Path) -> None:
    named = re.findall(r"python -m ([\w.]+)", (project_root / "Makefile").read_text())
    ours = [name for name in named if name.split(".")[0] in packages]
    assert ours
    assert not [name for name in ours if not (project_root / Path(*name.split("."))).with_suffix(".py").is_file()]
