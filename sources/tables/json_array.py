"""The elements of one large JSON array, `[{…}, {…}]`, streamed as lines of their own.

Invariant: an element comes whole, or it and what follows are one loss: behind a fault nobody can tell where the next
element begins. Only one element is held, and no more than the limit.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from json import JSONDecodeError, JSONDecoder

from sources.compression import Gap
from sources.cutting import LostPiece, Piece

_BETWEEN = re.compile(r"[\s,\ufeff]*\[?[\s,]*")
_NEXT = re.compile(r"[\s,]*")
_PARSE = JSONDecoder().raw_decode
_PARSE_LONG = JSONDecoder(parse_int=str).raw_decode
"""For numbers of more digits than Python makes an int of; three times slower."""


def cut_array(stream: Iterable[bytes | Gap], limit: int) -> Iterator[Piece | LostPiece]:
    """Every element of the array that a stream holds, as its own text; `offset` counts decompressed bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    held, number, offset, wanted, between = "", 1, 0, 0, _BETWEEN
    for chunk in chain(stream, [None]):
        if isinstance(chunk, Gap):
            yield LostPiece(chunk.offset, f"{chunk.reason}_compression", chunk.detail)
            return
        held += decoder.decode(chunk or b"")
        if chunk is not None and len(held) < wanted:
            continue
        done = 0
        for start, end in _elements(held, between):
            content = held[start:end].encode("utf-8", "replace")
            offset += len(held[done:start].encode("utf-8", "replace"))
            yield Piece(number, offset, content)
            offset, number, done, between = offset + len(content), number + 1, end, _NEXT
        held = held[done:]
        wanted = 2 * len(held)
        if len(held) > limit:
            yield LostPiece(offset, "page_too_large", f"element {number} has no end within {limit} characters")
            return
    if held[between.match(held).end() :].strip() not in ("", "]"):  # type: ignore[union-attr]
        yield LostPiece(offset, "bad_json", f"the array breaks off, or is wrong, from element {number} on")


def _elements(held: str, between: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """From where to where the elements lie of which the end is there."""
    end = 0
    while True:
        start = between.match(held, end).end()  # type: ignore[union-attr]
        try:
            end = _end_of(held, start)
        except (JSONDecodeError, RecursionError):
            return
        if end == len(held):
            return
        yield start, end
        between = _NEXT


def _end_of(held: str, start: int) -> int:
    try:
        return _PARSE(held, start)[1]
    except JSONDecodeError:
        raise
    except ValueError:
        return _PARSE_LONG(held, start)[1]
