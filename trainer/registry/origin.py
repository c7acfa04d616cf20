"""Where a run comes from: its stage, its ingredient, its parents, and what it was started with; `origin.json`.

It is written at every start of a run and holds nothing that decides what is trained (`run.json` does), only what names
and `resume` need. Paths count from the run's folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from storage.commit import write_atomically
from storage.errors import DatasetError
from trainer.registry.rows import Parent, Row

ORIGIN_FILE = "origin.json"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """`tokens_before` were seen by the parents; `data` is the mixture's folder, `training` every setting of the run."""

    stage: int = 1
    ingredient: int | None = None
    kind: str = "training"
    parents: tuple[Parent, ...] = ()
    tokens_before: int = 0
    data: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)


def follow(row: Row, at: Path, out: Path, *, weight: float = 1.0) -> Parent:
    """The checkpoint of `row`, which lies in the folder `at`, as a parent of the run in `out`."""
    path = os.path.relpath(at.resolve(), out.resolve())
    return Parent(name=row.name, identity=row.identity, path=path, weight=weight)


def find_branch(out: Path, parent: Path, stage: int) -> int | None:
    """The ingredient of a run from the checkpoint folder `parent`, so that no two of its branches have one name.

    None for the first, then 2 and on; a run that was started before keeps its own. Branches are looked for in the
    folders beside `out` and beside the parent's run.
    """
    if (out / ORIGIN_FILE).is_file():
        return read_origin(out).ingredient
    folders = {one.resolve() for place in (out, parent.parent) for one in place.resolve().parent.iterdir()}
    origins = {folder: _origin_of(folder) for folder in folders}
    taken = {
        origin.ingredient or 1
        for folder, origin in origins.items()
        if origin.kind == "training" and origin.stage == stage and parent.parent.resolve() in _parents(folder, origin)
    }
    return next(number for number in count(2) if number not in taken) if taken else None


def _origin_of(folder: Path) -> Origin:
    """That of a neighbour, which may be anything: a damaged one is its own matter."""
    try:
        return read_origin(folder)
    except DatasetError:
        return Origin()


def _parents(folder: Path, origin: Origin) -> set[Path]:
    """The folders of the runs that the run in `folder` comes from."""
    return {(folder / parent.path).resolve().parent for parent in origin.parents}


def write_origin(out: Path, origin: Origin) -> None:
    write_atomically(out / ORIGIN_FILE, (json.dumps(asdict(origin), indent=1) + "\n").encode())


def read_origin(out: Path) -> Origin:
    """The origin of the run in `out`; that of a first stage where nothing was written. DatasetError for a bad one."""
    path = out / ORIGIN_FILE
    try:
        values = json.loads(path.read_bytes())
        return Origin(**{**values, "parents": tuple(Parent(**parent) for parent in values["parents"])})
    except (FileNotFoundError, NotADirectoryError):
        return Origin()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DatasetError(
            f"not the origin of a run: {error}", at=str(path), hint="remove it; the next start of the run writes it"
        ) from error
