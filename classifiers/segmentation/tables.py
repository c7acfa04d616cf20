"""The tables that `classifiers.segmentation.kernels` reads, made from what three packages carry, once a machine.

Invariant: a table's name holds a digest of its dictionary and the version of this code; nothing of the packages' code
runs but TinySegmenter's list of weights. jieba (dict.txt, MIT): 349,046 words with frequencies. newmm-tokenizer
(words_th.txt of PyThaiNLP, Apache-2.0): 62,000 words. tinysegmenter (BSD): 1,500 weights.
Trade-off: 32 MB on disk, mapped once for all workers, built in 1.6 s; opening them again takes 70 ms, for the digests.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifiers.compiled import kernel
from classifiers.segmentation.kernels import (
    CODE_BITS,
    EMPTY,
    FIRST_MARKER,
    NUM_TYPES,
    Dictionary,
    LinearModel,
    Segmenter,
    edge,
    empty_block,
    find_slot,
)
from classifiers.utf8 import signed
from storage.derived import Arrays, derived_arrays
from storage.errors import ModelError

PACKAGES = ("jieba", "newmm-tokenizer", "tinysegmenter")
VERSION = 1
"""Raise it when a table would come out otherwise from the same files."""
THAI_WORD, THAI_UNKNOWN = -1.0, -100.0
_TYPES = "MHIKANO"
_DECISIONS = "BOU"
_MARKERS = ("B3", "B2", "B1", "E1", "E2", "E3")
_CHARACTER_TYPES = (
    ("K", "ァ-ヺーｦ-ﾞ"), ("I", "ぁ-ん"), ("H", "一-龠々〆ヵヶ"), ("M", "一二三四五六七八九十百千万億兆"),
)  # fmt: skip


@functools.cache
def segmenter_tables() -> tuple[Dictionary, Dictionary, LinearModel]:
    """Chinese, Thai, Japanese. ModelError if one of PACKAGES is not installed."""
    return _chinese(), _thai(), _japanese()


def open_segmenter() -> Segmenter:
    """The tables, shared, with a block of its own: one for each thread that measures."""
    return Segmenter(*segmenter_tables(), empty_block())


def package_file(module: str, name: str) -> Path:
    spec = find_spec(module)
    path = Path((spec.origin if spec else None) or module).parent / name
    if not spec or not path.is_file():
        raise ModelError(
            f"the segmenter's `{module}` is not installed", at=str(path), hint=f"pip install {' '.join(PACKAGES)}"
        )
    return path


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest() + f"-{VERSION}"


def _chinese() -> Dictionary:
    data = package_file("jieba", "dict.txt").read_bytes()
    arrays = derived_arrays("chinese", _digest(data), lambda: _trie(_log_probabilities(data.decode())))
    return _dictionary(arrays, longest_first=True)


def _log_probabilities(text: str) -> dict[str, float]:
    """jieba's words and the logarithms of their shares of all occurrences; an unknown character counts as one."""
    counts: dict[str, int] = {}
    total = 0
    for line in text.splitlines():
        word, count = line.split(" ")[:2]
        counts[word] = int(count)
        total += int(count)
    scores = {word: math.log(count) - math.log(total) for word, count in counts.items() if count}
    return {"": -math.log(total), **scores}


def _thai() -> Dictionary:
    data = package_file("newmm_tokenizer", "words_th.txt").read_bytes()
    words = sorted({word.strip() for word in data.decode().splitlines()} - {""})
    scores = {"": THAI_UNKNOWN, **dict.fromkeys(words, THAI_WORD)}
    return _dictionary(derived_arrays("thai", _digest(data), lambda: _trie(scores)), longest_first=False)


def _dictionary(arrays: Arrays, *, longest_first: bool) -> Dictionary:
    unknown = float(arrays["unknown_score"][0])
    return Dictionary(arrays["keys"], arrays["children"], arrays["scores"], unknown, longest_first)


def _trie(scores: Mapping[str, float]) -> Arrays:
    """The arrays of a Dictionary; the empty word's score is that of an unknown character."""
    words = [word for word in scores if word]
    nodes = len({word[:size] for word in words for size in range(1, len(word) + 1)})
    slots = 1 << (2 * nodes).bit_length()
    keys, children, values = np.zeros(slots, np.uint64), np.zeros(slots, np.int32), np.zeros(slots, np.float64)
    bounds = np.cumsum([0, *map(len, words)], dtype=np.int64)
    codes = np.frombuffer("".join(words).encode("utf-32-le"), np.uint32).astype(np.int32)
    add_words(codes, bounds, np.array([scores[word] for word in words]), keys, children, values)
    return {"keys": keys, "children": children, "scores": values, "unknown_score": np.array([scores[""]])}


@kernel
def add_words(
    codes: NDArray[np.int32],
    bounds: NDArray[np.int64],
    scores: NDArray[np.float64],
    keys: NDArray[np.uint64],
    children: NDArray[np.int32],
    values: NDArray[np.float64],
) -> None:
    """Fill a Dictionary's table; the nodes are numbered in the order of their first word."""
    nodes = 0
    for word in range(len(bounds) - 1):
        node, slot = 0, 0
        for i in range(bounds[word], bounds[word + 1]):
            key = edge(node, codes[i])
            slot = find_slot(keys, key)
            if keys[slot] == EMPTY:
                nodes += 1
                keys[slot] = key
                children[slot] = nodes
            node = signed(children[slot])
        values[slot] = scores[word]


