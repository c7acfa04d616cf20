"""The import contract: rooms import downwards, each engine lives in one room, and the light rooms stay light."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOM_OF_ENGINE = {
    "ray": ("pipelines/jobs",),
    "prefect": ("pipelines/flows",),
    "duckdb": ("mixtures", "pipelines/report"),
}
LIGHT = ("numpy", "pyarrow", "PyYAML", "torch", "transformers", "tokenizers", "safetensors")

IMPORT_ALONE = """
import importlib, json, pkgutil, sys

wanted, allowed = json.loads(sys.argv[1]), set(json.loads(sys.argv[2])) | set(sys.stdlib_module_names)


class Only:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if path is None and name.partition(".")[0] not in allowed and not name.startswith("_sysconfigdata"):
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


sys.meta_path[:] = [Only(finder) for finder in sys.meta_path]
for name in wanted:
    module = importlib.import_module(name)
    for inner in pkgutil.walk_packages(getattr(module, "__path__", []), name + "."):
        if not inner.name.endswith("__main__"):
            importlib.import_module(inner.name)
"""


def imported_names(path: Path) -> Iterator[str]:
    """The top-level name of every import in a file, inside functions and type-checking blocks too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("import_module", "importlib.import_module"):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value).partition(".")[0]


def test_imports_go_down_only(project_root: Path) -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"]
    done = subprocess.run(command, cwd=project_root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("engine", ROOM_OF_ENGINE)
def test_each_engine_lives_in_its_room(engine: str, modules: list[Path], project_root: Path) -> None:
    """Lazy imports count too: swapping an engine must mean rewriting one room."""
    rooms = ROOM_OF_ENGINE[engine]
    users = {str(path) for path in modules if engine in set(imported_names(project_root / path))}
    assert users, f"nothing imports {engine}: this test looks at the wrong files"
    assert not {path for path in users if not path.startswith(tuple(f"{room}/" for room in rooms))}


def test_no_relative_imports(modules: list[Path], project_root: Path) -> None:
    """The contract is read from names; a relative import would hide one."""
    for path in modules:
        tree = ast.parse((project_root / path).read_text(encoding="utf-8"))
        assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level], path


def requirement_closure(roots: tuple[str, ...]) -> set[str]:
    """The distributions that `pip install *roots` brings, by normalised name."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        try:
            needed = requires(name) or []
        except PackageNotFoundError:
            continue
        found.add(name)
        for text in needed:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


def import_alone(wanted: list[str], roots: tuple[str, ...], ours: list[str], project_root: Path) -> None:
    """Import modules and all below them as if `roots` and what they need were all that is installed."""
    installed = requirement_closure(roots)
    names = [
        name
        for name, owners in packages_distributions().items()
        if {owner.lower().replace("_", "-") for owner in owners} & installed
    ]
    command = [sys.executable, "-c", IMPORT_ALONE, json.dumps(wanted), json.dumps([*names, *ours])]
    environment = {**os.environ, "PYTHONPATH": str(project_root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=project_root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_storage_trainer_and_scoring_core_are_light(project_root: Path) -> None:
    """A machine that trains or scores needs no Ray, no Prefect, no DuckDB and none of the readers."""
    ours = ["storage", "trainer", "classifiers"]
    import_alone(
        [
            "storage",
            "trainer",
            "classifiers.encoders",
            "classifiers.distillation",
            "classifiers.quality",
            "classifiers.fluency",
        ],
        LIGHT,
        ours,
        project_root,
    )


def test_dedup_kernels_need_numpy_numba_and_pyarrow_alone(project_root: Path) -> None:
    import_alone(["pipelines.dedup"], ("numpy", "numba", "pyarrow"), ["storage", "pipelines"], project_root)


def test_light_imports_are_really_alone(project_root: Path) -> None:
    """The two tests above can fail: DuckDB is not among what they allow."""
    with pytest.raises(AssertionError, match="duckdb"):
        import_alone(["mixtures.sql"], LIGHT, ["storage", "mixtures"], project_root)
