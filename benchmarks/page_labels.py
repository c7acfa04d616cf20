"""Which blocks of a page are in its gold text: the examples that the judgement of blocks learns from.

The words of the page and of the gold are aligned as two sequences (longest common subsequence in which a match that
continues one counts 1.6, so that passages stay together). A block's label is the share of its words that are aligned.
An oracle that chose the blocks above one half would have 0.98 word F1 on WCXB: hardly anything is lost to blocks.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from benchmarks.web_pages import GoldPage, f1_of, words_of
from sources.pages.blocks import Blocks, find_blocks
from sources.pages.scan import Scan, scan_page
from sources.pages.write import block_texts
from sources.web.charset import encode_html

Array = npt.NDArray[Any]
_MAX_CELLS = 1_500_000_000


@dataclass(frozen=True)
class LabelledPage:
    """A page's blocks, the words of each, and the share of them that gold holds."""

    page: GoldPage
    scan: Scan
    blocks: Blocks
    block_words: list[list[str]]
    gold_words: list[str]
    labels: Array

    @property
    def sizes(self) -> Array:
        return np.array([len(words) for words in self.block_words])

    def f1(self, chosen: Array) -> float:
        """Word F1 of the chosen blocks."""
        found = (word for words, taken in zip(self.block_words, chosen, strict=True) if taken for word in words)
        return f1_of(found, self.gold_words)


def label_page(page: GoldPage) -> LabelledPage:
    """The page with a label for each block."""
    scan = scan_page(encode_html(page.data, page.charset))
    blocks = find_blocks(scan)
    found = [words_of(html.unescape(text), page.is_chinese) for text in block_texts(scan, blocks)]
    gold = words_of(page.gold, page.is_chinese)
    aligned = _aligned([word for words in found for word in words], gold)
    ends = np.cumsum([len(words) for words in found])
    labels = [
        float(aligned[end - len(words) : end].mean()) if words else 0.0 for words, end in zip(found, ends, strict=True)
    ]
    return LabelledPage(page, scan, blocks, found, gold, np.array(labels))


def _aligned(words: list[str], gold: list[str]) -> Array:
    numbers: dict[str, int] = {}
    ours = np.array([numbers.setdefault(word, len(numbers)) for word in words], np.int32)
    theirs = np.array([numbers.setdefault(word, len(numbers)) for word in gold], np.int32)
    return np.asarray(_align(ours, theirs[: _MAX_CELLS // max(len(ours), 1)]))


_UP, _LEFT, _MATCH, _CONTINUES = 1, 2, 3, 8


@numba.njit
def _align(ours: Array, theirs: Array) -> Array:
    """1 for each word of ours that the best alignment matches."""
    rows, columns = len(ours), len(theirs)
    steps = np.zeros((rows + 1, columns + 1), np.uint8)
    before, now = np.zeros(columns + 1, np.float32), np.zeros(columns + 1, np.float32)
    matched_before, matched_now = np.full(columns + 1, -1, np.float32), np.full(columns + 1, -1, np.float32)
    for row in range(1, rows + 1):
        for column in range(1, columns + 1):
            best, step = before[column], _UP
            if now[column - 1] > best:
                best, step = now[column - 1], _LEFT
            matched_now[column] = -1
            if ours[row - 1] == theirs[column - 1]:
                score, continues = before[column - 1] + 1, 0
                if matched_before[column - 1] >= 0 and matched_before[column - 1] + 1.6 >= score:
                    score, continues = matched_before[column - 1] + 1.6, _CONTINUES
                matched_now[column] = score
                steps[row, column] = continues
                if score > best:
                    best, step = score, _MATCH
            now[column] = best
            steps[row, column] |= step
        before[:], matched_before[:] = now, matched_now
    found = np.zeros(rows, np.uint8)
    row, column, inside = rows, columns, False
    while row > 0 and column > 0:
        step = steps[row, column] & 7
        if inside or step == _MATCH:
            found[row - 1] = 1
            inside = (steps[row, column] & _CONTINUES) != 0
            row -= 1
            column -= 1
        elif step == _UP:
            row -= 1
        else:
            column -= 1
    return found
