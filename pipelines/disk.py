"""What a run needs of its disk: said before it starts, and again when the disk fills up in the middle.

Invariant: what is finished is not asked for twice, so a run that filled its disk goes on as soon as the rest fits. The
need is an estimate, 6 bytes for a byte of compressed input and 0.5 GB for a model and its checkpoints: it asks for 20
times what the smallest runs write, and never for less than 50 MB.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.named_files import local_files
from pipelines.request import RunRequest
from storage.errors import DISK_FULL, DiskFull, is_disk_full

DISK_FACTOR = 6
"""Bytes on disk for a byte of compressed input, measured on the embedded sample."""
MODEL_BYTES = 500_000_000
LEAST_BYTES = 50_000_000


def input_bytes(request: RunRequest) -> int:
    """The size of the local inputs as they are stored."""
    return sum(path.stat().st_size for path in local_files(request) if path.is_file())


def missing_bytes(request: RunRequest) -> int:
    """What the run will still write, by estimate."""
    needed = input_bytes(request) * DISK_FACTOR + MODEL_BYTES
    return max(LEAST_BYTES, needed - _written_bytes(request.root))


def free_bytes(place: Path) -> int:
    """Free space of the disk that `place` is on, or would be on."""
    return shutil.disk_usage(_existing(place)).free


def require_disk(request: RunRequest) -> None:
    """Raises DiskFull when the run will not fit."""
    if free_bytes(request.root) < missing_bytes(request):
        raise DiskFull(
            f"the disk has no room for this run: {_room(request)}",
            at=str(request.root),
            hint="free some space there, or choose another disk with `--out`",
        )


@contextmanager
def explain_full_disk(request: RunRequest) -> Iterator[None]:
    """Let a disk that fills up be one DiskFull that names the run's folder, what is free and what is still needed."""
    try:
        yield
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise _explained(request, getattr(error, "at", None)) from error


def _explained(request: RunRequest, at: str | None) -> DiskFull:
    place = Path(at) if at and os.path.isabs(at) else request.root
    if not _on_one_disk(place, request.root):
        free = f"{free_bytes(place) / 1e6:,.1f} MB are free"
        return DiskFull(f"a disk that the run needs is full: {free}", at=str(place), hint=_GO_ON)
    inside = f" (writing {place.relative_to(request.root)})" if request.root in place.parents else ""
    return DiskFull(f"{DISK_FULL}: {_room(request)}", at=f"{request.root}{inside}", hint=_GO_ON)


_GO_ON = "free that much there and type the same command again: what is finished is kept"


def _room(request: RunRequest) -> str:
    free, missing = free_bytes(request.root) / 1e6, missing_bytes(request) / 1e6
    return f"{free:,.1f} MB are free, and the run still needs about {missing:,.0f} MB"


def _written_bytes(root: Path) -> int:
    names = (Path(folder, name) for folder, _, files in os.walk(root) for name in files)
    return sum(path.lstat().st_size for path in names if path.exists())


def _on_one_disk(first: Path, second: Path) -> bool:
    return _existing(first).stat().st_dev == _existing(second).stat().st_dev


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())
