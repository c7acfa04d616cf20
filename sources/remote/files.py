"""A remote file to read and seek in, in pieces of 8 MiB; its bytes are kept on disk where that is asked for.

What is kept grows from the front in `NAME.part`, so a download that was cut short goes on where it stopped; a whole
one has its checksum beside it, and is compared with the MD5 that a store tells. A file that has changed on
the server is fetched anew. Memory: two pieces.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

from sources.remote.ranges import Facts, read_facts, read_range, stream_whole
from storage.commit import exclusive, write_atomically
from storage.errors import DatasetError, InputError, disk_errors
from storage.identity import hash_bytes, hash_file

FOLDER = "GRISTMILL_DOWNLOADS"
PIECE_BYTES = 8 << 20


def downloads_folder() -> Path:
    """Where downloads are kept: `$GRISTMILL_DOWNLOADS`, else the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get(FOLDER) or Path(cache) / "gristmill" / "downloads").expanduser()


def open_remote(url: str, *, keep: bool) -> BinaryIO:
    """A remote file, unbuffered and seekable; with `keep` from the downloads folder, which it fills.

    Raises InputError when the server refuses it or does not answer, also while it is read.
    """
    if keep:
        return _open_kept(url)
    facts = read_facts(url)
    return cast(BinaryIO, RemoteFile(url, facts.size)) if facts.ranges else _spool(url)


def etag_of(url: str) -> str | None:
    """The ETag that the server gives the file now, or None."""
    return read_facts(url).etag


class RemoteFile(io.RawIOBase):
    """The bytes of a URL, fetched a piece at a time where they are asked for."""

    def __init__(self, url: str, size: int) -> None:
        self._url, self._size, self._position = url, size, 0
        self._pieces: dict[int, bytes] = {}

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        filled, wanted = 0, max(0, min(len(buffer), self._size - self._position))
        while filled < wanted:
            number, offset = divmod(self._position, PIECE_BYTES)
            data = self._piece(number)[offset : offset + wanted - filled]
            buffer[filled : filled + len(data)] = data
            filled, self._position = filled + len(data), self._position + len(data)
        return filled

    def _piece(self, number: int) -> bytes:
        if number not in self._pieces:
            start = number * PIECE_BYTES
            piece = read_range(self._url, start, min(start + PIECE_BYTES, self._size))
            self._pieces = {**dict(list(self._pieces.items())[-1:]), number: piece}
        return self._pieces[number]


def _spool(url: str) -> BinaryIO:
    """The whole file in an unnamed temporary one: its server sends no ranges."""
    file = tempfile.TemporaryFile()
    stream_whole(url, file.write, lambda: (file.seek(0), file.truncate()))
    file.seek(0)
    return cast(BinaryIO, file)


WAIT_SECONDS = 3600.0
"""How long another process may take that downloads the same file; then it is read without being kept."""


def _open_kept(url: str) -> BinaryIO:
    path = downloads_folder() / hash_bytes(url.encode())[:8].hex() / url.rstrip("/").rpartition("/")[2]
    facts = _facts_or_none(url, path)
    with ExitStack() as held:
        try:
            held.enter_context(exclusive(path, wait_seconds=WAIT_SECONDS))
        except DatasetError:
            return open_remote(url, keep=False)
        if not _is_whole(path, facts):
            assert facts is not None
            _download(url, facts, path)
    return open(path, "rb", buffering=0)


def _facts_or_none(url: str, path: Path) -> Facts | None:
    """What the server says now; None where it does not answer, but the whole file is here."""
    try:
        return read_facts(url)
    except InputError:
        if not _is_whole(path, None):
            raise
        return None


def _is_whole(path: Path, facts: Facts | None) -> bool:
    try:
        noted = json.loads(_note(path).read_bytes())
        size = path.stat().st_size
    except (OSError, ValueError):
        return False
    same = facts is None or (noted["size"], noted["etag"]) == (facts.size, facts.etag)
    return same and size == noted["size"]


def _download(url: str, facts: Facts, path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    with disk_errors(path):
        begun = _begun(part, facts)
        with open(part, "r+b" if begun else "wb") as file:
            file.seek(begun)
            if facts.ranges:
                for start in range(begun, facts.size, PIECE_BYTES):
                    file.write(read_range(url, start, min(start + PIECE_BYTES, facts.size)))
                    file.flush()
            else:
                stream_whole(url, file.write, lambda: (file.seek(0), file.truncate()))
            os.fsync(file.fileno())
        _refuse_other_bytes(url, facts, part)
        os.replace(part, path)
        note = {"url": url, "size": facts.size, "etag": facts.etag, "sha256": hash_file(path)}
        write_atomically(_note(path), (json.dumps(note, indent=1) + "\n").encode())


def _begun(part: Path, facts: Facts) -> int:
    """How much of this version of the file is in `part` already; notes which version `part` is of."""
    version = {"size": facts.size, "etag": facts.etag}
    note = _note(part)
    try:
        begun = min(part.stat().st_size, facts.size) if json.loads(note.read_bytes()) == version else 0
    except (OSError, ValueError):
        begun = 0
    write_atomically(note, json.dumps(version).encode())
    return begun if facts.ranges and facts.etag else 0


def _refuse_other_bytes(url: str, facts: Facts, part: Path) -> None:
    """Raise InputError when what came is not what the server says it is."""
    size = part.stat().st_size
    wrong = size != facts.size
    if not wrong and facts.md5:
        with open(part, "rb") as file:
            wrong = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() != facts.md5
    if wrong:
        part.unlink()
        raise InputError(
            f"the download is not what the server has ({size:,} of {facts.size:,} bytes, its MD5 {facts.md5})",
            at=url,
            hint="it was removed; run the same command again",
        )


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
