"""Runs of text to blocks, and what can be seen of each block without understanding it: 300 numbers.

A block is the text between two line-breaking tags. Invariant: the numbers depend on the page alone and are written in
the order of `FEATURES`; each run belongs to exactly one block. Two passes over runs and elements, none over pairs, so
time grows with the page: 0.3 ms for 140 KB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sources.compiled import Scalar, kernel, part
from sources.pages.counting import (
    B_BARS,
    B_CAPITALS,
    B_CHARS,
    B_CJK,
    B_COMMAS,
    B_COPYRIGHT,
    B_DIGITS,
    B_FIRST,
    B_FOREIGN,
    B_FUNCTION,
    B_GROUPS,
    B_HASH,
    B_LAST,
    B_LINK_RUNS,
    B_LINKS,
    B_OTHER,
    B_PRE,
    B_PRICE,
    B_STOPS,
    B_TITLE,
    B_WORDS,
    M_H1,
    M_HEADING,
    N_SUMS,
    STATS,
    SUM_BLOCKS,
    SUM_CELLS,
    SUM_CHARS,
    SUM_DIGITS,
    SUM_FUNCTION,
    SUM_ITEMS,
    SUM_LINKS,
    SUM_MARKS,
    SUM_PARAGRAPHS,
    SUM_PRE,
    SUM_STOPS,
    SUM_WORDS,
    count_blocks,
)
from sources.pages.elements import BLOCK_BREAK
from sources.pages.letters import FNV, PRIME
from sources.pages.names import BLOCK, CLASS_WORDS, FLAGS, MARKS, TAG, TEXT_TABLE, TEXT_WORDS
from sources.pages.scan import NOTE_TITLE, Scan

Array = npt.NDArray[Any]

_SEEN = ("chars", "words", "word_chars", "links", "stops", "commas", "marks_a_char", "ends_stopped", "capital_first",
         "capitals", "digits", "runs", "price", "function_words", "foreign_words", "copyright", "bars", "cjk",
         "other_script", "repeats", "in_title", "is_pre", "link_runs")  # fmt: skip
_LEVELS = 4
_OF_LEVEL = ("chars", "links", "share", "marks", "paragraphs", "blocks", "tag")
_NEIGHBOURS = (-2, -1, 1, 2)
_OF_NEIGHBOUR = ("chars", "links", "heading", "stops", "same_parent")
_PLACE = ("place", "chars_before", "chars_after", "depth", "tag", "parent_tag", "from_heading", "heading_chars",
          "headings_before", "from_h1", "has_h1", "from_good", "to_good", "before_first_good", "after_last_good",
          "near_chars", "near_links", "twins", "twin_level", "twin_chars", "twin_links", "twin_share")  # fmt: skip
PAGE_FEATURES = (
    "page_chars", "page_blocks", "page_links", "page_paragraphs", "page_items", "page_cells", "page_headings",
    "page_articles", "page_forms", "page_prices", "page_good", "page_longest", "page_pre", "page_comments",
    "page_cards", "page_messages", "page_products", "page_block_chars", "page_stops", "page_digits", "page_function",
)  # fmt: skip
BLOCK_FEATURES = (
    *_SEEN,
    *(f"text_{name}" for name in TEXT_WORDS),
    *(f"in_{name}" for name in MARKS), "in_hidden",
    *(f"above_{name}" for name in CLASS_WORDS),
    *(f"near_{name}" for name in CLASS_WORDS),
    *(f"level{level}_{name}" for level in range(_LEVELS) for name in _OF_LEVEL),
    *_PLACE,
    *(f"neighbour{at:+d}_{name}" for at in _NEIGHBOURS for name in _OF_NEIGHBOUR),
)  # fmt: skip
FEATURES = (*BLOCK_FEATURES, *PAGE_FEATURES)

_N_SEEN, _N_TEXT, _N_MARKS, _N_CLASS = len(_SEEN), len(TEXT_WORDS), len(MARKS) + 1, len(CLASS_WORDS)
_N_PAGE = len(PAGE_FEATURES)
_W_COMMENT, _W_CARD, _W_MESSAGE, _W_PRODUCT = (
    1 << list(CLASS_WORDS).index(name) for name in ("comment", "card", "message", "product")
)
_ARTICLE, _FORM = TAG["article"], TAG["form"]
_GOOD_CHARS, _GOOD_LINKS = 140, 0.3
_MAX_TITLE_WORDS = 64


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks in order: `first_run` to `last_run` of the scan, the element that holds them, words, one row of features.

    `words` counts as extraction is measured: runs of letters and digits, each Chinese character for itself.
    """

    first_run: Array
    last_run: Array
    element: Array
    words: Array
    twin: Array
    features: Array


