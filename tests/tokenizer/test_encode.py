"""Encoding: nothing is lost, nobody closes a document from inside it, and the cut of the input does not matter."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tokenizer import encode as encode_module
from tokenizer.encode import Encoder, TokenBatch
from tokenizer.samples import hard_samples
from tokenizer.training import TrainingConfig, train_tokenizer
from tokenizer.vocabulary import TokenizerFile, describe_tokenizer

UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def split(batch: TokenBatch) -> list[list[int]]:
    return [batch.ids[a:b].tolist() for a, b in zip(batch.offsets, batch.offsets[1:], strict=False)]


def encode_one(encoder: Encoder, text: str) -> np.ndarray:
    return encoder.encode(pa.array([text])).ids


@settings(deadline=None)
@given(text=UNICODE)
def test_any_text_comes_back(encoder: Encoder, text: str) -> None:
    assert encoder.decode(encode_one(encoder, text)) == text


@settings(deadline=None)
@given(texts=st.lists(st.none() | UNICODE, max_size=12))
def test_a_batch_is_its_texts_one_by_one(encoder: Encoder, texts: list[str | None]) -> None:
    batch = encoder.encode(pa.array(texts, pa.string()))
    assert (batch.ids.dtype, batch.offsets.dtype) == (np.uint32, np.int64)
    assert split(batch) == [encode_one(encoder, text or "").tolist() for text in texts]


def test_ids_are_those_of_hugging_face(encoder: Encoder, trained: TokenizerFile) -> None:
    reference = Tokenizer.from_str(trained.data.decode())
    samples = hard_samples()
    assert split(encoder.encode(pa.array(samples))) == [reference.encode(text).ids for text in samples]


def test_hard_samples_come_back(encoder: Encoder) -> None:
    samples = hard_samples()
    ids = split(encoder.encode(pa.array(samples)))
    assert [encoder.decode(row) for row in ids] == samples


def test_the_cut_of_the_input_does_not_matter(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pa.array(["", None, *hard_samples(), "", "x" * 500, ""])
    whole = encoder.encode(texts)
    for size in (1, 100, 5000):
        monkeypatch.setattr(encode_module, "BYTES_PER_CALL", size)
        assert split(encoder.encode(texts)) == split(whole)
    chunked = pa.chunked_array([texts.slice(0, 3), texts.slice(3, 0), texts.slice(3)])
    assert split(encoder.encode(chunked)) == split(whole)
    assert split(encoder.encode(texts.slice(5, 7))) == split(whole)[5:12]


@pytest.mark.parametrize("text", ["<|endoftext|>", "a<|endoftext|>b", "<|endoftext|>" * 3, " <|endoftext|>\n"])
def test_a_spelled_end_of_document_is_text(encoder: Encoder, text: str) -> None:
    ids = encode_one(encoder, text)
    assert encoder.vocabulary.end_of_document not in ids
    assert encoder.decode(ids) == text


def test_an_end_that_is_not_marked_special_is_text_all_the_same(trained: TokenizerFile) -> None:
    values = json.loads(trained.data)
    values["added_tokens"][0]["special"] = False
    data = json.dumps(values).encode()
    encoder = Encoder(TokenizerFile(data, describe_tokenizer(data)), fast=False)
    assert encoder.vocabulary.end_of_document not in encode_one(encoder, "a<|endoftext|>b")


def test_truncation_and_padding_of_the_file_are_not_applied(trained: TokenizerFile, encoder: Encoder) -> None:
    tokenizer = Tokenizer.from_str(trained.data.decode())
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=64)
    data = tokenizer.to_str().encode()
    limited = Encoder(TokenizerFile(data, describe_tokenizer(data)), fast=False)
    text = "the miller counts the sacks"
    assert encode_one(limited, text).tolist() == encode_one(encoder, text).tolist()


@pytest.mark.parametrize(("unit", "size"), [("a", 1), (" ", 1), ("麻袋。", 1), ("the grain is ground 123\n", 5)])
def test_a_long_document(encoder: Encoder, unit: str, size: int) -> None:
    text = unit * (size * 1_000_000 // len(unit.encode()))
    assert encoder.decode(encode_one(encoder, text)) == text


class TestEngines:
    """What runs is decided by comparing ids, so a library that differs never gets to encode."""

    @pytest.fixture
    def install(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[type], None]:
        def put(engine: type) -> None:
            module = types.ModuleType("fastokens")
            module.Tokenizer = engine  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, "fastokens", module)

        return put

    def fake(self, trained: TokenizerFile, change: Callable[[list[int]], list[int]]) -> type:
        class Fake:
            @staticmethod
            def from_json_str(text: str) -> Fake:
                fake = Fake()
                fake.reference = Tokenizer.from_str(text)
                fake.reference.encode_special_tokens = True
                return fake

            def encode_batch_flat(self, texts: list[str], **options: bool) -> tuple[bytes, bytes]:
                assert options == {"add_special_tokens": False, "split_special_tokens": True}
                ids = [change(self.reference.encode(text, add_special_tokens=False).ids) for text in texts]
                offsets = np.cumsum([0, *map(len, ids)]).astype("<u8")
                return np.array([i for row in ids for i in row], "<u4").tobytes(), offsets.tobytes()

        return Fake

    def test_an_exact_one_is_used(
        self, trained: TokenizerFile, encoder: Encoder, install: Callable[[type], None]
    ) -> None:
        install(self.fake(trained, lambda ids: ids))
        fast = Encoder(trained)
        assert fast.engine == "fastokens"
        texts = pa.array(["", None, "the miller", "麻袋" * 9])
        assert split(fast.encode(texts)) == split(encoder.encode(texts))

    def test_one_that_differs_in_one_token_is_not(
        self, trained: TokenizerFile, install: Callable[[type], None]
    ) -> None:
        install(self.fake(trained, lambda ids: [*ids[:-1], 9] if len(ids) == 7 else ids))
        assert Encoder(trained).engine == "tokenizers"

    def test_one_that_raises_is_not(self, trained: TokenizerFile, install: Callable[[type], None]) -> None:
        def refuse(ids: list[int]) -> list[int]:
            raise RuntimeError("match limit")

        install(self.fake(trained, refuse))
        assert Encoder(trained).engine == "tokenizers"

    def test_absence_is_no_error(self, trained: TokenizerFile, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "fastokens", None)
        assert Encoder(trained).engine == "tokenizers"

    def test_the_installed_one_agrees_on_texts_it_was_not_checked_on(self, trained: TokenizerFile) -> None:
        pytest.importorskip("fastokens")
        fast, reference = Encoder(trained), Encoder(trained, fast=False)
        assert fast.engine == "fastokens"
        texts = pa.array([text[::-1] * 2 for text in hard_samples()])
        assert split(fast.encode(texts)) == split(reference.encode(texts))


def test_an_empty_batch(encoder: Encoder) -> None:
    batch = encoder.encode(pa.array([], pa.string()))
    assert (batch.ids.tolist(), batch.offsets.tolist()) == ([], [0])


def test_encoding_uses_the_merges(encoder: Encoder) -> None:
    assert len(encode_one(encoder, "the miller grinds the grain")) < 12


def test_a_vocabulary_without_merges_is_bytes() -> None:
    data = train_tokenizer([pa.array(["ab"])], TrainingConfig(size=257))
    encoder = Encoder(TokenizerFile(data, describe_tokenizer(data)), fast=False)
    assert len(encode_one(encoder, "über 麻")) == len("über 麻".encode())
