"""Atomic commits: what is under its final name is whole, whenever the process dies.

A temporary file beside the target is written, synced, renamed over it, and the folder is synced. Names of temporary
files start with `.tmp-`; `gristmill gc` removes those that a killed process left.
"""

from __future__ import annotations

import fcntl
import io
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from storage.errors import DatasetError, disk_errors

TEMPORARY_PREFIX = ".tmp-"
LOCK_SECONDS = 0.2


def write_atomically(path: Path, data: bytes | Callable[[BinaryIO], object]) -> None:
    """Write `data` (bytes, or a function that writes to an open file) under `path`, all of it or nothing.

    Raises ResourceError when the disk is full or the folder cannot be written.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        if callable(data):
            data(file)
        else:
            file.write(data)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; on success it is synced and becomes `path`, on failure it is removed."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}-{uuid.uuid4().hex[:12]}")
        try:
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


@contextmanager
def exclusive(path: Path, *, wait_seconds: float = 0) -> Iterator[None]:
    """Hold `path` for one writer; a process that dies lets go of it.

    Raises DatasetError when another writer still holds it after `wait_seconds`.
    """
    lock = path.with_name(f"{TEMPORARY_PREFIX}{path.name}.lock")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + wait_seconds
        while (descriptor := _try_lock(lock)) is None:
            if time.monotonic() >= deadline:
                raise DatasetError(
                    "another process is writing to this path",
                    at=str(path),
                    hint="wait until it is done, or name another path; one that was killed holds nothing",
                )
            time.sleep(LOCK_SECONDS)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _try_lock(lock: Path) -> int | None:
    """An open descriptor that holds the lock, or None. A file that its owner unlinked meanwhile is no lock any more."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(lock).st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable; a file system that cannot do that is left as it is."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except io.UnsupportedOperation:
        pass
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
