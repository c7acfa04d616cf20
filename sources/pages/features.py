"""What can be seen of each block without understanding it: 300 numbers, and how they are written.

Invariant: the numbers depend on the page alone and are written in the order of `FEATURES`, from the first block to the
last; what a block needs of others is found by one look at all of them before. Two passes over runs and elements, none
over pairs, so time grows with the page: 0.3 ms for 140 KB.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sources.compiled import Scalar, kernel, part, piece
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
)
from sources.pages.elements import Elements
from sources.pages.letters import FNV, PRIME
from sources.pages.names import BLOCK, CLASS_WORDS, MARKS, TAG, TEXT_WORDS

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
_N_PLACE = len(_PLACE)
_PLACE_AT = BLOCK_FEATURES.index(_PLACE[0])
(_NUM_GOOD, _LONGEST, _FIRST_GOOD, _LAST_GOOD, _CHARS_BEFORE, _FROM_GOOD, _FROM_HEADING, _HEADING_CHARS, _HEADINGS,
 _FROM_H1) = range(10)  # fmt: skip
N_STATE = 10
"""Places of the state: what was found of the page, then what stands before the block that is being described."""


class Parts(NamedTuple):
    """Blocks as runs, what was counted of them, hashes of their texts, and the prefix sums over runs."""

    first: Array
    last: Array
    run_element: Array
    stats: Array
    hashes: Array
    sums: Array


class Found(NamedTuple):
    """Of elements their depth and how many siblings look alike; of blocks how often the same text stands in the page,
    the element that holds them and their template.
    """

    depth: Array
    siblings: Array
    repeats: Array
    element: Array
    twin: Array


@part
def _add(keys: Array, counts: Array, key: Scalar) -> Scalar:
    """Adds one to the count of `key`; its place."""
    if key == 0:
        key = np.uint64(1)
    mask = np.uint64(len(keys) - 1)
    place = (key * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(20)) & mask
    while keys[place] != 0 and keys[place] != key:
        place = (place + np.uint64(1)) & mask
    keys[place] = key
    counts[place] += 1
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
def _write_levels(row: Array, at: Scalar, tree: Elements, sums: Array, element: Scalar) -> None:
    """Of the element and of the next ancestors that hold more text than the one before: size, links, marks."""
    size = -1
    for _level in range(_LEVELS):
        while (
            tree.parent[element] >= 0 and _sum(sums, tree.first_run[element], tree.last_run[element], SUM_CHARS) <= size
        ):
            element = tree.parent[element]
        first, last = tree.first_run[element], tree.last_run[element]
        size = _sum(sums, first, last, SUM_CHARS)
        chars = max(size, 1)
        row[at] = np.log1p(size)
        row[at + 1] = _sum(sums, first, last, SUM_LINKS) / chars
        row[at + 2] = size / max(sums[-1, SUM_CHARS], 1)
        row[at + 3] = _sum(sums, first, last, SUM_MARKS) / chars
        row[at + 4] = _sum(sums, first, last, SUM_PARAGRAPHS) / chars
        row[at + 5] = np.log1p(_sum(sums, first, last, SUM_BLOCKS))
        row[at + 6] = tree.tag[element]
        at += 7


@part
def _write_twins(row: Array, at: Scalar, tree: Elements, siblings: Array, sums: Array, element: Scalar) -> None:
    """The most often repeated of the element and its five nearest ancestors: how often, how high, how large."""
    most: Scalar = 0
    level, chosen = 0, element
    for height in range(6):
        if element < 0:
            break
        if siblings[element] > most:
            most, level, chosen = siblings[element], height, element
        element = tree.parent[element]
    first, last = tree.first_run[chosen], tree.last_run[chosen]
    size = _sum(sums, first, last, SUM_CHARS)
    row[at] = np.log1p(most)
    row[at + 1] = level
    row[at + 2] = np.log1p(size)
    row[at + 3] = _sum(sums, first, last, SUM_LINKS) / max(size, 1)
    row[at + 4] = size * most / max(sums[-1, SUM_CHARS], 1)


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
def _count_siblings(tree: Elements, found: Found, keys: Array, counts: Array) -> None:
    """Depths, and for each element that holds text how many children of its parent look like it."""
    for number in range(1, len(tree.tag)):
        found.depth[number] = found.depth[tree.parent[number]] + 1
        if tree.last_run[number] > tree.first_run[number]:
            key = (tree.signature[number] ^ np.uint64(tree.parent[number])) * PRIME
            found.siblings[number] = _add(keys, counts, key)
    for number in range(1, len(tree.tag)):
        holds = tree.last_run[number] > tree.first_run[number]
        found.siblings[number] = counts[found.siblings[number]] if holds else 0


@piece
def _holder(tree: Elements, flags: Array, element: Scalar, first: Scalar, last: Scalar) -> Scalar:
    """The innermost line-breaking element around the runs."""
    while tree.parent[element] >= 0 and (
        tree.last_run[element] < last or tree.first_run[element] > first or not flags[tree.tag[element]] & BLOCK
    ):
        element = tree.parent[element]
    return element


@piece
def _is_good(stat: Array) -> Scalar:
    """Whether a block alone looks like prose: long, and not of links."""
    return stat[B_CHARS] >= _GOOD_CHARS and stat[B_LINKS] < _GOOD_LINKS * stat[B_CHARS]


@part
def _survey_blocks(
    tree: Elements, parts: Parts, flags: Array, found: Found, keys: Array, counts: Array, state: Array
) -> None:
    """Holders, templates and repeats of blocks, and where those that look like prose begin and end."""
    state[_FIRST_GOOD], state[_LAST_GOOD] = len(parts.first), -1
    for block in range(len(parts.first)):
        first, stat = parts.first[block], parts.stats[block]
        found.repeats[block] = _add(keys, counts, parts.hashes[block])
        holder = _holder(tree, flags, parts.run_element[first], first, parts.last[block])
        found.element[block] = holder
        found.twin[block] = _path_key(tree.signature, tree.parent, holder)
        state[_LONGEST] = max(state[_LONGEST], stat[B_CHARS])
        if _is_good(stat):
            state[_NUM_GOOD] += 1
            state[_FIRST_GOOD] = min(state[_FIRST_GOOD], block)
            state[_LAST_GOOD] = block
    for block in range(len(parts.first)):
        found.repeats[block] = counts[found.repeats[block]]


@piece
def _write_block(row: Array, block: Scalar, tree: Elements, parts: Parts, found: Found) -> None:
    """What is seen of the block itself and of what it stands in."""
    first, holder = parts.first[block], found.element[block]
    innermost = parts.run_element[first]
    _write_seen(row, parts.stats[block], parts.last[block] - first, found.repeats[block])
    at = _N_SEEN
    _write_bits(row, at, parts.stats[block, B_GROUPS], _N_TEXT)
    at += _N_TEXT
    _write_bits(row, at, tree.marks[innermost], _N_MARKS)
    at += _N_MARKS
    _write_bits(row, at, tree.above[innermost], _N_CLASS)
    at += _N_CLASS
    _write_bits(row, at, _near_words(tree.words, tree.parent, innermost), _N_CLASS)
    _write_levels(row, at + _N_CLASS, tree, parts.sums, holder)
    row[_PLACE_AT + 3] = found.depth[holder]
    row[_PLACE_AT + 4] = tree.tag[holder]
    row[_PLACE_AT + 5] = tree.tag[tree.parent[holder]] if tree.parent[holder] >= 0 else 0
    _write_twins(row, _PLACE_AT + 17, tree, found.siblings, parts.sums, holder)


@piece
def _write_place(row: Array, block: Scalar, marks: Scalar, parts: Parts, state: Array) -> None:
    """Where the block stands: after how much text, how far from headings and from what looks like prose."""
    stat = parts.stats[block]
    if marks & M_HEADING:
        state[_FROM_HEADING], state[_HEADING_CHARS] = 0, stat[B_CHARS]
        state[_HEADINGS] += 1
    if marks & M_H1 and state[_FROM_H1] < 0:
        state[_FROM_H1] = 0
    state[_FROM_GOOD] = 0 if _is_good(stat) else state[_FROM_GOOD] + 1
    row[_PLACE_AT] = block / len(parts.first)
    row[_PLACE_AT + 1] = np.log1p(state[_CHARS_BEFORE])
    row[_PLACE_AT + 2] = np.log1p(max(parts.sums[-1, SUM_CHARS], 1) - state[_CHARS_BEFORE])
    row[_PLACE_AT + 6] = min(state[_FROM_HEADING], 50)
    row[_PLACE_AT + 7] = np.log1p(state[_HEADING_CHARS])
    row[_PLACE_AT + 8] = np.log1p(state[_HEADINGS])
    row[_PLACE_AT + 9] = np.log1p(state[_FROM_H1]) if state[_FROM_H1] >= 0 else -1
    row[_PLACE_AT + 10] = state[_FROM_H1] >= 0
    row[_PLACE_AT + 11] = min(state[_FROM_GOOD], 50)
    row[_PLACE_AT + 13] = np.log1p(max(state[_FIRST_GOOD] - block, 0)) if state[_NUM_GOOD] else -1
    row[_PLACE_AT + 14] = np.log1p(max(block - state[_LAST_GOOD], 0)) if state[_NUM_GOOD] else -1
    state[_CHARS_BEFORE] += stat[B_CHARS]
    state[_FROM_HEADING] += 1
    if state[_FROM_H1] >= 0:
        state[_FROM_H1] += 1


@piece
def _write_near(row: Array, block: Scalar, parts: Parts) -> None:
    """The text of the nine blocks around."""
    low, high = parts.first[max(block - 4, 0)], parts.last[min(block + 4, len(parts.first) - 1)]
    near = _sum(parts.sums, low, high, SUM_CHARS)
    row[_PLACE_AT + 15] = np.log1p(near)
    row[_PLACE_AT + 16] = _sum(parts.sums, low, high, SUM_LINKS) / max(near, 1)


@piece
def _write_neighbours(row: Array, block: Scalar, tree: Elements, parts: Parts, element: Array) -> None:
    """The two blocks before and the two behind."""
    place = _PLACE_AT + _N_PLACE
    for step in _NEIGHBOURS:
        other = block + step
        if 0 <= other < len(parts.first):
            chars = parts.stats[other, B_CHARS]
            row[place] = np.log1p(chars)
            row[place + 1] = parts.stats[other, B_LINKS] / max(chars, 1)
            row[place + 2] = tree.marks[parts.run_element[parts.first[other]]] & M_HEADING != 0
            row[place + 3] = min(parts.stats[other, B_STOPS], 5)
            row[place + 4] = tree.parent[element[other]] == tree.parent[element[block]]
        else:
            row[place] = -1
        place += 5


@part
def _write_page(page: Array, tree: Elements, parts: Parts, state: Array) -> None:
    """What is seen of the whole page."""
    total = parts.sums[-1]
    chars, blocks = max(total[SUM_CHARS], 1), len(parts.stats)
    headings, prices, articles, forms, comments, cards, messages, products = 0, 0, 0, 0, 0, 0, 0, 0
    for block in range(blocks):
        headings += tree.marks[parts.run_element[parts.first[block]]] & M_HEADING != 0
        prices += parts.stats[block, B_PRICE] > 0
    for element in range(len(tree.tag)):
        articles += tree.tag[element] == _ARTICLE
        forms += tree.tag[element] == _FORM
        comments += tree.words[element] & _W_COMMENT != 0
        cards += tree.words[element] & _W_CARD != 0
        messages += tree.words[element] & _W_MESSAGE != 0
        products += tree.words[element] & _W_PRODUCT != 0
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
    page[10] = state[_NUM_GOOD] / blocks
    page[11] = np.log1p(state[_LONGEST])
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
def survey(
    tree: Elements, parts: Parts, flags: Array, found: Found, keys: Array, counts: Array, state: Array, page: Array
) -> None:
    """What is known of a block only by a look at all; `keys` and `counts` are a table of counts by hash."""
    _count_siblings(tree, found, keys, counts)
    keys[:] = 0
    counts[:] = 0
    _survey_blocks(tree, parts, flags, found, keys, counts, state)
    _write_page(page, tree, parts, state)
    state[_FROM_GOOD], state[_FROM_HEADING], state[_FROM_H1] = 99, 99, -1


@piece
def _write_to_good(features: Array, begin: Scalar, parts: Parts) -> None:
    """How far the next block is that looks like prose; 50 and more are one."""
    to_good, end = 99, begin + len(features)
    for block in range(min(end + 50, len(parts.first)) - 1, begin - 1, -1):
        to_good = 0 if _is_good(parts.stats[block]) else to_good + 1
        if block < end:
            features[block - begin, _PLACE_AT + 12] = min(to_good, 50)


@kernel
def describe(
    tree: Elements, parts: Parts, found: Found, page: Array, state: Array, begin: Scalar, features: Array
) -> None:
    """The features of the blocks from `begin` on; `state` is what stands before them, and moves on."""
    for number in range(len(features)):
        row, block = features[number], begin + number
        _write_block(row, block, tree, parts, found)
        _write_place(row, block, tree.marks[parts.run_element[parts.first[block]]], parts, state)
        _write_near(row, block, parts)
        _write_neighbours(row, block, tree, parts, found.element)
        for column in range(_N_PAGE):
            row[len(row) - _N_PAGE + column] = page[column]
    _write_to_good(features, begin, parts)
