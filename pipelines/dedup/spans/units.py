"""Texts as strings of units that can be compared: bytes, words or tokens, and where each unit stands in its text.

Invariant: two units are equal exactly if their bytes here are (words: 64-bit hashes of their lower-case letters), and a
byte 0xFF never starts a unit, so that it can part pieces. Bytes cost nothing; words are scanned at 70 MB/s; a
tokenizer runs at its own speed, once for each phase that looks at a text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.dedup.characters import character_tables
from pipelines.dedup.columns import read_only, string_buffers
from pipelines.dedup.compiled import compiled
from pipelines.dedup.spans.parameters import SubstringConfig
from storage.errors import ModelError

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint32]

# The kinds of `characters.py`, written out because a compiled kernel keeps the globals that it was compiled with.
_WORD, _LONE, _MARK, _IGNORED = 2, 3, 4, 5
_KIND_BITS = 0x07
_SEED = np.uint64(0x243F6A8885A308D3)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_FIRST_BYTE = np.uint64(0x7FFFFFFFFFFFFFFF)


@dataclass(frozen=True)
class Units:
    """Texts as units: text t is data[offsets[t] : offsets[t + 1]], `width` bytes a unit (all read-only).

    `starts` and `ends`, int64[units], are byte offsets into the text; None where a unit is a byte of it.
    """

    offsets: Integers
    data: Bytes
    width: int
    starts: Integers | None = None
    ends: Integers | None = None

    def counts(self) -> Integers:
        """int64[n]: the units of each text."""
        return np.diff(self.offsets) // self.width

    def to_bytes(self, rows: Integers, first: Integers, last: Integers) -> tuple[Integers, Integers]:
        """(starts, ends) in bytes of the text, of units first..last (exclusive) of text rows[i].

        A character that a token of the span shares with one outside is left to that one.
        """
        if self.starts is None or self.ends is None:
            return first, last
        base, after = self.offsets[rows] // self.width, self.offsets[rows + 1] // self.width
        before, behind = np.maximum(base + first - 1, 0), np.minimum(base + last, len(self.starts) - 1)
        starts, ends = self.starts[base + first], self.ends[base + last - 1]
        starts = np.where(first > 0, np.maximum(starts, self.ends[before]), starts)
        return starts, np.where(base + last < after, np.minimum(ends, self.starts[behind]), ends)


UnitFunction = Callable[[pa.Array], Units]


def unit_function(config: SubstringConfig) -> UnitFunction:
    """What turns a column of texts into units."""
    if config.unit == "bytes":
        return lambda texts: Units(*string_buffers(texts), 1)
    if config.unit == "words":
        return _words
    assert config.tokenizer is not None
    return _token_function(config.tokenizer)


def _words(texts: pa.Array) -> Units:
    tables = character_tables()
    offsets, data = string_buffers(texts)
    counts, words, starts, ends = scan_words(offsets, data, tables.kinds, tables.lower)
    return Units(_ends_of(counts, 8), read_only(words.astype(">u8").view(np.uint8)), 8, starts, ends)


def _ends_of(counts: Integers, width: int) -> Integers:
    return read_only(np.concatenate([np.zeros(1, np.int64), np.cumsum(counts) * width]))


@compiled
def _decode(data: Bytes, position: int, end: int) -> tuple[int, int]:
    """The code point at `position` of valid UTF-8 and the position after it."""
    byte = int(data[position])
    if byte < 0x80:
        return byte, position + 1
    length = 2 if byte < 0xE0 else (3 if byte < 0xF0 else 4)
    length = min(length, end - position)
    code = byte & (0x7F >> length)
    for i in range(1, length):
        code = (code << 6) | int(data[position + i] & 0x3F)
    return min(code, 0x10FFFF), position + length


@compiled
def _finish(token: np.uint64) -> np.uint64:
    token ^= token >> np.uint64(30)
    token *= _MIX_1
    token ^= token >> np.uint64(27)
    token *= _MIX_2
    return token ^ (token >> np.uint64(31))


@compiled
def scan_words(
    offsets: Integers, data: Bytes, kinds: Bytes, lower: Codes
) -> tuple[Integers, npt.NDArray[np.uint64], Integers, Integers]:
    """(words of each text int64[n], their hashes, below 2^63; their starts and ends in the text)."""
    most = (offsets[-1] - offsets[0] + 1) // 2 + len(offsets)
    counts = np.zeros(len(offsets) - 1, np.int64)
    words, starts, ends = np.empty(most, np.uint64), np.empty(most, np.int64), np.empty(most, np.int64)
    found = 0
    for text in range(len(offsets) - 1):
        base, end, before = offsets[text], offsets[text + 1], found
        position, is_open, is_lone, token = base, False, False, _SEED
        while position < end:
            code, after = _decode(data, position, end)
            kind = kinds[code] & _KIND_BITS
            here, position = position, after
            if kind == _IGNORED:
                continue
            if is_open and kind != _MARK and (is_lone or kind != _WORD):
                words[found] = _finish(token) & _FIRST_BYTE
                found, is_open, token = found + 1, False, _SEED
            if kind == _WORD or kind == _LONE:
                if not is_open:
                    starts[found] = here - base
                is_open, is_lone = True, kind == _LONE
            if is_open:
                token = (token ^ np.uint64(lower[code])) * _MULTIPLIER
                token ^= token >> np.uint64(32)
                ends[found] = after - base
        if is_open:
            words[found] = _finish(token) & _FIRST_BYTE
            found += 1
        counts[text] = found - before
    return counts, words[:found], starts[:found], ends[:found]


@lru_cache(maxsize=2)
def _token_function(path: str) -> UnitFunction:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(path)
    except Exception as error:  # the library raises Exception itself
        raise ModelError(f"the tokenizer cannot be read: {error}", at=path, hint="give a tokenizer.json") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def encode(texts: pa.Array) -> Units:
        strings = ["" if text is None else text for text in texts.to_pylist()]
        found = tokenizer.encode_batch(strings, add_special_tokens=False)
        counts = np.array([len(encoding.ids) for encoding in found], np.int64)
        ids = np.array([number for encoding in found for number in encoding.ids], ">u4")
        places = [_byte_places(text, encoding.offsets) for text, encoding in zip(strings, found, strict=True)]
        together = np.concatenate([np.zeros((0, 2), np.int64), *places])
        return Units(_ends_of(counts, 4), read_only(ids.view(np.uint8)), 4, together[:, 0], together[:, 1])

    return encode


def _byte_places(text: str, places: list[tuple[int, int]]) -> Integers:
    """int64[tokens, 2]: tokens' places in characters as places in bytes of UTF-8."""
    lengths = np.fromiter((len(character.encode()) for character in text), np.int64, len(text))
    at = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return at[np.array(places, np.int64).reshape(-1, 2)]
