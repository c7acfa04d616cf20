"""Passes under way, as on a GPU: results in the rows' order, memory that runs out and comes back, short queues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from classifiers.encoders.batches import Batches
from classifiers.encoders.forwards import plan_packs
from classifiers.encoders.reading import ROWS_AT_ONCE, tokenized_blocks
from classifiers.encoders.tokens import TokenRows, pack_rows
from storage.errors import ResourceError


class FakeGpu:
    """A device of `memory` tokens, which passes hold until they are waited for; a row's result is its first token."""

    device = torch.device("cuda")

    def __init__(self, memory: int) -> None:
        self.memory, self.held, self.passes, self.most = memory, 0, 0, 0

    def plan(self, lengths: Sequence[int], batch_tokens: int | None) -> list[list[int]]:
        return plan_packs(lengths, batch_tokens or 100)

    def __call__(self, rows: TokenRows) -> Any:
        tokens = len(rows.ids)
        if self.held + tokens > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.held += tokens
        self.passes += 1
        self.most = max(self.most, self.held)

        def wait() -> np.ndarray:
            self.held -= tokens
            return rows.ids[rows.offsets[:-1]].astype(np.float32)[:, None]

        return wait


ROWS = pack_rows([[i] * (1 + i % 23) for i in range(200)])


@pytest.mark.parametrize("memory", [24, 60, 100, 10_000])
def test_results_stand_in_the_order_of_the_rows(memory: int) -> None:
    device = FakeGpu(memory)
    found = Batches(device, 1, None)(ROWS)
    assert found[:, 0].tolist() == list(range(200)) and device.held == 0


def test_two_passes_are_under_way_and_never_three() -> None:
    device = FakeGpu(10_000)
    Batches(device, 1, 50)(ROWS)
    assert 50 < device.most <= 100


def test_what_did_not_fit_is_not_tried_again() -> None:
    device = FakeGpu(60)
    batches = Batches(device, 1, None)
    batches(ROWS)
    first, device.passes = device.passes, 0
    batches(ROWS)
    assert batches._batch_tokens is not None and batches._batch_tokens <= 60 and 0 < device.passes <= first + 60


def test_a_row_that_never_fits_is_an_error() -> None:
    with pytest.raises(ResourceError, match="no memory for one document of 23 tokens"):
        Batches(FakeGpu(22), 1, None)(ROWS)


def test_texts_are_tokenized_one_block_ahead() -> None:
    """Back-pressure: when a block is handed over, the next has been begun and no other."""
    begun: list[int] = []
    texts = pa.array([""]).take(pa.array(np.zeros(5 * ROWS_AT_ONCE, np.int64)))

    def tokenize(block: pa.StringArray) -> int:
        begun.append(len(block))
        return len(begun)

    for device, ahead in (("cpu", 0), ("cuda", 1)):
        begun.clear()
        for number, block in enumerate(tokenized_blocks(tokenize, texts, device=device), start=1):
            assert block == number and len(begun) <= number + ahead
        assert begun == [ROWS_AT_ONCE] * 5


def test_a_tokenizers_error_reaches_the_caller() -> None:
    def fail(block: pa.StringArray) -> int:
        raise ValueError("no such text")

    with pytest.raises(ValueError, match="no such text"):
        list(tokenized_blocks(fail, pa.array(["a"]), device="cuda"))
