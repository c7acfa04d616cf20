"""Opening a raw input for reading: a local path, or any URL (https://, or what fsspec knows: s3://, gs://, memory://)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from sources.dumps.multistream import open_piece
from sources.reading import RawInput
from sources.remote.files import open_remote
from sources.remote.places import is_remote
from sources.remote.ranges import read_range
from storage.errors import InputError


@contextmanager
def open_raw(raw: RawInput) -> Iterator[BinaryIO]:
    """The input's bytes, unbuffered (readers ask for 64 KiB at a time). Raises InputError if it cannot be opened."""
    try:
        file = open_remote(raw.path, keep=raw.keep) if is_remote(raw.path) else open(raw.path, "rb", buffering=0)
    except OSError as error:
        raise InputError(
            f"cannot open `{raw.name}` of source `{raw.source}`: {error.strerror or error}",
            at=raw.path,
            hint="is it still there, and readable from every worker?",
        ) from error
    with file if raw.stop is None else open_piece(file, raw) as opened:
        yield opened


def read_bytes(raw: RawInput, start: int, stop: int) -> bytes:
    """Bytes of the file, fewer at its end. Raises InputError if they cannot be had."""
    if is_remote(raw.path):
        return read_range(raw.path, start, min(stop, raw.size))
    with open_raw(raw) as file:
        file.seek(start)
        return file.read(stop - start)
