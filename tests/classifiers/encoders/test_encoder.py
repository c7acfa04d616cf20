"""Vectors equal the reference's, whatever the cut of the input, and bad luck on the device is survived."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from classifiers.encoders.encoder import Encoder, EncoderConfig
from classifiers.encoders.forwards import plan_batches, plan_packs
from classifiers.encoders.models import find_model
from classifiers.encoders.tokens import CHARACTERS_PER_TOKEN, TokenRows
from storage.errors import RecipeError, ResourceError
from tests.classifiers.quality.samples import TEXTS

BFLOAT16_TOLERANCE = 0.005
BATCH_TOLERANCE = 2e-6


def reference_vectors(texts: list[str]) -> np.ndarray:
    """What the model's own card does: transformers' tokenizer and model, padded, mean over the mask, unit length."""
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = find_model().folder
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None].float()
    pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
    return torch.nn.functional.normalize(pooled, dim=1).numpy()


def test_vectors_are_those_of_transformers(encoder: Encoder) -> None:
    found = encoder.embed(pa.array(TEXTS))
    assert np.abs(found.vectors - reference_vectors(TEXTS)).max() < BATCH_TOLERANCE
    assert found.vectors.dtype == np.float32 and np.allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
    assert found.num_tokens[[1, 2, 5]].tolist() == [2, 2, 256]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_vector_does_not_depend_on_its_neighbours(dtype: Any) -> None:
    encoder = Encoder(EncoderConfig(dtype=dtype, max_tokens=48))
    texts = pa.array(TEXTS)
    whole = encoder.embed(texts).vectors
    for cuts in ([0, 1, 4, 8], [0, 7, 8]):
        pieces = [encoder.embed(texts.slice(a, b - a)).vectors for a, b in zip(cuts, cuts[1:], strict=False)]
        assert np.concatenate(pieces).tobytes() == whole.tobytes()
    backwards = encoder.embed(pa.array(TEXTS[::-1])).vectors[::-1]
    assert backwards.tobytes() == whole.tobytes()


def test_padded_batches_stay_within_the_tolerance(encoder: Encoder) -> None:
    batched = Encoder(EncoderConfig(dtype="float32", batch_tokens=600))
    texts = pa.array(TEXTS)
    assert np.abs(batched.embed(texts).vectors - encoder.embed(texts).vectors).max() < BATCH_TOLERANCE


def test_bfloat16_stays_within_the_tolerance(encoder: Encoder) -> None:
    half = Encoder(EncoderConfig(dtype="bfloat16"))
    texts = pa.array(TEXTS)
    difference = np.abs(half.embed(texts).vectors - encoder.embed(texts).vectors).max()
    assert 0 < difference < BFLOAT16_TOLERANCE


def test_a_huge_text_costs_what_its_beginning_costs(encoder: Encoder) -> None:
    limit = CHARACTERS_PER_TOKEN * encoder.config.max_tokens
    huge = "river mill 谷物 " * 500_000
    found = encoder.embed(pa.array([huge, huge[:limit]]))
    assert found.vectors[0].tobytes() == found.vectors[1].tobytes()
    assert found.num_tokens.tolist() == [256, 256]


def test_spelled_special_tokens_are_text(encoder: Encoder) -> None:
    found = encoder.embed(pa.array(["a [SEP] b", "a sep b"]))
    # "[SEP]" read as text is three tokens, read as the special token it would be one.
    assert found.num_tokens.tolist() == [7, 5]


def test_no_texts_give_no_vectors(encoder: Encoder) -> None:
    assert encoder.embed(pa.array([], pa.string())).vectors.shape == (0, 384)


class FullDevice:
    """A forward on a device that has room for `room` documents at a time."""

    def __init__(self, forward: Any, room: int) -> None:
        self.forward, self.room, self.refused = forward, room, 0
        self.device, self.plan = forward.device, forward.plan

    def __call__(self, rows: TokenRows) -> Any:
        if len(rows) > self.room:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.forward(rows)


def test_out_of_memory_halves_the_batch_and_goes_on(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    batched = Encoder(EncoderConfig(dtype="float32", max_tokens=32, batch_tokens=10_000))
    device = FullDevice(batched._batches._forward, room=3)
    monkeypatch.setattr(batched._batches, "_forward", device)
    texts = pa.array([f"text number {i} " * (i + 1) for i in range(20)])
    found = batched.embed(texts).vectors
    alone = Encoder(EncoderConfig(dtype="float32", max_tokens=32)).embed(texts).vectors
    assert np.abs(found - alone).max() < BATCH_TOLERANCE
    refused = device.refused
    assert refused > 0
    batched.embed(texts)
    assert device.refused - refused < refused  # the next call starts with smaller batches


def test_a_document_that_never_fits_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder(EncoderConfig(dtype="float32"))
    monkeypatch.setattr(encoder._batches, "_forward", FullDevice(encoder._batches._forward, room=0))
    with pytest.raises(ResourceError, match="no memory for one document of 5 tokens"):
        encoder.embed(pa.array(["three little words"]))


def test_packs_hold_every_row_once_in_order_within_the_budget() -> None:
    lengths = [5, 300, 7, 7, 256, 1, 90, 90, 2]
    packs = plan_packs(lengths, 200)
    assert packs == [[0], [1], [2, 3], [4], [5, 6, 7, 8]]
    assert plan_packs([], 200) == []


def test_batches_hold_every_row_once_within_the_budget() -> None:
    lengths = [5, 300, 7, 7, 256, 1, 90, 90, 2]
    batches = plan_batches(lengths, 200)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 200 for batch in batches)
    assert len(batches) == 4  # 300; 256; 90 + 90; the rest
    assert [len(batch) for batch in plan_batches(lengths, 1)] == [1] * len(lengths)


def test_a_setting_that_cannot_work_is_refused() -> None:
    with pytest.raises(RecipeError, match="max_tokens is 0"):
        EncoderConfig(max_tokens=0)
