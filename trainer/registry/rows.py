"""Rows of the registry: what is known of each checkpoint, one JSON file a checkpoint in `registry/` beside them.

A row is written atomically, as soon as its checkpoint is committed, and again when the checkpoint is evaluated; a kill
in between loses nothing, since a row that is missing is made anew from the checkpoint's own state. Rows outlive
checkpoints that were dropped. Every path in them counts from the run's folder, so that a folder that moves takes its
registry along; DuckDB reads them by `read_json('…/registry/*.json')`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage.commit import write_atomically
from storage.errors import DatasetError

REGISTRY_FOLDER = "registry"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A checkpoint that another one comes from; `weight` is its share in a soup, 1 for the start of a stage.

    `identity` is that of the content, `path` where it lay, from the run's folder.
    """

    name: str
    identity: str
    path: str
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One checkpoint. `tokens` are those of its stage, `tokens_in_all` with those of its parents; `lr` is the last."""

    name: str
    stage: int
    ingredient: int | None = None
    kind: str = "training"
    step: int
    steps: int
    tokens: int
    tokens_in_all: int
    consumed_samples: int
    lr: float
    loss: float | None = None
    bits_per_byte: Mapping[str, float] = field(default_factory=dict)
    mixture: str
    data: str
    vocabulary: str
    seed: int
    preset: str
    parents: tuple[Parent, ...] = ()
    run: str
    identity: str
    path: str
    saved_at: str = ""
    format_version: int = FORMAT_VERSION

    @property
    def mean_bits_per_byte(self) -> float | None:
        """The mean over the held-out sources, each counted once."""
        return sum(self.bits_per_byte.values()) / len(self.bits_per_byte) if self.bits_per_byte else None


@dataclass(frozen=True, kw_only=True)
class Found:
    """A row and the folder of the run that it was found in."""

    row: Row
    out: Path

    @property
    def folder(self) -> Path:
        """Where the checkpoint is, or was."""
        return self.out / self.row.path

    @property
    def is_there(self) -> bool:
        return self.folder.is_dir()


def now() -> str:
    """The time in UTC, as rows have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_row(out: Path, row: Row) -> None:
    """Write a checkpoint's row in the run's folder `out`, in place of the one that is there."""
    path = _row_path(out, row.path)
    write_atomically(path, (json.dumps(asdict(row), indent=1) + "\n").encode())


def read_row(out: Path, checkpoint: str) -> Row | None:
    """The row of the checkpoint folder named `checkpoint`, None without one. DatasetError where it cannot be read."""
    path = _row_path(out, checkpoint)
    return _parse(path) if path.is_file() else None


def read_rows(out: Path) -> list[Row]:
    """All rows of a run's folder, by step."""
    rows = [_parse(path) for path in sorted((out / REGISTRY_FOLDER).glob("iter_*.json"))]
    return sorted(rows, key=lambda row: row.step)


def run_folders(places: Iterable[Path]) -> Iterator[Path]:
    """Every folder with checkpoints or rows, in and below `places`; checkpoints themselves are not looked into."""
    seen: set[Path] = set()
    for place in places:
        for root, folders, _ in os.walk(place, followlinks=True):
            own = [name for name in folders if name.startswith("iter_")]
            here = Path(root)
            if (own or REGISTRY_FOLDER in folders) and here.resolve() not in seen:
                seen.add(here.resolve())
                yield here
            folders[:] = sorted(set(folders) - {*own, REGISTRY_FOLDER})


def _row_path(out: Path, checkpoint: str) -> Path:
    return out / REGISTRY_FOLDER / f"{checkpoint}.json"


def _parse(path: Path) -> Row:
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        parents = tuple(Parent(**parent) for parent in values.pop("parents"))
        row = Row(**values, parents=parents)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DatasetError(
            f"not a row of the registry: {error}",
            at=str(path),
            hint="remove it: it is made anew from the checkpoint",
        ) from error
    if row.format_version != FORMAT_VERSION:
        raise DatasetError(f"format_version {row.format_version}; only {FORMAT_VERSION} is known", at=str(path))
    return row
