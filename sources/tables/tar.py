"""The files in a tar archive as one stream of bytes, a line end after each; a stream that is no archive as it is.

Memory: one piece. An archive cannot be read on behind damage, which is told as a Gap at its end.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, cast

from sources.compression import CHUNK_BYTES, DamagedFrame, Gap

_MAGIC, _MAGIC_AT = b"ustar", 257


def untar(pieces: Iterator[bytes | Gap]) -> Iterator[bytes | Gap]:
    """The contents of a decompressed archive's files, or the stream itself."""
    source = _Pieces(pieces)
    if source.peek(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] != _MAGIC:
        yield from source.rest()
        return
    try:
        with tarfile.open(fileobj=cast(BinaryIO, source), mode="r|") as archive:
            yield from _contents(archive)
    except tarfile.TarError as error:
        if source.gap is None:
            yield Gap(DamagedFrame(0, "damaged", f"the archive cannot be read on: {error}"))
    yield from (piece for piece in source.rest() if isinstance(piece, Gap))


def _contents(archive: tarfile.TarFile) -> Iterator[bytes]:
    for member in archive:
        content = archive.extractfile(member) if member.isfile() else None
        while content and (chunk := content.read(CHUNK_BYTES)):
            yield chunk
        yield b"\n"


class _Pieces(io.RawIOBase):
    """Pieces as a file, up to the first Gap, which `gap` then is."""

    def __init__(self, pieces: Iterator[bytes | Gap]) -> None:
        self._pieces = pieces
        self._held = b""
        self.gap: Gap | None = None

    def readable(self) -> bool:
        return True

    def peek(self, size: int) -> bytes:
        while len(self._held) < size and self._fill():
            pass
        return self._held[:size]

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        if not self._held:
            self._fill()
        data, self._held = self._held[: len(buffer)], self._held[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)

    def rest(self) -> Iterator[bytes | Gap]:
        """What was looked at, and all pieces behind it."""
        yield self._held
        if self.gap:
            yield self.gap
        yield from self._pieces

    def _fill(self) -> bool:
        piece = None if self.gap else next(self._pieces, None)
        if isinstance(piece, Gap):
            self.gap = piece
            return False
        self._held += piece or b""
        return piece is not None
