"""What a block holds, counted from its bytes: characters, words, marks, links, digits, prices, words of known groups.

Invariant: an entity is one character; a word is a run of letters and digits, each Chinese character for itself, as
extraction is measured. Every byte of text is read once, 1.2 ns each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sources.compiled import Scalar, kernel, part
from sources.pages.letters import FNV, PRIME, look_up
from sources.pages.names import MARKS, TEXT_WORDS
from sources.pages.scan import PREFORMATTED

Array = npt.NDArray[Any]
# Sums over runs, as columns of one table of prefix sums.
(
    SUM_CHARS,
    SUM_WORDS,
    SUM_LINKS,
    SUM_MARKS,
    SUM_PARAGRAPHS,
    SUM_BLOCKS,
    SUM_STOPS,
    SUM_DIGITS,
    SUM_FUNCTION,
    SUM_ITEMS,
    SUM_CELLS,
    SUM_PRE,
) = range(12)
N_SUMS = 12
# What is counted of one block, as columns.
STATS = ("chars", "words", "links", "stops", "commas", "capitals", "digits", "price", "function", "foreign",
         "copyright", "bars", "cjk", "other", "groups", "last", "first", "title", "pre",
         "link_runs")  # fmt: skip
(B_CHARS, B_WORDS, B_LINKS, B_STOPS, B_COMMAS, B_CAPITALS, B_DIGITS, B_PRICE, B_FUNCTION, B_FOREIGN,
 B_COPYRIGHT, B_BARS, B_CJK, B_OTHER, B_GROUPS, B_LAST, B_FIRST, B_TITLE, B_PRE,
 B_LINK_RUNS) = range(len(STATS))  # fmt: skip
_CJK_CHARS = 2
"""Characters that one of Chinese, Japanese or Korean counts for: what it says takes two and more Latin letters."""
_GROUP_FUNCTION, _GROUP_FOREIGN = list(TEXT_WORDS).index("function"), list(TEXT_WORDS).index("foreign")
M_LINK, M_P, M_ITEM, M_TD, M_HEADING, M_H1, M_PRE = (
    1 << list(MARKS).index(name) for name in ("link", "p", "item", "td", "heading", "h1", "pre")
)


@part
def _word_key(value: Scalar, before_last: Scalar, last: Scalar) -> Scalar:
    """The hash of a word less its final `s`."""
    return before_last if last == 115 else value


@part
def _title_words(src: Array, at: Scalar, end: Scalar, title: Array) -> Scalar:
    found = 0
    last: Scalar = np.uint8(0)
    value, before, size = FNV, FNV, 0
    while at <= end and found < len(title):
        byte = src[at] if at < end else np.uint8(32)
        if 65 <= byte <= 90:
            byte += np.uint8(32)
        if 97 <= byte <= 122 or 48 <= byte <= 57 or byte >= 128:
            before, last = value, byte
            value = (value ^ np.uint64(byte)) * PRIME
            size += 1
        elif size:
            title[found] = _word_key(value, before, last)
            found += 1
            value, before, last, size = FNV, FNV, np.uint8(0), 0
        at += 1
    return found


@part
def _note_word(
    value: Scalar,
    before: Scalar,
    last: Scalar,
    size: Scalar,
    keys: Array,
    values: Array,
    title: Array,
    titled: Scalar,
    stats: Array,
) -> None:
    stats[B_WORDS] += 1
    key = _word_key(value, before, last)
    groups = look_up(keys, values, key)
    stats[B_GROUPS] |= groups
    stats[B_FUNCTION] += groups >> _GROUP_FUNCTION & 1
    stats[B_FOREIGN] += groups >> _GROUP_FOREIGN & 1
    for number in range(titled):
        if title[number] == key:
            stats[B_TITLE] += 1
            break


@part
def _entity_end(src: Array, at: Scalar, end: Scalar) -> Scalar:
    """Where the `;` of an entity lies that begins at `at`; `at` where none does."""
    stop = at + 1
    while stop < end and stop < at + 10 and src[stop] != 59 and src[stop] > 32:
        stop += 1
    return stop if stop < end and src[stop] == 59 else at


@part
def _count_entity(src: Array, at: Scalar, stop: Scalar, stats: Array) -> None:
    stats[B_CHARS] += 1
    if stop > at + 4:
        first, second = src[at + 1] | 32, src[at + 2] | 32
        stats[B_COPYRIGHT] += first == 99 and second == 111 and src[at + 3] == 112
        stats[B_PRICE] += first == 101 and second == 117


@part
def _count_ideograph(stats: Array) -> None:
    """A character of Chinese, Japanese or Korean is a word."""
    stats[B_CJK] += 1
    stats[B_WORDS] += 1
    stats[B_CHARS] += _CJK_CHARS
    stats[B_LAST] = 1


@part
def _count_stop(stats: Array) -> None:
    stats[B_STOPS] += 1
    stats[B_LAST] = 2


@part
def _count_mark(src: Array, at: Scalar, end: Scalar, stats: Array) -> Scalar:
    """Adds a mark that is of no word; returns how many bytes it has."""
    byte = src[at]
    stats[B_CHARS] += 1 if byte < 128 or byte >= 0xC0 else 0
    if byte == 46 or byte == 33 or byte == 63 or byte == 58:
        if at + 1 >= end or src[at + 1] <= 60:
            _count_stop(stats)
    elif byte == 44 or byte == 59:
        stats[B_COMMAS] += 1
        stats[B_LAST] = 1
    elif byte == 36:
        stats[B_PRICE] += 1
    elif byte == 124 or byte == 62:
        stats[B_BARS] += 1
    elif byte == 0xC2 and at + 1 < end:
        stats[B_COPYRIGHT] += src[at + 1] == 0xA9
        stats[B_PRICE] += src[at + 1] == 0xA3
        return 2
    elif byte >= 0xE0 and at + 2 < end:
        _count_wide_mark(byte, src[at + 1], src[at + 2], stats)
        return 3
    return 1


@part
def _count_wide_mark(byte: Scalar, second: Scalar, third: Scalar, stats: Array) -> None:
    """A mark of three bytes: the euro's sign, and the full and half stops of Chinese and Japanese."""
    if byte == 0xE2:
        stats[B_PRICE] += second == 0x82 and third == 0xAC
    elif byte == 0xE3:
        if third == 0x82:
            _count_stop(stats)
        else:
            stats[B_COMMAS] += 1
    elif second == 0xBC:
        if third == 0x81 or third == 0x9F or third == 0x9A:
            _count_stop(stats)
        elif third == 0x8C or third == 0x9B:
            stats[B_COMMAS] += 1


