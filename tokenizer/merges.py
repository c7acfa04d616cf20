"""Learning byte-pair merges from counted words: Hugging Face's `BpeTrainer`, its order and its corners included.

Invariant: the merges are those of `tokenizers` 0.23. The pair with the highest count is merged, of equal ones that
with the smaller ids. Three corners of it are kept, because later merges hang on them: a pair's count is not taken back
when it is merged; two ways to one string share an entry, whose pairs may then be merged a second time (the later rank
stays); a pair that is too long together is never counted. Counts are 64 bits wide (theirs 32: they wrap around).
Trade-off: the words that hold a pair are listed when the pair comes up, and lists are cleared out when they are full:
about 50 bytes a byte of distinct words at the most.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenizer.pair_kernels import (
    HEAP_START,
    HEAP_STOP,
    MORE_BYTES,
    MORE_FRESH,
    MORE_HEAP,
    MORE_LISTS,
    MORE_MERGES,
    MORE_PAIRS,
    MORE_TOUCHED,
    NUM_HEAP,
    NUM_MERGES,
    NUM_PAIRS,
    NUM_TOKENS,
    NUM_TOUCHED,
    STATE_SIZE,
    STEP,
    STOP,
    Corpus,
    Entries,
    Int64s,
    Limits,
    Pairs,
    count_pairs,
    keep_lists,
    list_words,
    merge_pairs,
    move_pairs,
    name_entry,
)
from tokenizer.words import Words

FIRST_LISTS = 1 << 18


def learn_merges(words: Words, entries: list[bytes], limits: Limits) -> tuple[list[bytes], list[tuple[int, int]]]:
    """Merge until a limit is met; returns the bytes of all entries and the pairs in the order of their ranks.

    `entries` are those before the first merge, by id: each single byte, and others; one without bytes is never made.
    """
    trainer = _Trainer(words, entries, limits)
    trainer.run(count_pairs)
    trainer.run(list_words)
    trainer.run(merge_pairs)
    return trainer.entries(), trainer.merges()


class _Trainer:
    """The arrays, each made longer when a kernel finds no room."""

    def __init__(self, words: Words, entries: list[bytes], limits: Limits) -> None:
        self.limits = limits
        self.corpus = _spell(words, entries)
        self.pairs = Pairs(
            table=np.zeros((1 << 16, 4), np.int64),
            touched=np.zeros((1 << 14, 2), np.int64),
            fresh=np.zeros((1 << 16, 2), np.int32),
            lists=np.zeros(FIRST_LISTS, np.int32),
            heap=np.zeros((1 << 16, 4), np.int64),
        )
        self.vocabulary = _store_entries(entries, limits.size)
        self.merged = np.zeros((limits.size, 2), np.int32)
        self.state = np.zeros(STATE_SIZE, np.int64)
        self.state[STEP], self.state[STOP], self.state[NUM_TOKENS] = 1, len(self.corpus.counts), len(entries)

    def run(self, kernel: Callable[..., int]) -> None:
        while code := kernel(self.corpus, self.pairs, self.vocabulary, self.merged, self.limits, self.state):
            self._lengthen(code)

    def entries(self) -> list[bytes]:
        data, starts = self.vocabulary.data.tobytes(), self.vocabulary.starts.tolist()
        return [data[starts[i] : starts[i + 1]] for i in range(self.state[NUM_TOKENS])]

    def merges(self) -> list[tuple[int, int]]:
        """A pair that was merged twice stands where it was merged last."""
        latest: dict[tuple[int, int], None] = {}
        for left, right in self.merged[: self.state[NUM_MERGES]].tolist():
            latest.pop((left, right), None)
            latest[left, right] = None
        return list(latest)

    def _lengthen(self, code: int) -> None:
        pairs = self.pairs
        if code == MORE_PAIRS:
            self.pairs = pairs._replace(table=self._larger_table())
        elif code == MORE_BYTES:
            self.vocabulary = self.vocabulary._replace(data=_twice(self.vocabulary.data))
        elif code == MORE_MERGES:
            self.merged = _twice(self.merged)
        elif code == MORE_LISTS:
            self._drop_lists()
        else:
            name = {MORE_TOUCHED: "touched", MORE_FRESH: "fresh", MORE_HEAP: "heap"}[code]
            self.pairs = pairs._replace(**{name: _twice(getattr(pairs, name))})

    def _drop_lists(self) -> None:
        """Lists of merged pairs, and of those that occur no more, make room; if that is little, there is more of it."""
        pairs, state = self.pairs, self.state
        rows = pairs.heap[: state[NUM_HEAP]].copy()
        rows = rows[np.argsort(rows[:, HEAP_START])]
        lists = pairs.lists
        needed = int((rows[:, HEAP_STOP] - rows[:, HEAP_START]).sum() + pairs.touched[: state[NUM_TOUCHED], 1].sum())
        if 4 * needed > 3 * len(lists):
            lists = np.empty(needed + needed // 2, np.int32)
        keep_lists(pairs, rows, lists, state)
        self.pairs = pairs._replace(lists=lists)

    def _larger_table(self) -> Int64s:
        larger = np.zeros((2 * len(self.pairs.table), 4), np.int64)
        self.state[NUM_PAIRS] = move_pairs(self.pairs.table, larger, self.state[STEP] * len(self.corpus.counts))
        return larger


def _twice(array: NDArray[Any]) -> NDArray[Any]:
    longer = np.zeros((2 * len(array), *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer


def _spell(words: Words, entries: list[bytes]) -> Corpus:
    """The words that have a pair, as ids of their bytes."""
    byte_ids = np.zeros(256, np.int32)
    for identifier, entry in enumerate(entries):
        if len(entry) == 1:
            byte_ids[entry[0]] = identifier
    lengths = np.diff(words.starts)
    paired = lengths > 1
    return Corpus(
        symbols=byte_ids[words.data],
        starts=np.ascontiguousarray(words.starts[:-1][paired]),
        lengths=lengths[paired].astype(np.int32),
        counts=np.ascontiguousarray(words.counts[paired]),
    )


def _store_entries(entries: list[bytes], size: int) -> Entries:
    data = b"".join(entries)
    stored = np.zeros(len(data) + 16 * size, np.uint8)
    stored[: len(data)] = np.frombuffer(data, np.uint8)
    starts = np.zeros(size + 2, np.int64)
    starts[1 : len(entries) + 1] = np.cumsum([len(entry) for entry in entries])
    vocabulary = Entries(stored, starts, np.zeros(1 << (4 * size).bit_length(), np.int32))
    for identifier, entry in enumerate(entries):
        if entry:
            name_entry(vocabulary, identifier)
    return vocabulary
