"""Counting the words of a corpus: the pieces that byte-level BPE never merges across, as `pattern` cuts them.

Invariant: the words are those of Hugging Face's `Split(Regex(pattern(max_digits)), "isolated")`, byte for byte. What is
a letter, a mark, a number or a space is asked of that library when the first counter opens (0.3 s), so another
Unicode version there is another one here. Texts must be valid UTF-8; others are cut somewhere, never read beyond.
Trade-off: one pass of 90 to 140 MB/s a core over Arrow's bytes. A distinct word costs about 50 bytes and its length; of
English an eighth is distinct, of Chinese nine tenths, because its words are clauses.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, SupportsInt

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Regex, pre_tokenizers

from tokenizer.compiled import kernel, piece

LETTER, MARK, NUMBER, SPACE, NEWLINE = 1, 2, 4, 8, 16
OTHER = 0
WORD = LETTER | MARK
NUM_CODE_POINTS = 0x110000
SURROGATES = range(0xD800, 0xE000)

TEXT, PLACE, NUM_WORDS, NUM_BYTES = range(4)
"""Places of a counter's progress: the text and the byte to go on from, and what is stored so far."""

_SHORT = 7
_LONG = np.uint64(0xFF << 56)
_BYTE, _HALF, _SHIFT = np.uint64(8), np.uint64(32), np.uint64(56)
_ZERO, _ODD, _SEED = np.uint64(0), np.uint64(0x9E3779B97F4A7C15), np.uint64(0x2545F4914F6CDD1D)

Bytes = NDArray[np.uint8]
Int64s = NDArray[np.int64]


def pattern(max_digits: int) -> str:
    """Qwen's pattern, with combining marks counted as letters, so that words of Indic scripts are not cut at every
    vowel sign; at most `max_digits` digits stand together (Qwen: 1); indentation stays one word."""
    digits = r"\p{N}" if max_digits == 1 else rf"\p{{N}}{{1,{max_digits}}}"
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
        r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"
        rf"|{digits}"
        r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+"
        r"|\s+(?!\S)"
        r"|\s+"
    )


@dataclass(frozen=True, kw_only=True)
class Words:
    """Distinct words: word i is `data[starts[i]:starts[i + 1]]` and occurs `counts[i]` times."""

    data: Bytes
    starts: Int64s
    counts: Int64s


class WordCounter:
    """Counts the words of the texts that are added to it."""

    def __init__(self, max_digits: int) -> None:
        self._classes, self._max_digits = character_classes(), max_digits
        self._table = np.zeros(2 << 17, np.uint64)
        self._starts = np.zeros((1 << 16) + 1, np.int64)
        self._counts = np.zeros(1 << 16, np.int64)
        self._data = np.zeros(1 << 20, np.uint8)
        self._progress = np.zeros(4, np.int64)

    def add(self, texts: pa.StringArray) -> None:
        """Count the words of every text; null counts as empty."""
        bounds, data = _buffers(texts)
        self._progress[TEXT], self._progress[PLACE] = 0, bounds[0]
        while not _count(
            data, bounds, self._classes, self._max_digits,
            self._table, self._starts, self._counts, self._data, self._progress,
        ):  # fmt: skip
            self._grow(data, bounds)

    def words(self) -> Words:
        """What was counted so far."""
        count, size = int(self._progress[NUM_WORDS]), int(self._progress[NUM_BYTES])
        return Words(data=self._data[:size], starts=self._starts[: count + 1], counts=self._counts[:count])

    def _grow(self, data: Bytes, bounds: Int64s) -> None:
        """Room for the word that did not fit, and as many again as there are."""
        longest = int(bounds[self._progress[TEXT] + 1]) - int(self._progress[PLACE])
        if self._progress[NUM_BYTES] + longest > len(self._data):
            self._data = _longer(self._data, 2 * len(self._data) + longest)
        if self._progress[NUM_WORDS] + 1 >= len(self._counts):
            self._starts = _longer(self._starts, 2 * len(self._counts) + 1)
            self._counts = _longer(self._counts, 2 * len(self._counts))
            table = np.zeros(2 * len(self._table), np.uint64)
            _move_words(self._table, table)
            self._table = table


def _longer(array: NDArray[Any], size: int) -> NDArray[Any]:
    longer = np.zeros(size, array.dtype)
    longer[: len(array)] = array
    return longer


