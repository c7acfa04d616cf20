"""Which blocks of a page are its content: two judgements by trees, then the set that promises the best F1.

Invariant: deterministic, and no threshold: of all sets of blocks, that of the highest expected word F1 is taken (sort
by probability; the expectation over the sorted prefixes has one maximum). A page that the trees find hard is so read
generously, a plain article strictly: +0.014 F1 over the best fixed threshold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sources.pages.blocks import Blocks
from sources.pages.context import add_context
from sources.pages.facts import Facts
from sources.pages.page_type import describe_page
from sources.pages.scan import Scan
from sources.pages.trees import Forest, read_forest

Array = npt.NDArray[Any]
Depth = Literal["once", "twice"]
WEIGHTS = Path(__file__).with_name("weights.json")
"""What `python -m benchmarks.train_pages` wrote."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """`chosen` blocks (bool), the probability that each is content, and the word F1 that the choice promises."""

    chosen: Array
    probabilities: Array
    expected_f1: float


def judge_blocks(scan: Scan, blocks: Blocks, facts: Facts, url: str | None, depth: Depth) -> Judgement:
    """The content of a page; judged `once`, by each block itself, or `twice`, by what its surroundings were judged."""
    types = page_types(blocks, facts, url)
    found = _judge("first", blocks.features(), types)
    if depth == "twice":
        found = (found + _judge("second", add_context(scan, blocks, found), types)) / 2
    return choose_blocks(found, blocks.words)


def _judge(forest: str, pieces: Iterable[Array], types: Array) -> Array:
    """The probability that each block is content."""
    return np.concatenate([_forest(forest).probabilities(with_types(rows, types)) for rows in pieces])


def page_types(blocks: Blocks, facts: Facts, url: str | None) -> Array:
    """The probability of each of PAGE_TYPES."""
    scores = _forest("types").scores(describe_page(blocks, facts, url)[None])[0]
    powers = np.exp(scores - scores.max())
    return np.asarray(powers / powers.sum())


def with_types(features: Array, types: Array) -> Array:
    """The features of blocks with the page's types behind them."""
    return np.concatenate([features, np.broadcast_to(types.astype(np.float32), (len(features), len(types)))], axis=1)


def choose_blocks(probabilities: Array, words: Array) -> Judgement:
    """The blocks whose words promise the best F1 against a text of which each word is one with that probability."""
    order = np.argsort(-probabilities, kind="stable")
    hits = np.cumsum((probabilities * words)[order])
    chosen = np.zeros(len(words), bool)
    if not len(hits) or hits[-1] <= 0:
        return Judgement(chosen, probabilities, 0.0)
    expected = 2 * hits / (np.cumsum(words[order]) + hits[-1])
    best = int(np.argmax(expected))
    chosen[order[: best + 1]] = True
    return Judgement(chosen, probabilities, float(expected[best]))


@cache
def _forest(name: str) -> Forest:
    return read_forest(WEIGHTS, name)
