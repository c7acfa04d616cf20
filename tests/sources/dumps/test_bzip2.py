"""bzip2 by our own kernels against Python's bz2: the same bytes, and more of them where a file is broken."""

from __future__ import annotations

import bz2
import io
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.compression import Gap, stream
from sources.dumps.bzip2 import Bzip2

CHANCE = random.Random(1)
NOISE = CHANCE.randbytes(450_000)
TEXT = b"".join(b"line %d of a text that is read again\n" % CHANCE.randrange(10**6) for _ in range(30_000))


def decompress(packed: bytes, *, piece: int, most: int = 1 << 16) -> tuple[bytes, bytes]:
    """What a stream holds, fed in pieces, and what stands behind it."""
    codec, out, position = Bzip2(), bytearray(), 0
    while not codec.eof:
        data = packed[position : position + piece] if codec.needs_input else b""
        if codec.needs_input and not data:
            assert codec.finish(), "truncated"
        position += len(data)
        found = codec.decompress(data, most)
        assert len(found) <= most
        out += found
    return bytes(out), codec.unused_data + packed[position:]


RINGS = [b"ab" * 90_000, NOISE[:256] * 700, NOISE[:300] * 600, bytes(sorted(NOISE[:90_000])), NOISE[:257], NOISE[:256]]
"""Repetition makes the ring of a block several rings, order one that jumps to the next entry."""


@pytest.mark.parametrize("level", [1, 9])
@pytest.mark.parametrize(
    "data",
    [b"", b"a", b"aaaa", b"ab" * 9, bytes(3_000_000), b"abcd" * 70_000 + b"d" * 300, NOISE, TEXT, NOISE + TEXT, *RINGS],
)
def test_the_same_bytes_as_the_library(data: bytes, level: int) -> None:
    assert decompress(bz2.compress(data, level) + b"more", piece=1 << 16) == (data, b"more")


@given(st.binary(max_size=600), st.integers(1, 40), st.integers(1, 50))
def test_any_bytes_in_any_pieces(data: bytes, piece: int, most: int) -> None:
    assert decompress(bz2.compress(data), piece=piece, most=most) == (data, b"")


def test_a_real_dump(shared_data: Path) -> None:
    packed = (shared_data / "encyclopedia" / "enwiki-mini-wiki.xml.bz2").read_bytes()
    assert decompress(packed, piece=1 << 16)[0] == bz2.decompress(packed)


def test_a_cut_stream_gives_its_whole_blocks() -> None:
    packed = bz2.compress(TEXT, 1)
    *pieces, end = stream(io.BytesIO(packed[: len(packed) * 2 // 3]))
    assert isinstance(end, Gap) and end.reason == "truncated"
    whole = b"".join(piece for piece in pieces if isinstance(piece, bytes))
    assert TEXT.startswith(whole) and len(whole) > len(TEXT) // 2


def test_damage_costs_a_block_and_nothing_else() -> None:
    """Python's bz2 gives nothing behind the damage."""
    packed = bytearray(bz2.compress(TEXT, 1))
    packed[len(packed) // 2] ^= 255
    pieces = list(stream(io.BytesIO(bytes(packed))))
    assert [piece.reason for piece in pieces if isinstance(piece, Gap)] == ["damaged"]
    gap = next(number for number, piece in enumerate(pieces) if isinstance(piece, Gap))
    before, after = (b"".join(map(bytes, part)) for part in (pieces[:gap], pieces[gap + 1 :]))  # type: ignore[arg-type]
    assert TEXT.endswith(after) and len(before) + len(after) > len(TEXT) - 300_000


def test_a_damaged_block_does_not_run_into_the_next_stream() -> None:
    """Where its end is missing its codes go on in what follows: where they end is not its place."""
    streams = [bz2.compress(TEXT[first : first + 60]) for first in (0, 60, 120)]
    for at in range(20, len(streams[0]) - 10):
        broken = streams[0][:at] + streams[0][at + 16 :] + streams[1] + streams[2]
        whole = b"".join(piece for piece in stream(io.BytesIO(broken)) if isinstance(piece, bytes))
        assert whole.endswith(TEXT[60:180])


def test_a_block_without_an_end_is_not_waited_for() -> None:
    """What no block can be as long as is damage: memory stays small, and the next block is found."""
    packed = bz2.compress(TEXT, 1)
    broken = packed[:60_000] + CHANCE.randbytes(5 << 20) + packed
    gaps = [piece for piece in stream(io.BytesIO(broken)) if isinstance(piece, Gap)]
    whole = b"".join(piece for piece in stream(io.BytesIO(broken)) if isinstance(piece, bytes))
    assert whole.endswith(TEXT[100_000:]) and [gap.reason for gap in gaps] == ["damaged"]


def test_mutated_streams_end() -> None:
    packed = bz2.compress(TEXT[:4000]) + bz2.compress(TEXT[4000:8000])
    for _ in range(500):
        broken = bytearray(packed)
        for _ in range(CHANCE.randrange(1, 4)):
            broken[CHANCE.randrange(len(broken))] = CHANCE.randrange(256)
        found = list(stream(io.BytesIO(bytes(broken[: CHANCE.randrange(len(broken))]))))
        assert sum(isinstance(piece, Gap) for piece in found) <= 4


def joined(packed: bytes) -> list[bytes | Gap]:
    return list(stream(io.BytesIO(packed)))


@pytest.mark.parametrize("level", [1, 9])
@pytest.mark.parametrize("ends", [(), (100_000,), (0,), (10, 20, 30, 500_000)])
def test_streams_that_follow_each_other_are_one(level: int, ends: tuple[int, ...]) -> None:
    cuts = [0, *ends, len(TEXT)]
    streams = [bz2.compress(TEXT[first:last], level) for first, last in zip(cuts, cuts[1:], strict=False)]
    assert b"".join(joined(b"".join(streams))) == TEXT  # type: ignore[arg-type]
    assert b"".join(joined(b"".join(streams) + bytes(300) + bz2.compress(b"more", 5))) == TEXT + b"more"  # type: ignore[arg-type]


def test_a_cut_among_joined_streams_costs_the_last_one_and_gives_none_twice() -> None:
    pieces = [TEXT[:300_000], TEXT[300_000:600_000], TEXT[600_000:]]
    streams = [bz2.compress(piece) for piece in pieces]
    *found, gap = joined(b"".join(streams)[:-1000])
    assert b"".join(found) == pieces[0] + pieces[1]  # type: ignore[arg-type]
    assert isinstance(gap, Gap) and (gap.reason, gap.offset) == ("truncated", len(streams[0] + streams[1]))