def _buffers(texts: pa.StringArray) -> tuple[Int64s, Bytes]:
    """Byte offsets (int64[rows + 1]) and bytes of a string array, not copied."""
    if texts.null_count:
        texts = texts.fill_null("")
    _, offsets, data = texts.cast(pa.large_string()).buffers()
    bounds = np.zeros(len(texts) + 1, np.int64)
    if offsets is not None and offsets.size:
        bounds[:] = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    if data is None or data.size == 0:
        data = bytes(1)
    letters = np.frombuffer(data, np.uint8)
    letters.setflags(write=False)  # kernels are compiled for one signature only
    return bounds, letters


@functools.cache
def character_classes() -> NDArray[np.uint8]:
    """uint8[1114112]: what the regular expressions of `tokenizers` take each code point for."""
    table = np.zeros(NUM_CODE_POINTS, np.uint8)
    codes = np.array([code for code in range(NUM_CODE_POINTS) if code not in SURROGATES])
    text = "".join(map(chr, codes.tolist()))
    for name, members in ((LETTER, r"\p{L}"), (MARK, r"\p{M}"), (NUMBER, r"\p{N}"), (SPACE, r"\s")):
        split = pre_tokenizers.Split(Regex(f"[^{members}]+"), "removed")
        for _, (start, stop) in split.pre_tokenize_str(text):
            table[codes[start:stop]] |= name
    table[[ord("\r"), ord("\n")]] |= NEWLINE
    table.setflags(write=False)
    return table


@piece
def _signed(value: SupportsInt) -> int:
    return np.int64(value)  # type: ignore[return-value]


@piece
def _decode(data: Bytes, place: int, end: int) -> tuple[int, int]:
    """Code point and size in bytes of valid UTF-8; nothing is read at `end` or beyond."""
    lead = _signed(data[place])
    if lead < 0x80:
        return lead, 1
    if lead < 0xE0 and place + 1 < end:
        return (lead & 0x1F) << 6 | _signed(data[place + 1]) & 0x3F, 2
    if lead < 0xF0 and place + 2 < end:
        return (lead & 0x0F) << 12 | (_signed(data[place + 1]) & 0x3F) << 6 | _signed(data[place + 2]) & 0x3F, 3
    if lead < 0xF8 and place + 3 < end:
        high = (lead & 0x07) << 18 | (_signed(data[place + 1]) & 0x3F) << 12
        return (high | (_signed(data[place + 2]) & 0x3F) << 6 | _signed(data[place + 3]) & 0x3F) % NUM_CODE_POINTS, 4
    return 0xFFFD, 1


@piece
def _past(data: Bytes, place: int, end: int, classes: Bytes, wanted: int, at_most: int) -> int:
    """Past a run of characters of the wanted classes."""
    taken = 0
    while place < end and taken < at_most:
        code, size = _decode(data, place, end)
        if not classes[code] & wanted:
            break
        place += size
        taken += 1
    return place


@piece
def _past_others(data: Bytes, place: int, end: int, classes: Bytes) -> int:
    """Past a run of characters of no class, and the line ends after it."""
    while place < end:
        code, size = _decode(data, place, end)
        if classes[code] != OTHER:
            break
        place += size
    return _past(data, place, end, classes, NEWLINE, end)


@piece
def _past_contraction(data: Bytes, place: int, end: int) -> int:
    """Past 's, 't, 're, 've, 'm, 'll or 'd in any case (U+017F is a small s too), or `place` where there is none."""
    one = _signed(data[place + 1]) | 0x20 if place + 1 < end else 0
    two = _signed(data[place + 2]) if place + 2 < end else 0
    if one == ord("s") or one == ord("t") or one == ord("m") or one == ord("d"):
        return place + 2
    if one == 0xC5 | 0x20 and _signed(data[place + 1]) == 0xC5 and two == 0xBF:
        return place + 3
    if (one == ord("r") or one == ord("v")) and two | 0x20 == ord("e"):
        return place + 3
    if one == ord("l") and two | 0x20 == ord("l"):
        return place + 3
    return place


@piece
def _past_space(data: Bytes, place: int, end: int, classes: Bytes) -> int:
    """To the last line end of a run of space; without one, to its last character if something follows a longer run."""
    start, last, line_end = place, place, 0
    while place < end:
        code, size = _decode(data, place, end)
        if not classes[code] & SPACE:
            break
        last = place
        place += size
        if classes[code] & NEWLINE:
            line_end = place
    if line_end:
        return line_end
    return last if place < end and last > start else place