def find_blocks(scan: Scan) -> Blocks:
    """The blocks of a page with their features (float32, [blocks, len(FEATURES)])."""
    starts = np.flatnonzero((scan.run_break & 7) >= BLOCK_BREAK)
    if len(scan.run_break) and (not len(starts) or starts[0]):
        starts = np.concatenate([[0], starts])
    first = starts.astype(np.int32)
    last = np.append(first[1:], len(scan.run_start)).astype(np.int32) if len(first) else first
    size, elements = len(first), len(scan.tag)
    stats = np.zeros((size, len(STATS)), np.int64)
    sums = np.zeros((len(scan.run_start) + 1, N_SUMS), np.int64)
    title = np.zeros(_MAX_TITLE_WORDS, np.uint64)
    source = np.frombuffer(scan.source, np.uint8)
    titles = scan.notes[scan.notes[:, 0] == NOTE_TITLE]
    title_start, title_end = (int(titles[0, 1]), int(titles[0, 2])) if len(titles) else (0, 0)
    count_blocks(
        source, scan.run_start, scan.run_end, scan.run_element, scan.run_kind, scan.marks, first, last,
        TEXT_TABLE.keys, TEXT_TABLE.values, title, title_start, min(title_end, title_start + 1000), stats, sums,
    )  # fmt: skip
    slots = 1 << (2 * max(elements, size, 4)).bit_length()
    keys, counts = np.zeros(slots, np.uint64), np.zeros((slots, 2), np.int64)
    element, twin = np.empty(size, np.int32), np.empty(size, np.int64)
    features = np.zeros((size, len(FEATURES)), np.float32)
    siblings, repeats = np.zeros(elements, np.int32), np.zeros(size, np.int32)
    _describe(
        scan.tag, scan.parent, scan.marks, scan.words, scan.above, scan.signature, scan.first_run, scan.last_run,
        first, last, scan.run_element, stats, sums, keys, counts, FLAGS, siblings, repeats, element, twin,
        np.zeros(elements, np.int16), features,
    )  # fmt: skip
    return Blocks(first, last, element, stats[:, B_WORDS].copy(), twin, features)


@part
def _add(keys: Array, counts: Array, key: Scalar, amount: Scalar) -> Scalar:
    """Adds to the count of `key`; its place."""
    if key == 0:
        key = np.uint64(1)
    mask = np.uint64(len(keys) - 1)
    place = (key * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(20)) & mask
    while keys[place] != 0 and keys[place] != key:
        place = (place + np.uint64(1)) & mask
    keys[place] = key
    counts[place, 0] += 1
    counts[place, 1] += amount
    return place


@part
def _sum(sums: Array, first: Scalar, last: Scalar, column: Scalar) -> Scalar:
    return sums[last, column] - sums[first, column]


