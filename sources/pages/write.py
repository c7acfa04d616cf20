"""Chosen blocks to text as a reader would have it: paragraphs, lists, tables, code and formulas.

Invariant: no word is added and none of a chosen block is lost. An empty line stands between paragraphs; a list item
begins with `- `, indented by its depth; the cells of a row stand in one line with ` | ` between them; preformatted text
keeps its white space; a formula is TeX between `$`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sources.pages.blocks import Blocks
from sources.pages.elements import LINE_BREAK, SPACE_BEFORE
from sources.pages.names import MARKS, TAG
from sources.pages.scan import PREFORMATTED, TEX, Scan

Array = npt.NDArray[Any]
_ITEM, _CELL, _PRE = (1 << list(MARKS).index(name) for name in ("item", "td", "pre"))
_HEAD_CELL = 1 << list(MARKS).index("th")
_LI, _TR, _PRE_TAG = TAG["li"], TAG["tr"], TAG["pre"]
_SPACES = re.compile(r"[ \t\r\n\f\v\xa0]+")
_MAX_INDENT = 4


@dataclass(frozen=True, slots=True)
class _Piece:
    """A block as text, and the list item, table row and <pre> that it stands in (-1: none)."""

    text: str
    item: int
    row: int
    pre: int
    depth: int


def write_blocks(scan: Scan, blocks: Blocks, chosen: Array) -> str:
    """The text of the chosen blocks."""
    pieces = [piece for piece in _pieces(scan, blocks, chosen) if piece.text.strip()]
    written: list[str] = []
    items: set[int] = set()
    before = None
    for piece in pieces:
        if before is not None:
            written.append(_between(before, piece))
        starts_item = piece.item >= 0 and piece.item not in items and not (before and _same_row(before, piece))
        items.add(piece.item)
        written.append("  " * min(piece.depth - 1, _MAX_INDENT) + "- " + piece.text if starts_item else piece.text)
        before = piece
    return "".join(written)


def block_texts(scan: Scan, blocks: Blocks) -> list[str]:
    """The text of each block."""
    return list(_texts(scan, blocks, np.ones(len(blocks.words), bool)))


def _same_row(before: _Piece, piece: _Piece) -> bool:
    return piece.row >= 0 and before.row == piece.row


def _between(before: _Piece, piece: _Piece) -> str:
    if _same_row(before, piece):
        return " | "
    if piece.row >= 0 and before.row >= 0 or piece.pre >= 0 and piece.pre == before.pre:
        return "\n"
    return "\n" if piece.item >= 0 and before.item >= 0 else "\n\n"


def _pieces(scan: Scan, blocks: Blocks, chosen: Array) -> Iterator[_Piece]:
    tags, parents = scan.tag, scan.parent
    texts = _texts(scan, blocks, chosen)
    for block, text in zip(np.flatnonzero(chosen).tolist(), texts, strict=True):
        element = int(blocks.element[block])
        item, row, pre, depth = -1, -1, -1, 0
        if int(scan.marks[element]) & (_ITEM | _CELL | _HEAD_CELL | _PRE):
            while element >= 0:
                tag = tags[element]
                if tag == _LI:
                    item, depth = (element if item < 0 else item), depth + 1
                elif tag == _TR and row < 0 and item < 0:
                    row = element
                elif tag == _PRE_TAG:
                    pre = element
                element = int(parents[element])
        yield _Piece(text, item, row, pre, depth)


def _texts(scan: Scan, blocks: Blocks, chosen: Array) -> Iterator[str]:
    """The text of each chosen block; white space is one space, but in blocks with preformatted runs."""
    columns = (scan.run_start, scan.run_end, scan.run_break, scan.run_kind)
    for first, last in zip(blocks.first_run[chosen].tolist(), blocks.last_run[chosen].tolist(), strict=True):
        runs = list(zip(*(column[first:last].tolist() for column in columns), strict=True))
        yield _text_of(scan.source, runs)


def _text_of(source: bytes, runs: list[tuple[int, int, int, int]]) -> str:
    """The runs of a block, each (start, end, break, kind), as one text."""
    preformatted = any(kind == PREFORMATTED for *_, kind in runs)
    parts: list[str] = []
    for start, end, between, kind in runs:
        if parts:
            parts.append(_join(between))
        text = source[start:end].decode("utf-8", "replace")
        if "&" in text:
            text = html.unescape(text)
        if kind == TEX:
            text = f"${text.strip()}$"
        parts.append(text if preformatted or len(runs) == 1 else _SPACES.sub(" ", text))
    text = "".join(parts)
    if preformatted:
        return text.strip("\n").rstrip()
    if len(runs) == 1:
        return " ".join(text.split())
    return "\n".join(" ".join(line.split()) for line in text.split("\n")).strip()


def _join(between: int) -> str:
    return "\n" if between & LINE_BREAK else " " if between & SPACE_BEFORE else ""
