"""Damage to a file, drawn by a seed: bits, cuts, copies, splices, and what a format's own fields could say.

Invariant: a mutation tells which pieces it may have touched; the same seed gives the same bytes everywhere.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.fuzzing.formats import Format

_NUMBER = re.compile(rb"\d{1,9}")
_NUMBERS = (
    b"0",
    b"-1",
    b"1",
    b"65536",
    b"2147483648",
    b"4294967296",
    b"9223372036854775808",
    b"9" * 400,
    b"9" * 5000,
    b"1e999",
    b"",
)
_SIZES = (1, 2, 4, 8)
_FIELDS = tuple(v.to_bytes(size, "little") for size in _SIZES for v in (0, (1 << 8 * size) - 1, 1 << 8 * size - 1))
_TOKENS = (
    b"\x00", b"\xff\xfe", b"\xfe\xff\x00<", b"\xef\xbb\xbf", b"\r\n\r\n", b"\n", b"WARC/1.0\r\n", b"HTTP/1.1 200\r\n",
    b"\x1f\x8b\x08\x00", b"BZh9", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18\xff\xff\xff\x7f", b"\x04\x22\x4d\x18",
    b"\xfd7zXZ\x00", b"<page>", b"</page>", b"</text>", b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"<![CDATA[", b"&b;",
    b"&#x110000;", b"<!--", b"]]>", b"{{", b"}}", b"{{{", b"[[", b"]]", b"{|", b"|}", b"|-", b"||", b"-{", b"}-",
    b"<ref>", b"<nowiki>", b"<math>", b"'" * 5, b"==", b"<script>", b"<div", b"<table><tr><td>", b"</", b"<a href='",
    b'="', b"&amp", b"<svg>", b"<template>", b"{", b"[", b'"', b"\\ud800", b"NaN", b"PAR1", b"0\r\n\r\n",
    b"ffffffffffffffff\r\n", b"\xf0\x9f\x92", b"\xe2\x80\xa8", b"\x1b$B", b"\x05", b"\x7f",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Case:
    """A damaged file, which pieces of it are not as they were, and how it came to be."""

    data: bytes
    touched: frozenset[int]
    how: str


def damaged(form: Format, seed: int) -> Case:
    """The case of a number."""
    draw = random.Random(f"{form.name}/{seed}")
    inside = form.pack is not bytes and draw.random() < 0.5
    pieces, touched, how = list(form.pieces), set[int](), []
    for _ in range(draw.choice((1, 1, 1, 2, 4)) if inside else 0):
        number, (name, change) = draw.randrange(len(pieces)), draw.choice(_CHANGES)
        pieces[number] = change(pieces[number], draw).data
        touched.add(number)
        how.append(f"{name} in piece {number}")
    data = form.build(pieces)
    if inside:
        return Case(data=data, touched=frozenset(touched), how=", ".join(how))
    name, change = draw.choice(_CHANGES)
    done = change(data, draw)
    hit = _hit(form, done.first, done.last)
    return Case(data=done.data, touched=hit, how=f"{name} at {done.first} to {done.last}")


def _hit(form: Format, first: int, last: int) -> frozenset[int]:
    """The pieces that lie at these bytes, or next to them."""
    found, at = set(), len(form.head)
    if first < at:
        return frozenset(range(len(form.pieces)))
    for number, piece in enumerate(form.pieces):
        end = at + len(form.pack(piece))
        if first <= end and last >= at:
            found.add(number)
        at = end
    return frozenset(found)


@dataclass(frozen=True, kw_only=True)
class _Changed:
    data: bytes
    first: int
    last: int


def _span(data: bytes, draw: random.Random) -> tuple[int, int]:
    first = draw.randrange(max(1, len(data)))
    return first, min(len(data), first + draw.choice((1, 2, 4, 8, 40, 400)))


def _put(data: bytes, first: int, last: int, new: bytes) -> _Changed:
    return _Changed(data=data[:first] + new + data[last:], first=first, last=last)


def _flip(data: bytes, draw: random.Random) -> _Changed:
    first, last = _span(data, draw)
    return _put(data, first, last, bytes(byte ^ (1 << draw.randrange(8)) for byte in data[first:last]))


def _noise(data: bytes, draw: random.Random) -> _Changed:
    first, last = _span(data, draw)
    return _put(data, first, last, draw.randbytes(draw.choice((0, 1, last - first, 100))))


def _cut(data: bytes, draw: random.Random) -> _Changed:
    first, _ = _span(data, draw)
    return _put(data, first, len(data), b"")


def _remove(data: bytes, draw: random.Random) -> _Changed:
    first, last = _span(data, draw)
    return _put(data, first, last, b"")


def _copy(data: bytes, draw: random.Random) -> _Changed:
    (first, last), (at, _) = _span(data, draw), _span(data, draw)
    return _put(data, at, at, data[first:last] * draw.choice((1, 1, 2, 50)))


def _splice(data: bytes, draw: random.Random) -> _Changed:
    """What stands elsewhere takes this place, of another length."""
    (first, last), (at, end) = _span(data, draw), _span(data, draw)
    return _put(data, at, end, data[first:last])


def _number(data: bytes, draw: random.Random) -> _Changed:
    """A length, an offset, a status or a date says something else."""
    found = list(_NUMBER.finditer(data))
    if not found:
        return _noise(data, draw)
    one = draw.choice(found)
    near = b"%d" % max(0, int(one[0]) + draw.choice((-100, -1, 1, 100)))
    return _put(data, one.start(), one.end(), draw.choice((*_NUMBERS, near)))


def _field(data: bytes, draw: random.Random) -> _Changed:
    first, _ = _span(data, draw)
    value = draw.choice(_FIELDS)
    return _put(data, first, min(len(data), first + len(value)), value)


def _token(data: bytes, draw: random.Random) -> _Changed:
    first, _ = _span(data, draw)
    return _put(data, first, first, draw.choice(_TOKENS) * draw.choice((1, 1, 1, 2, 3000)))


_CHANGES: Sequence[tuple[str, Callable[[bytes, random.Random], _Changed]]] = (
    ("bits flipped", _flip), ("noise", _noise), ("cut off", _cut), ("removed", _remove), ("copied", _copy),
    ("spliced", _splice), ("number changed", _number), ("field changed", _field), ("token put in", _token),
)  # fmt: skip
