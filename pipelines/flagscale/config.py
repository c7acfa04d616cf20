"""FlagScale's two-level YAML: an experiment, and the task that its `defaults` name, as one tree by Hydra's rules.

Supported is what OpenSeek's and FlagScale's training configs use: `defaults` with `_self_` and `GROUP: FILE`,
interpolation by `${a.b}` and `${oc.env:NAME}`, and values laid over by `a.b=value`. Anything else of Hydra is refused
by name. Numbers are read as OmegaConf reads them: `6e-3` is a number, which plain YAML takes for text.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from storage.errors import RecipeError

BLOCKS = ("system", "model", "data")
_VARIABLE = re.compile(r"\$\{([^{}]+)\}")
_FLOAT = re.compile(r"[-+]?(?:\d[\d_]*)(?:\.[\d_]*)?[eE][-+]?\d+$|[-+]?\.\d[\d_]*(?:[eE][-+]?\d+)?$")

Tree = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """YAML with OmegaConf's floats."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


@dataclass(frozen=True, kw_only=True)
class FlagScaleConfig:
    """Both files as one tree, interpolated; `notes` say what was taken otherwise than Hydra would."""

    path: Path
    tree: Tree
    notes: tuple[str, ...] = ()

    @property
    def experiment(self) -> Tree:
        return dict(self.tree["experiment"])

    @property
    def task(self) -> Tree:
        """The task's blocks `system`, `model` and `data`."""
        return {block: dict(self.tree["train"].get(block) or {}) for block in BLOCKS}

    @property
    def exp_dir(self) -> Path:
        return Path(str(self.experiment["exp_dir"])).absolute()


def load_config(path: Path, overrides: Sequence[str] = ()) -> FlagScaleConfig:
    """Read an experiment and its task. Raises RecipeError for what cannot be read, is missing or is not supported."""
    own = _read(path)
    tree: Tree = {}
    notes: list[str] = []
    defaults = own.pop("defaults", ["_self_"])
    for entry in defaults if "_self_" in defaults else [*defaults, "_self_"]:
        tree = merge(tree, own if entry == "_self_" else _default(path, entry, notes))
    for text in overrides:
        tree = merge(tree, _laid_over(text))
    _check(path, tree)
    resolved = _resolve(tree, tree, path)
    return FlagScaleConfig(path=path, tree=resolved, notes=tuple(notes))


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    """Both trees, mappings key by key, the second one's values where both have one."""
    merged = copy.deepcopy(dict(below))
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def _read(path: Path) -> Tree:
    try:
        value = yaml.load(path.read_text("utf-8"), Loader=_Loader)
    except OSError as error:
        raise RecipeError(f"this file cannot be read: {error.strerror}", at=str(path)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"not YAML: {' '.join(str(error).split())}", at=str(path)) from error
    if not isinstance(value, dict):
        raise RecipeError("a FlagScale config is a mapping", at=str(path))
    return value


def _default(path: Path, entry: object, notes: list[str]) -> Tree:
    """The tree that an entry of `defaults` stands for: the file GROUP/FILE.yaml, under the name GROUP."""
    if not isinstance(entry, dict) or len(entry) != 1 or not re.fullmatch(r"\w+", str(next(iter(entry)))):
        raise RecipeError(
            f"`defaults` has an entry that is not supported: {entry}", at=str(path), hint="write `- train: FILE.yaml`"
        )
    ((group, name),) = entry.items()
    file = f"{name}" if str(name).endswith((".yaml", ".yml")) else f"{name}.yaml"
    found = path.parent / str(group) / file
    if not found.is_file() and (path.parent / file).is_file():
        found = path.parent / file
        notes.append(f"{file} stands beside the experiment's file; Hydra looks for it in `{group}/`")
    return {str(group): _read(found)}


def _laid_over(text: str) -> Tree:
    key, equals, value = text.lstrip("+").partition("=")
    if not key or not equals:
        raise RecipeError(f"`{text}` lays nothing over the config", hint="write KEY.KEY=VALUE")
    tree: Any = yaml.load(value, Loader=_Loader) if value else None
    for name in reversed(key.split(".")):
        tree = {name: tree}
    return dict(tree)


def _check(path: Path, tree: Tree) -> None:
    faults = [f"no `{name}`" for name in ("experiment", "train") if not isinstance(tree.get(name), dict)]
    if not faults:
        faults += [f"no `experiment.{name}`" for name in ("exp_name", "exp_dir") if not tree["experiment"].get(name)]
        faults += [f"no `train.{name}`" for name in BLOCKS if not isinstance(tree["train"].get(name), dict)]
        backend = (tree["experiment"].get("task") or {}).get("backend", "megatron")
        faults += [] if backend == "megatron" else [f"the task's backend is `{backend}`; only `megatron` is known"]
    if faults:
        raise RecipeError(
            f"this is no training experiment of FlagScale: {', '.join(faults)}",
            at=str(path),
            hint="give the experiment's file; its `defaults` name the task's (`- train: FILE.yaml`)",
        )


def _resolve(value: Any, tree: Tree, path: Path, depth: int = 0) -> Any:
    """The value with every `${…}` in it replaced."""
    if depth > 50:
        raise RecipeError("the variables `${…}` refer to each other in a circle", at=str(path))
    if isinstance(value, dict):
        return {key: _resolve(item, tree, path, depth) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, tree, path, depth) for item in value]
    if not isinstance(value, str) or not (found := _VARIABLE.search(value)):
        return value
    meant = _lookup(found[1], tree, path)
    if found[0] == value:
        return _resolve(meant, tree, path, depth + 1)
    return _resolve(value.replace(found[0], str(_resolve(meant, tree, path, depth + 1))), tree, path, depth + 1)


def _lookup(name: str, tree: Tree, path: Path) -> Any:
    if name.startswith("oc.env:"):
        variable, comma, default = name.removeprefix("oc.env:").partition(",")
        if variable in os.environ or comma:
            return os.environ.get(variable, default)
    elif ":" not in name:
        place: Any = tree
        for key in name.split("."):
            if not isinstance(place, dict) or key not in place:
                raise RecipeError(f"`${{{name}}}` has no value", at=str(path), hint=f"give it: `--set {name}=VALUE`")
            place = place[key]
        return place
    raise RecipeError(f"`${{{name}}}` cannot be resolved here", at=str(path), hint="put the value in its place")