@part
def _write_seen(row: Array, stats: Array, runs: Scalar, repeats: Scalar) -> None:
    chars, words = max(stats[B_CHARS], 1), max(stats[B_WORDS], 1)
    row[0] = np.log1p(stats[B_CHARS])
    row[1] = np.log1p(stats[B_WORDS])
    row[2] = chars / words
    row[3] = stats[B_LINKS] / chars
    row[4] = min(stats[B_STOPS], 30)
    row[5] = min(stats[B_COMMAS], 30)
    row[6] = (stats[B_STOPS] + stats[B_COMMAS]) / chars
    row[7] = stats[B_LAST] == 2
    row[8] = 65 <= stats[B_FIRST] <= 90
    row[9] = stats[B_CAPITALS] / chars
    row[10] = stats[B_DIGITS] / chars
    row[11] = min(runs, 50)
    row[12] = min(stats[B_PRICE], 3)
    row[13] = stats[B_FUNCTION] / words
    row[14] = stats[B_FOREIGN] / words
    row[15] = min(stats[B_COPYRIGHT], 1)
    row[16] = min(stats[B_BARS], 5)
    row[17] = stats[B_CJK] / chars
    row[18] = stats[B_OTHER] / chars
    row[19] = min(repeats, 10)
    row[20] = stats[B_TITLE] / words
    row[21] = stats[B_PRE]
    row[22] = min(stats[B_LINK_RUNS], 30)


@part
def _write_bits(row: Array, at: Scalar, bits: Scalar, number: Scalar) -> None:
    for bit in range(number):
        row[at + bit] = bits >> bit & 1


@part
def _write_levels(
    row: Array,
    at: Scalar,
    tags: Array,
    parents: Array,
    first_run: Array,
    last_run: Array,
    sums: Array,
    page_chars: Scalar,
    element: Scalar,
) -> None:
    """Of the element and of the next ancestors that hold more text than the one before: size, links, marks."""
    size = -1
    for _level in range(_LEVELS):
        while parents[element] >= 0 and _sum(sums, first_run[element], last_run[element], SUM_CHARS) <= size:
            element = parents[element]
        first, last = first_run[element], last_run[element]
        size = _sum(sums, first, last, SUM_CHARS)
        chars = max(size, 1)
        row[at] = np.log1p(size)
        row[at + 1] = _sum(sums, first, last, SUM_LINKS) / chars
        row[at + 2] = size / page_chars
        row[at + 3] = _sum(sums, first, last, SUM_MARKS) / chars
        row[at + 4] = _sum(sums, first, last, SUM_PARAGRAPHS) / chars
        row[at + 5] = np.log1p(_sum(sums, first, last, SUM_BLOCKS))
        row[at + 6] = tags[element]
        at += 7


@part
def _write_twins(
    row: Array,
    at: Scalar,
    parents: Array,
    signature: Array,
    first_run: Array,
    last_run: Array,
    siblings: Array,
    sums: Array,
    page_chars: Scalar,
    element: Scalar,
) -> None:
    """The most often repeated of the element and its five nearest ancestors: how often, how high, how large."""
    most: Scalar = 0
    level, chosen = 0, element
    for height in range(6):
        if element < 0:
            break
        if siblings[element] > most:
            most, level, chosen = siblings[element], height, element
        element = parents[element]
    first, last = first_run[chosen], last_run[chosen]
    size = _sum(sums, first, last, SUM_CHARS)
    row[at] = np.log1p(most)
    row[at + 1] = level
    row[at + 2] = np.log1p(size)
    row[at + 3] = _sum(sums, first, last, SUM_LINKS) / max(size, 1)
    row[at + 4] = size * most / page_chars


@part
def _near_words(words: Array, parents: Array, element: Scalar) -> Scalar:
    found: Scalar = np.int64(0)
    for _ in range(3):
        if element < 0:
            break
        found |= words[element]
        element = parents[element]
    return found


@part
def _path_key(signature: Array, parents: Array, element: Scalar) -> Scalar:
    """What an element looks like together with its three nearest ancestors: the same for blocks of one template."""
    key: Scalar = FNV
    for _ in range(4):
        if element < 0:
            break
        key = (key ^ signature[element]) * PRIME
        element = parents[element]
    return np.int64(key)


