"""Where a run comes from: its stage, its ingredient, its parents, and what it was started with; `origin.json`.

It is written at every start of a run and holds nothing that decides what is trained (`run.json` does), only what names
and `resume` need. Paths count from the run's folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
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


def write_origin(out: Path, origin: Origin) -> None:
    write_atomically(out / ORIGIN_FILE, (json.dumps(asdict(origin), indent=1) + "\n").encode())


def read_origin(out: Path) -> Origin:
    """The origin of the run in `out`; that of a first stage where nothing was written. DatasetError for a bad one."""
    path = out / ORIGIN_FILE
    try:
        values = json.loads(path.read_bytes())
        return Origin(**{**values, "parents": tuple(Parent(**parent) for parent in values["parents"])})
    except FileNotFoundError:
        return Origin()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DatasetError(
            f"not the origin of a run: {error}", at=str(path), hint="remove it; the next start of the run writes it"
        ) from error
