"""A stream cut into what stands between separators: lines, or documents in one file, each with its place.

Pieces are cut by bytes, so that a bad one costs itself; one above the limit is passed over, not held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from sources.compression import Gap


@dataclass(frozen=True, slots=True)
class Piece:
    """What stands before a separator, without it; `offset` counts decompressed bytes, `number` from 1."""

    number: int
    offset: int
    content: bytes


@dataclass(frozen=True, slots=True)
class LostPiece:
    """What stands where a piece, or a stretch of them, cannot be had."""

    offset: int
    reason: str
    detail: str


def cut(stream: Iterable[bytes | Gap], separator: bytes, limit: int) -> Iterator[Piece | LostPiece]:
    """Every piece of a stream, empty ones too; those of more than `limit` bytes are lost."""
    held = bytearray()
    number, offset, passed = 1, 0, 0
    for chunk in stream:
        if isinstance(chunk, Gap):
            yield LostPiece(chunk.offset, f"{chunk.reason}_compression", chunk.detail)
            offset += passed + len(held)
            held.clear()
            passed = 0
            continue
        begun, searched = 0, max(0, len(held) - len(separator) + 1)
        held += chunk
        while (end := held.find(separator, searched)) >= 0:
            yield _piece(number, offset, passed + end - begun, bytes(held[begun:end]), limit)
            offset += passed + end + len(separator) - begun
            number, begun, searched, passed = number + 1, end + len(separator), end + len(separator), 0
        del held[:begun]
        if len(held) > limit + len(separator):
            kept = len(separator) - 1
            passed += len(held) - kept
            del held[: len(held) - kept]
    if held or passed:
        yield _piece(number, offset, passed + len(held), bytes(held), limit)


def peek(stream: Iterable[bytes | Gap], size: int) -> tuple[bytes, Iterator[bytes | Gap]]:
    """The first `size` bytes of a stream, or all it has, and the whole of it again."""
    held: list[bytes | Gap] = []
    sample, rest = b"", iter(stream)
    for chunk in rest:
        held.append(chunk)
        sample += b"" if isinstance(chunk, Gap) else chunk
        if len(sample) >= size:
            break
    return sample[:size], chain(held, rest)


def _piece(number: int, offset: int, length: int, content: bytes, limit: int) -> Piece | LostPiece:
    if length > limit:
        return LostPiece(offset, "page_too_large", f"number {number} has {length} bytes, the limit is {limit}")
    return Piece(number, offset, content)
