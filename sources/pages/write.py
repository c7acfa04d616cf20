"""Chosen blocks to text as a reader would have it: paragraphs, lists, tables, code and formulas.

Invariant: no word is added and none of a chosen block is lost. An empty line stands between paragraphs; a list item
begins with `- `, indented by its depth; the cells of a row stand in one line with ` | ` between them; preformatted text
keeps its white space; a formula is TeX between `$`.
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
from sources.pages.scan import PREFORMATTED, TEX, Scan

Array = npt.NDArray[Any]
_STRUCTURED = sum(1 << list(MARKS).index(name) for name in ("item", "td", "th", "pre"))
_LI, _TR, _PRE = TAG["li"], TAG["tr"], TAG["pre"]
_MAX_INDENT = 4


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
    before: _Place | None = None
    for text, place in zip(_texts(scan, blocks, chosen), _places(scan, blocks.element[chosen]), strict=True):
        if not text or text.isspace():
            continue
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
    for first, last in zip(blocks.first_run[chosen].tolist(), blocks.last_run[chosen].tolist(), strict=True):
        if last == first + 1 and kinds[first] != PREFORMATTED:
            yield " ".join(_text_of(scan.source, starts[first], ends[first], kinds[first]).split())
            continue
        runs = map(_text_of, repeat(scan.source), starts[first:last], ends[first:last], kinds[first:last])
        yield _join_runs(list(runs), breaks[first:last], PREFORMATTED in kinds[first:last])


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
