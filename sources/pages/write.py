"""Chosen blocks to text as a reader would have it: paragraphs, lists, tables, code and formulas.

Invariant: no word is added, and of a chosen block none is lost but these: a link that is one sign (the ¶ behind a
heading), and a sentence that stood before, outside tables and code (a slide's copy, a quoted post; +0.003 word F1, on
products +0.016). An empty line stands between paragraphs; a list item begins with `- `, indented by its depth; the
cells of a row stand in one line with ` | ` between them; preformatted text keeps its white space; a formula is TeX
between `$`.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sources.pages.blocks import Blocks
from sources.pages.elements import LINE_BREAK, SPACE_BEFORE
from sources.pages.names import MARKS, TAG
from sources.pages.scan import PREFORMATTED, TEX, TEXT, Scan

Array = npt.NDArray[Any]
_STRUCTURED = sum(1 << list(MARKS).index(name) for name in ("item", "td", "th", "pre"))
_LINK = 1 << list(MARKS).index("link")
_PERMALINKS = frozenset("¶ # § 🔗 ⚓ \uf0c1".split())
"""What documentation writes behind a heading as the link to it."""
_PERMALINK_BYTES = len("&#xf0c1;")
_LI, _TR, _PRE = TAG["li"], TAG["tr"], TAG["pre"]
_MAX_INDENT = 4
_SENTENCE_WORDS = 8
"""A block of fewer words may say the same thing of many: a price, `in stock`, a name above each of a writer's posts."""


class _Place(NamedTuple):
    """The list item, table row and <pre> that a block stands in (-1: none), and how deep the list is."""

    item: int = -1
    row: int = -1
    pre: int = -1
    depth: int = 0


def write_blocks(scan: Scan, blocks: Blocks, chosen: Array) -> str:
    """The text of the chosen blocks."""
    written: list[str] = []
    items: set[int] = set()
    sentences: set[str] = set()
    before: _Place | None = None
    texts, places = _texts(scan, blocks, chosen), _places(scan, blocks.element[chosen])
    for text, place, words in zip(texts, places, blocks.words[chosen].tolist(), strict=True):
        if not text or text.isspace() or text in sentences and place.pre < 0 and place.row < 0:
            continue
        if words >= _SENTENCE_WORDS:
            sentences.add(text)
        if before is not None:
            written.append(_between(before, place))
        if place.item >= 0 and place.item not in items and not (before and _same_row(before, place)):
            written.append("  " * min(place.depth - 1, _MAX_INDENT) + "- ")
        items.add(place.item)
        written.append(text)
        before = place
    return "".join(written)


def block_texts(scan: Scan, blocks: Blocks) -> list[str]:
    """The text of each block."""
    return list(_texts(scan, blocks, np.ones(len(blocks.words), bool)))


def _same_row(before: _Place, place: _Place) -> bool:
    return place.row >= 0 and before.row == place.row


def _between(before: _Place, place: _Place) -> str:
    if _same_row(before, place):
        return " | "
    if place.row >= 0 and before.row >= 0 or place.pre >= 0 and place.pre == before.pre:
        return "\n"
    return "\n" if place.item >= 0 and before.item >= 0 else "\n\n"


def _places(scan: Scan, elements: Array) -> Iterator[_Place]:
    """Where the elements stand; each is looked up once."""
    tags, parents = scan.tag.tolist(), scan.parent.tolist()
    structured = (scan.marks[elements] & _STRUCTURED != 0).tolist()
    known: dict[int, _Place] = {}
    for element, inside in zip(elements.tolist(), structured, strict=True):
        if element not in known:
            known[element] = _find_place(element, tags, parents) if inside else _Place()
        yield known[element]


def _find_place(element: int, tags: list[int], parents: list[int]) -> _Place:
    item, row, pre, depth = _Place()
    while element >= 0:
        tag = tags[element]
        if tag == _LI:
            item, depth = (element if item < 0 else item), depth + 1
        elif tag == _TR and row < 0 and item < 0:
            row = element
        elif tag == _PRE:
            pre = element
        element = parents[element]
    return _Place(item, row, pre, depth)


def _texts(scan: Scan, blocks: Blocks, chosen: Array) -> Iterator[str]:
    """The text of each chosen block."""
    starts, ends, kinds = scan.run_start.tolist(), scan.run_end.tolist(), scan.run_kind.tolist()
    breaks = scan.run_break.tolist()
    for run in _find_permalinks(scan):
        ends[run] = starts[run]
    for first, last in zip(blocks.first_run[chosen].tolist(), blocks.last_run[chosen].tolist(), strict=True):
        if last == first + 1 and kinds[first] != PREFORMATTED:
            yield " ".join(_text_of(scan.source, starts[first], ends[first], kinds[first]).split())
            continue
        runs = map(_text_of, repeat(scan.source), starts[first:last], ends[first:last], kinds[first:last])
        yield _join_runs(list(runs), breaks[first:last], PREFORMATTED in kinds[first:last])


def _find_permalinks(scan: Scan) -> list[int]:
    """The runs outside code that are a link and no more than its sign."""
    short = (scan.run_end - scan.run_start <= _PERMALINK_BYTES) & (scan.run_kind == TEXT)
    linked = np.flatnonzero(short & (scan.marks[scan.run_element] & _LINK != 0)).tolist()
    signs = (_text_of(scan.source, scan.run_start[run], scan.run_end[run], TEXT).strip() for run in linked)
    return [run for run, sign in zip(linked, signs, strict=True) if sign in _PERMALINKS]


def _join_runs(texts: list[str], breaks: list[int], preformatted: bool) -> str:
    """The runs of a block as one text; white space is one space, but in blocks with preformatted runs."""
    lines = [[texts[0]]]
    for text, between in zip(texts[1:], breaks[1:], strict=True):
        if between & LINE_BREAK:
            lines.append([])
        elif between & SPACE_BEFORE:
            lines[-1].append(" ")
        lines[-1].append(text)
    whole = ["".join(line) for line in lines]
    if preformatted:
        return "\n".join(whole).strip("\n").rstrip()
    return "\n".join(" ".join(line.split()) for line in whole).strip()


def _text_of(source: bytes, start: int, end: int, kind: int) -> str:
    text = source[start:end].decode("utf-8", "replace")
    if "&" in text:
        text = html.unescape(text)
    return f"${text.strip()}$" if kind == TEX else text