@part
def _write_page(
    page: Array,
    stats: Array,
    sums: Array,
    tags: Array,
    words: Array,
    num_good: Scalar,
    longest: Scalar,
    elements: Scalar,
) -> None:
    total = sums[-1]
    chars, blocks = max(total[SUM_CHARS], 1), max(len(stats), 1)
    headings, prices = 0, 0
    for block in range(len(stats)):
        prices += stats[block, B_PRICE] > 0
    articles, forms, comments, cards, messages, products = 0, 0, 0, 0, 0, 0
    for element in range(len(tags)):
        articles += tags[element] == _ARTICLE
        forms += tags[element] == _FORM
        comments += words[element] & _W_COMMENT != 0
        cards += words[element] & _W_CARD != 0
        messages += words[element] & _W_MESSAGE != 0
        products += words[element] & _W_PRODUCT != 0
    page[0] = np.log1p(total[SUM_CHARS])
    page[1] = np.log1p(blocks)
    page[2] = total[SUM_LINKS] / chars
    page[3] = total[SUM_PARAGRAPHS] / chars
    page[4] = total[SUM_ITEMS] / chars
    page[5] = total[SUM_CELLS] / chars
    page[6] = headings / blocks
    page[7] = min(articles, 40)
    page[8] = min(forms, 10)
    page[9] = prices / blocks
    page[10] = num_good / blocks
    page[11] = np.log1p(longest)
    page[12] = total[SUM_PRE] / chars
    page[13] = np.log1p(comments)
    page[14] = np.log1p(cards)
    page[15] = np.log1p(messages)
    page[16] = np.log1p(products)
    page[17] = chars / blocks
    page[18] = total[SUM_STOPS] / chars
    page[19] = total[SUM_DIGITS] / chars
    page[20] = total[SUM_FUNCTION] / max(total[SUM_WORDS], 1)