def _japanese() -> LinearModel:
    data = package_file("tinysegmenter", "tinysegmenter.py").read_bytes()
    arrays = derived_arrays("japanese", _digest(data), _linear_model)
    tables = {name: array for name, array in arrays.items() if name != "bias"}
    return LinearModel(**tables, bias=int(arrays["bias"][0]))


def _linear_model() -> Arrays:
    from tinysegmenter import TinySegmenter  # here, because it is only needed where the table is built

    weights = {
        name[1:]: value for name, value in vars(TinySegmenter()).items() if re.fullmatch("_[UBT][A-Z][1-6]", name)
    }
    keys, rows = _gram_table(weights)
    return {
        "keys": keys,
        "rows": rows,
        "types": _character_types(),
        "before": _sums(weights, types=4, decisions=2, terms=_BEFORE),
        "after": _sums(weights, types=4, decisions=0, terms=_AFTER),
        "first": _first_sums(weights),
        "bias": np.array([vars(TinySegmenter())["_BIAS"]], np.int32),
    }


def _gram_table(weights: Mapping[str, Mapping[str, int]]) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Weights of characters (UW1…6), pairs (BW1…3) and triples (TW1…4), one row of 6 for each that has any."""
    found: dict[int, list[int]] = {}
    for kind, size, features in (("UW", 1, 6), ("BW", 2, 3), ("TW", 3, 4)):
        for feature in range(features):
            for text, weight in weights[f"{kind}{feature + 1}"].items():
                codes = _codes(text)
                if len(codes) == size:  # a few of TinySegmenter's own are longer, and so never found
                    found.setdefault(_pack(codes), [0] * 6)[feature] = weight
    slots = 1 << (2 * len(found)).bit_length()
    keys, rows = np.zeros(slots, np.uint64), np.zeros((slots, 6), np.int32)
    add_rows(np.array(list(found), np.uint64), np.array(list(found.values()), np.int32), keys, rows)
    return keys, rows


@kernel
def add_rows(
    found: NDArray[np.uint64], weights: NDArray[np.int32], keys: NDArray[np.uint64], rows: NDArray[np.int32]
) -> None:
    for i in range(len(found)):
        slot = find_slot(keys, found[i])
        keys[slot] = found[i]
        for weight in range(weights.shape[1]):
            rows[slot, weight] = weights[i, weight]


def _codes(text: str) -> list[int]:
    """Code points, those of the markers beyond Unicode."""
    found = re.findall("|".join((*_MARKERS, ".")), text, re.DOTALL)
    return [FIRST_MARKER + _MARKERS.index(item) if item in _MARKERS else ord(item) for item in found]


def _pack(codes: Iterable[int]) -> int:
    return functools.reduce(lambda packed, code: packed << CODE_BITS | code, codes)


def _character_types() -> NDArray[np.uint8]:
    """uint8[65536]: M numeral, H other Han, I hiragana, K katakana; A and N never stand in a run; O the rest."""
    types = np.full(1 << 16, _TYPES.index("O"), np.uint8)
    for name, members in _CHARACTER_TYPES:
        pattern = re.compile(f"[{members}]")
        types[[code for code in range(0x3000, 0x10000) if pattern.match(chr(code))]] = _TYPES.index(name)
    return types


# Which features look at which types (numbered as in the table's key) and decisions; TinySegmenter joins the decision
# first. `before` has types 1 to 4 and decisions 2 and 3, `after` has types 3 to 6.
_BEFORE = (
    ("UP2", (0,), ()), ("UP3", (1,), ()), ("BP2", (0, 1), ()),
    ("UC1", (), (0,)), ("UC2", (), (1,)), ("UC3", (), (2,)), ("UC4", (), (3,)),
    ("BC1", (), (1, 2)), ("BC2", (), (2, 3)), ("TC1", (), (0, 1, 2)), ("TC2", (), (1, 2, 3)),
    ("UQ2", (0,), (1,)), ("UQ3", (1,), (2,)),
    ("BQ1", (0,), (1, 2)), ("BQ2", (0,), (2, 3)), ("BQ3", (1,), (1, 2)), ("BQ4", (1,), (2, 3)),
    ("TQ1", (0,), (0, 1, 2)), ("TQ2", (0,), (1, 2, 3)), ("TQ3", (1,), (0, 1, 2)), ("TQ4", (1,), (1, 2, 3)),
)  # fmt: skip
_AFTER = (("UC5", (), (2,)), ("UC6", (), (3,)), ("BC3", (), (1, 2)), ("TC3", (), (0, 1, 2)), ("TC4", (), (1, 2, 3)))
_Terms = tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]


def _sums(weights: Mapping[str, Mapping[str, int]], *, types: int, decisions: int, terms: _Terms) -> NDArray[np.int32]:
    """The sum of the terms for every combination of types, then decisions."""
    rows = []
    for row in itertools.product(_TYPES, repeat=types):
        for made in itertools.product(_DECISIONS, repeat=decisions):
            keys = (
                (name, "".join((*(made[i] for i in which), *(row[i] for i in around)))) for name, which, around in terms
            )
            rows.append(sum(weights[name].get(key, 0) for name, key in keys))
    return np.array(rows, np.int32)


def _first_sums(weights: Mapping[str, Mapping[str, int]]) -> NDArray[np.int32]:
    """int32[3² · 7]: what the oldest decision says, with the one after it or the first type."""
    assert len(_TYPES) == NUM_TYPES
    rows = itertools.product(_DECISIONS, _DECISIONS, _TYPES)
    return np.array(
        [weights["UP1"].get(p, 0) + weights["BP1"].get(p + q, 0) + weights["UQ1"].get(p + c, 0) for p, q, c in rows],
        np.int32,
    )
