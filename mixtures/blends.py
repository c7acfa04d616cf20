"""Blend lists as Megatron, FlagScale and OpenSeek write them: weights and prefixes by turns, or prefixes alone.

Read unchanged: YAML with `data: {data_path: [weight, prefix, …]}` (or the list itself), JSON (a list, or
`--per-split-data-args-path`'s {"train": […]}), and plain words (`--data-args-path`). As in Megatron
(`get_blend_from_list`), an odd number of entries, or none that is a number where a weight would stand, means that all
are prefixes, weighted by their sizes. Weights need not add up to anything.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from storage.errors import RecipeError

MAX_BYTES = 8 << 20
_VARIABLE = re.compile(r"\$\{([^}]+)\}")
_SUFFIX = "_text_document"


@dataclass(frozen=True, slots=True)
class BlendEntry:
    """A Megatron prefix; `weight` is relative, None where sizes decide."""

    prefix: str
    weight: float | None


def name_entries(entries: Sequence[BlendEntry]) -> list[str]:
    """One name an entry, as sources are called (lower case, digits, `-` and `_`): what follows the folder that all
    share, without Megatron's ending. Those that are alike are numbered."""
    parts = [entry.prefix.rstrip("/").removesuffix(_SUFFIX).split("/") for entry in entries]
    shared = len(os.path.commonprefix([path[:-1] for path in parts]))
    names = [_source_name("-".join(path[shared:])) for path in parts]
    counts, seen = Counter(names), Counter[str]()
    for i, name in enumerate(names):
        seen[name] += 1
        names[i] = name if counts[name] == 1 else f"{name}-{seen[name]}"
    return names


def _source_name(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_") or "shard"


def read_blend(path: Path, variables: Mapping[str, str]) -> tuple[BlendEntry, ...]:
    """The entries of a blend list; `variables` stand for `${name}` in prefixes.

    Raises RecipeError for a file that holds no such list, a variable without a value, or a weight that takes nothing.
    """
    entries = _entries(path, _find_list(path, _load(path)), variables)
    if not entries:
        raise RecipeError("the blend list is empty", at=str(path))
    return entries


def read_validation(path: Path, variables: Mapping[str, str]) -> tuple[BlendEntry, ...]:
    """The entries of `valid` in an object of `--per-split-data-args-path`; none where nothing is said of it."""
    loaded = _load(path)
    valid = loaded.get("valid") if isinstance(loaded, dict) else None
    return _entries(path, _find_list(path, valid), variables) if valid else ()


def _entries(path: Path, listed: Sequence[Any], variables: Mapping[str, str]) -> tuple[BlendEntry, ...]:
    entries = _pair(path, [_resolve(path, str(word), variables) for word in listed])
    for entry in entries:
        if entry.weight is not None and not 0 < entry.weight < math.inf:
            raise RecipeError(
                f"the weight of {entry.prefix} is {entry.weight:g}; it must be above 0",
                at=str(path),
                hint="remove the pair, or give it a weight",
            )
    return entries


def _load(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RecipeError(f"a blend list may have {MAX_BYTES >> 20} MB", at=str(path))
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return json.loads(text)
        return yaml.safe_load(text) if path.suffix in (".yaml", ".yml") else text.split()
    except OSError as error:
        raise RecipeError(f"there is no blend list to read: {error.strerror}", at=str(path)) from error
    except (UnicodeDecodeError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise RecipeError(f"the blend list cannot be read: {' '.join(str(error).split())}", at=str(path)) from error


def _find_list(path: Path, loaded: Any) -> Sequence[Any]:
    """The list itself, wherever it stands."""
    found = loaded
    if isinstance(found, dict):
        data = found.get("data")
        found = data.get("data_path") if isinstance(data, dict) else found.get("data_path", found.get("train"))
    if isinstance(found, str):
        found = found.split()
    if not isinstance(found, list) or any(isinstance(word, dict | list) or word is None for word in found):
        raise RecipeError(
            "there is no list of weights and prefixes here",
            at=str(path),
            hint="it stands under `data: data_path:` in YAML, under `train` in JSON, or makes up the file",
        )
    return found


def _resolve(path: Path, word: str, variables: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in variables:
            raise RecipeError(
                f"`{match[1]}` in {word} has no value here", at=str(path), hint=f"give it: `--set {match[1]}=FOLDER`"
            )
        return variables[match[1]]

    return _VARIABLE.sub(value, word)


def _pair(path: Path, words: Sequence[str]) -> tuple[BlendEntry, ...]:
    weights = [_number(word) for word in words[::2]]
    if len(words) % 2 or all(weight is None for weight in weights):
        return tuple(BlendEntry(word, None) for word in words)
    if None in weights:
        missing = words[2 * weights.index(None)]
        raise RecipeError(
            f"`{missing}` stands where a weight would", at=str(path), hint="give every prefix a weight, or none of them"
        )
    return tuple(BlendEntry(prefix, weight) for weight, prefix in zip(weights, words[1::2], strict=True))


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