@kernel
def _describe(
    tags: Array,
    parents: Array,
    marks: Array,
    words: Array,
    above: Array,
    signature: Array,
    first_run: Array,
    last_run: Array,
    first: Array,
    last: Array,
    run_element: Array,
    stats: Array,
    sums: Array,
    keys: Array,
    counts: Array,
    flags: Array,
    siblings: Array,
    repeats: Array,
    element: Array,
    twin: Array,
    depths: Array,
    features: Array,
) -> None:
    size = len(first)
    page_chars = max(sums[-1, SUM_CHARS], 1)
    for number in range(1, len(tags)):
        depths[number] = depths[parents[number]] + 1
        if last_run[number] > first_run[number]:
            siblings[number] = _add(keys, counts, (signature[number] ^ np.uint64(parents[number])) * PRIME, 0)
    for number in range(1, len(tags)):
        siblings[number] = counts[siblings[number], 0] if last_run[number] > first_run[number] else 0
    keys[:] = 0
    counts[:] = 0
    num_good, longest, first_good, last_good = 0, 0, size, -1
    for block in range(size):
        repeats[block] = _add(keys, counts, np.uint64(stats[block, B_HASH]), 0)
        holder = run_element[first[block]]
        while parents[holder] >= 0 and (
            last_run[holder] < last[block] or first_run[holder] > first[block] or not flags[tags[holder]] & BLOCK
        ):
            holder = parents[holder]
        element[block] = holder
        chars = stats[block, B_CHARS]
        longest = max(longest, chars)
        if chars >= _GOOD_CHARS and stats[block, B_LINKS] < _GOOD_LINKS * chars:
            num_good += 1
            first_good = min(first_good, block)
            last_good = block
    chars_before, from_good, from_heading, heading_chars, headings, from_h1 = 0, 99, 99, 0, 0, -1
    for block in range(size):
        row, stat, holder = features[block], stats[block], element[block]
        innermost = run_element[first[block]]
        twin[block] = _path_key(signature, parents, holder)
        _write_seen(row, stat, last[block] - first[block], counts[repeats[block], 0])
        at = _N_SEEN
        _write_bits(row, at, stat[B_GROUPS], _N_TEXT)
        at += _N_TEXT
        _write_bits(row, at, marks[innermost], _N_MARKS)
        at += _N_MARKS
        _write_bits(row, at, above[innermost], _N_CLASS)
        at += _N_CLASS
        _write_bits(row, at, _near_words(words, parents, innermost), _N_CLASS)
        at += _N_CLASS
        _write_levels(row, at, tags, parents, first_run, last_run, sums, page_chars, holder)
        at += 7 * _LEVELS
        if marks[innermost] & M_HEADING:
            from_heading, heading_chars = 0, stat[B_CHARS]
            headings += 1
        if marks[innermost] & M_H1 and from_h1 < 0:
            from_h1 = 0
        good = stat[B_CHARS] >= _GOOD_CHARS and stat[B_LINKS] < _GOOD_LINKS * stat[B_CHARS]
        from_good = 0 if good else from_good + 1
        row[at] = block / size
        row[at + 1] = np.log1p(chars_before)
        row[at + 2] = np.log1p(page_chars - chars_before)
        row[at + 3] = depths[holder]
        row[at + 4] = tags[holder]
        row[at + 5] = tags[parents[holder]] if parents[holder] >= 0 else 0
        row[at + 6] = min(from_heading, 50)
        row[at + 7] = np.log1p(heading_chars)
        row[at + 8] = np.log1p(headings)
        row[at + 9] = np.log1p(from_h1) if from_h1 >= 0 else -1
        row[at + 10] = from_h1 >= 0
        row[at + 11] = min(from_good, 50)
        row[at + 13] = np.log1p(max(first_good - block, 0)) if num_good else -1
        row[at + 14] = np.log1p(max(block - last_good, 0)) if num_good else -1
        _write_twins(row, at + 17, parents, signature, first_run, last_run, siblings, sums, page_chars, holder)
        chars_before += stat[B_CHARS]
        from_heading += 1
        if from_h1 >= 0:
            from_h1 += 1
    _write_neighbours(features, first, last, sums, element, parents, marks, run_element, stats)
    if size:
        page = features[0, -_N_PAGE:]
        _write_page(page, stats, sums, tags, words, num_good, longest, len(tags))
        page[6] = headings / size
        for block in range(1, size):
            for column in range(_N_PAGE):
                features[block, features.shape[1] - _N_PAGE + column] = page[column]


@part
def _write_neighbours(
    features: Array,
    first: Array,
    last: Array,
    sums: Array,
    element: Array,
    parents: Array,
    marks: Array,
    run_element: Array,
    stats: Array,
) -> None:
    size = len(first)
    at = _N_SEEN + _N_TEXT + _N_MARKS + 2 * _N_CLASS + 7 * _LEVELS
    to_good = 99
    for block in range(size - 1, -1, -1):
        row = features[block]
        good = stats[block, B_CHARS] >= _GOOD_CHARS and stats[block, B_LINKS] < _GOOD_LINKS * stats[block, B_CHARS]
        to_good = 0 if good else to_good + 1
        row[at + 12] = min(to_good, 50)
        low, high = first[max(block - 4, 0)], last[min(block + 4, size - 1)]
        near = _sum(sums, low, high, SUM_CHARS)
        row[at + 15] = np.log1p(near)
        row[at + 16] = _sum(sums, low, high, SUM_LINKS) / max(near, 1)
        place = at + 22
        for step in (-2, -1, 1, 2):
            other = block + step
            if 0 <= other < size:
                chars = stats[other, B_CHARS]
                row[place] = np.log1p(chars)
                row[place + 1] = stats[other, B_LINKS] / max(chars, 1)
                row[place + 2] = marks[run_element[first[other]]] & M_HEADING != 0
                row[place + 3] = min(stats[other, B_STOPS], 5)
                row[place + 4] = parents[element[other]] == parents[element[block]]
            else:
                row[place] = -1
            place += 5