@piece
def _past_word(data: Bytes, place: int, end: int, classes: Bytes, max_digits: int) -> int:
    """The end of the word that begins at `place`."""
    code, size = _decode(data, place, end)
    kind = classes[code]
    if kind & WORD:
        return _past(data, place + size, end, classes, WORD, end)
    if kind & NUMBER:
        return _past(data, place, end, classes, NUMBER, max_digits)
    after = place + size
    if code == ord("'"):
        past = _past_contraction(data, place, end)
        if past > place:
            return past
    next_code, _ = _decode(data, after, end) if after < end else (ord("\n"), 1)
    next_kind = classes[next_code]
    if next_kind & WORD and not kind & NEWLINE:
        return _past(data, after, end, classes, WORD, end)
    if kind == OTHER or (code == ord(" ") and after < end and next_kind == OTHER):
        return _past_others(data, after, end, classes)
    return _past_space(data, place, end, classes)


@piece
def _key(data: Bytes, first: int, last: int) -> int:
    """A word of up to seven bytes itself, with its length; a hash of longer ones, marked as one."""
    size = last - first
    if size <= _SHORT:
        key = np.uint64(size)
        for place in range(first, last):
            key = key << _BYTE | np.uint64(data[place])
        return key  # type: ignore[return-value]
    key = _SEED
    while first < last:
        chunk = _ZERO
        for place in range(first, min(first + 8, last)):
            chunk = chunk << _BYTE | np.uint64(data[place])
        key = (key * _ODD + chunk) * _SEED
        key ^= key >> _HALF
        first += 8
    return key | _LONG  # type: ignore[return-value]


@piece
def _home(key: SupportsInt, mask: int) -> int:
    mixed = np.uint64(key) * _ODD
    return _signed(mixed >> _HALF) & mask


@piece
def _same(data: Bytes, first: int, last: int, stored: Bytes, start: int, stop: int) -> bool:
    if last - first != stop - start:
        return False
    for i in range(last - first):
        if data[first + i] != stored[start + i]:
            return False
    return True


@kernel
def _count(
    data: Bytes, bounds: Int64s, classes: Bytes, max_digits: int,
    table: NDArray[np.uint64], starts: Int64s, counts: Int64s, stored: Bytes, progress: Int64s,
) -> bool:  # fmt: skip
    """Count words from where `progress` says; False when a new word finds no room."""
    mask = len(table) // 2 - 1
    num_words, num_bytes = progress[NUM_WORDS], progress[NUM_BYTES]
    place = progress[PLACE]
    for text in range(progress[TEXT], len(bounds) - 1):
        end = bounds[text + 1]
        while place < end:
            stop = _past_word(data, place, end, classes, max_digits)
            key = np.uint64(_key(data, place, stop))
            slot = _home(key, mask)
            word = -1
            while table[2 * slot + 1]:
                if table[2 * slot] == key:
                    word = _signed(table[2 * slot + 1]) - 1
                    if key < _LONG or _same(data, place, stop, stored, starts[word], starts[word + 1]):
                        break
                    word = -1
                slot = (slot + 1) & mask
            if word < 0:
                if num_words + 1 >= len(counts) or num_bytes + stop - place > len(stored):
                    progress[TEXT], progress[PLACE] = text, place
                    progress[NUM_WORDS], progress[NUM_BYTES] = num_words, num_bytes
                    return False
                word = num_words
                num_words += 1
                table[2 * slot], table[2 * slot + 1] = key, np.uint64(num_words)
                for i in range(stop - place):
                    stored[num_bytes + i] = data[place + i]
                num_bytes += stop - place
                starts[num_words] = num_bytes
            counts[word] += 1
            place = stop
    progress[NUM_WORDS], progress[NUM_BYTES] = num_words, num_bytes
    return True


@kernel
def _move_words(old: NDArray[np.uint64], new: NDArray[np.uint64]) -> None:
    mask = len(new) // 2 - 1
    for i in range(0, len(old), 2):
        if old[i + 1]:
            slot = _home(old[i], mask)
            while new[2 * slot + 1]:
                slot = (slot + 1) & mask
            new[2 * slot], new[2 * slot + 1] = old[i], old[i + 1]