@part
def _count_run(
    src: Array, at: Scalar, end: Scalar, keys: Array, values: Array, title: Array, titled: Scalar, stats: Array,
    whole: Scalar,
) -> Scalar:  # fmt: skip
    """Adds what one run of text holds to its block's counts and to the hash of its text, which is returned.

    An entity counts as one character.
    """
    last: Scalar = np.uint8(0)
    value, before, size = FNV, FNV, 0
    while at < end:
        byte = src[at]
        lower = byte + np.uint8(32) if 65 <= byte <= 90 else byte
        if 97 <= lower <= 122 or 48 <= byte <= 57:
            if stats[B_FIRST] == 0:
                stats[B_FIRST] = byte
            before, last = value, lower
            value = (value ^ np.uint64(lower)) * PRIME
            whole = (whole ^ np.uint64(lower)) * PRIME
            size += 1
            stats[B_CHARS] += 1
            stats[B_CAPITALS] += byte != lower
            stats[B_DIGITS] += byte <= 57
            stats[B_LAST] = 1
            at += 1
            continue
        if byte >= 0xE4 and byte <= 0xED and at + 2 < end:
            _count_ideograph(stats)
            whole = (whole ^ np.uint64(src[at + 1])) * PRIME
            whole = (whole ^ np.uint64(src[at + 2])) * PRIME
            at += 3
            continue
        if byte >= 0xC3 and byte != 0xE2 and byte != 0xE3 and byte != 0xEF:
            stats[B_OTHER] += 1
            stats[B_CHARS] += 1
            before, last = value, byte
            value = (value ^ np.uint64(byte)) * PRIME
            at += 1
            if at < end and src[at] >= 128 and src[at] < 0xC0:
                value = (value ^ np.uint64(src[at])) * PRIME
                at += 1
            whole = (whole ^ value) * PRIME
            size += 1
            stats[B_LAST] = 1
            continue
        stop = _entity_end(src, at, end) if byte == 38 else at
        if size:
            _note_word(value, before, last, size, keys, values, title, titled, stats)
            value, before, last, size = FNV, FNV, np.uint8(0), 0
        if stop > at:
            _count_entity(src, at, stop, stats)
            at = stop + 1
        elif byte == 32 or 9 <= byte <= 13:
            stats[B_CHARS] += at == 0 or src[at - 1] > 32
            at += 1
        elif byte == 0xE3 and at + 2 < end and src[at + 1] != 0x80:
            _count_ideograph(stats)
            whole = (whole ^ np.uint64(src[at + 2])) * PRIME
            at += 3
        else:
            at += _count_mark(src, at, end, stats)
    if size:
        _note_word(value, before, last, size, keys, values, title, titled, stats)
    return whole


@kernel
def count_blocks(
    src: Array,
    starts: Array,
    ends: Array,
    elements: Array,
    kinds: Array,
    marks: Array,
    first: Array,
    last: Array,
    keys: Array,
    values: Array,
    title: Array,
    title_start: Scalar,
    title_end: Scalar,
    stats: Array,
    hashes: Array,
    sums: Array,
) -> None:
    titled = _title_words(src, title_start, title_end, title)
    for block in range(len(first)):
        row = stats[block]
        whole: Scalar = FNV
        for run in range(first[block], last[block]):
            chars, words, stops, commas = row[B_CHARS], row[B_WORDS], row[B_STOPS], row[B_COMMAS]
            digits, function = row[B_DIGITS], row[B_FUNCTION]
            whole = _count_run(src, starts[run], ends[run], keys, values, title, titled, row, whole)
            mark = marks[elements[run]]
            added = row[B_CHARS] - chars
            linked = added if mark & M_LINK else 0
            row[B_LINKS] += linked
            row[B_LINK_RUNS] += 1 if linked else 0
            if kinds[run] == PREFORMATTED:
                row[B_PRE] = 1
            total = sums[run + 1]
            for column in range(N_SUMS):
                total[column] = sums[run, column]
            total[SUM_CHARS] += added
            total[SUM_WORDS] += row[B_WORDS] - words
            total[SUM_LINKS] += linked
            total[SUM_MARKS] += row[B_STOPS] - stops + row[B_COMMAS] - commas
            total[SUM_STOPS] += row[B_STOPS] - stops
            total[SUM_DIGITS] += row[B_DIGITS] - digits
            total[SUM_FUNCTION] += row[B_FUNCTION] - function
            total[SUM_PARAGRAPHS] += added if mark & M_P else 0
            total[SUM_ITEMS] += added if mark & M_ITEM else 0
            total[SUM_CELLS] += added if mark & M_TD else 0
            total[SUM_PRE] += added if mark & M_PRE else 0
            total[SUM_BLOCKS] += run == first[block]
        hashes[block] = whole
