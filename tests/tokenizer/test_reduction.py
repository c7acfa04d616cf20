"""Keeping the most frequent entries: nothing becomes unknown, and what stayed is as it was."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from storage.errors import ModelError
from tests.tokenizer.conftest import CORPUS
from tokenizer.encode import Encoder
from tokenizer.reduction import count_entries, keep_frequent
from tokenizer.samples import hard_samples
from tokenizer.vocabulary import TokenizerFile, describe_tokenizer

KEPT = 330
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@pytest.fixture(scope="module")
def reduced(trained: TokenizerFile, encoder: Encoder) -> tuple[Encoder, list[int]]:
    counts = count_entries(encoder, [pa.array(CORPUS[:2])])
    data, old = keep_frequent(trained.data, counts, KEPT)
    return Encoder(TokenizerFile(data, describe_tokenizer(data)), fast=False), old


@pytest.fixture(scope="module")
def encoder(trained: TokenizerFile) -> Encoder:
    return Encoder(trained, fast=False)


def test_it_has_the_size_asked_for(reduced: tuple[Encoder, list[int]], encoder: Encoder) -> None:
    small, old = reduced
    assert small.vocabulary.size == len(old) == KEPT
    assert small.vocabulary.end_of_document == encoder.vocabulary.end_of_document == 0
    assert old == sorted(old)


@settings(deadline=None)
@given(text=UNICODE | st.sampled_from([*CORPUS, *hard_samples()]))
def test_every_text_comes_back_and_kept_tokens_stay(
    reduced: tuple[Encoder, list[int]], encoder: Encoder, text: str
) -> None:
    small, old = reduced
    ids, before = (engine.encode(pa.array([text])).ids for engine in (small, encoder))
    assert small.decode(ids) == text
    if set(before.tolist()) <= set(old):
        assert [old[number] for number in ids] == before.tolist()
    assert len(ids) >= len(before)


def test_the_most_frequent_stay(reduced: tuple[Encoder, list[int]], encoder: Encoder) -> None:
    counts = count_entries(encoder, [pa.array(CORPUS[:2])])
    assert {int(counts.argmax()), *np.argsort(-counts, kind="stable")[:20].tolist()} <= set(reduced[1])


def test_texts_of_the_sample_are_hardly_longer(reduced: tuple[Encoder, list[int]], encoder: Encoder) -> None:
    long, short = (len(engine.encode(pa.array(CORPUS[:2])).ids) for engine in (reduced[0], encoder))
    assert short <= long <= 1.6 * short


def test_all_of_them_is_the_same_tokenizer(trained: TokenizerFile, encoder: Encoder) -> None:
    counts = count_entries(encoder, [pa.array(CORPUS)])
    data, old = keep_frequent(trained.data, counts, trained.vocabulary.size)
    assert old == list(range(trained.vocabulary.size))
    assert json.loads(data)["model"]["merges"] == json.loads(trained.data)["model"]["merges"]


@pytest.mark.parametrize("size", [100, 256, 10_000])
def test_a_size_that_cannot_be_is_refused(trained: TokenizerFile, size: int) -> None:
    with pytest.raises(ModelError, match="cannot be kept"):
        keep_frequent(trained.data, np.ones(trained.vocabulary.size, np.int64), size)


def test_another_kind_of_model_is_refused() -> None:
    data = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")).to_str().encode()
    with pytest.raises(ModelError, match="WordPiece model"):
        keep_frequent(data, np.ones(2, np.int64), 2)
