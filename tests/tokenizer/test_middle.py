"""Fill-in-the-middle: OpenSeek's form exactly, the same for a document everywhere, and back to its own order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import ModelError
from storage.identity import content_hash
from storage.megatron import IndexedReader
from storage.parts import Part, commit_table
from tokenizer.encode import Encoder
from tokenizer.middle import (
    AS_IT_IS,
    PREFIX_FIRST,
    SUFFIX_FIRST,
    FillInMiddle,
    find_cuts,
    find_tokens,
    rearrange,
    restore,
)
from tokenizer.store import open_store, publish_store, write_store_part
from tokenizer.verify import verify_store
from tokenizer.vocabulary import (
    TokenizerFile,
    describe_tokenizer,
    parse_tokenizer,
    read_vocabulary,
    with_fill_in_middle,
    write_vocabulary,
)

BY = FillInMiddle(begin=900, hole=901, end=902, chosen="x")
TOKENS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
SCHEMA = pa.schema([("doc_id", pa.binary(16)), ("text", pa.string())])
TEXTS = ["def grind(grain):\n    return flour\n", "a", "the miller <|fim_suffix|> counts", "", "新的句子有很多字。"]


def doc_id(number: int) -> bytes:
    return content_hash(str(number).encode())


@pytest.fixture(scope="module")
def coder(trained: TokenizerFile) -> TokenizerFile:
    """A tokenizer with the three tokens, as code models have them; they are not marked special."""
    settings = json.loads(trained.data)
    first = len(parse_tokenizer(trained.data).get_vocab(with_added_tokens=True))
    for number, token in enumerate(TOKENS, first):
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        settings["added_tokens"].append({"id": number, "content": token, **flags})
    data = json.dumps(settings).encode()
    return with_fill_in_middle(TokenizerFile(data, describe_tokenizer(data)), "some sources")


@given(
    lengths=st.lists(st.tuples(st.integers(0, 12), st.sampled_from([AS_IT_IS, PREFIX_FIRST, SUFFIX_FIRST])), max_size=9)
)
def test_each_document_is_rearranged_as_asked_and_comes_back(lengths: list[tuple[int, int]]) -> None:
    sizes, orders = [size for size, _ in lengths], np.array([order for _, order in lengths], np.uint8)
    offsets = np.cumsum([0, *sizes])
    ids = np.arange(offsets[-1], dtype=np.uint32)
    ids_of = [ids[a:b] for a, b in zip(offsets, offsets[1:], strict=False)]
    made, bounds = rearrange(ids, offsets, [doc_id(i) for i in range(len(sizes))], orders, BY)
    assert len(bounds) == len(offsets) and bounds[-1] == len(made)
    for number, (own, order) in enumerate(zip(ids_of, orders, strict=True)):
        found = made[bounds[number] : bounds[number + 1]]
        np.testing.assert_array_equal(restore(found, BY), own)
        if order == AS_IT_IS or len(own) < 3:
            np.testing.assert_array_equal(found, own)
            continue
        a, b = find_cuts(doc_id(number), len(own))
        prefix, middle, suffix = own[:a].tolist(), own[a:b].tolist(), own[b:].tolist()
        assert prefix and middle and suffix
        first = {PREFIX_FIRST: [900, *prefix, 901, *suffix, 902, *middle],
                 SUFFIX_FIRST: [900, 901, *suffix, 902, *prefix, *middle]}  # fmt: skip
        assert found.tolist() == first[int(order)]


def test_every_pair_of_cuts_is_as_likely() -> None:
    found = np.array([find_cuts(doc_id(i), 5) for i in range(6_000)])
    pairs, counts = np.unique(found, axis=0, return_counts=True)
    assert pairs.tolist() == [[1, 2], [1, 3], [1, 4], [2, 3], [2, 4], [3, 4]]
    assert counts.min() > 850 and counts.max() < 1_150


def test_the_tokens_are_found_or_named(coder: TokenizerFile, trained: TokenizerFile) -> None:
    size = trained.vocabulary.size
    middle = coder.vocabulary.fill_in_middle
    assert middle and (middle.begin, middle.hole, middle.end) == (size, size + 1, size + 2)
    assert find_tokens({"a": 1, "b": 2, "c": 3}, ("c", "a", "b")) == (3, 1, 2)
    with pytest.raises(ModelError, match="no added token '<x>'"):
        with_fill_in_middle(trained, "", ("<|endoftext|>", "<x>", "<y>"))
    with pytest.raises(ModelError, match="no tokens for fill-in-the-middle"):
        with_fill_in_middle(trained, "")


def test_such_a_store_is_another_one(coder: TokenizerFile, tmp_path: Path) -> None:
    plain = TokenizerFile(coder.data, describe_tokenizer(coder.data))
    other = with_fill_in_middle(plain, "other sources")
    hashes = {one.vocabulary.tokenizer_hash for one in (plain, coder, other)}
    assert len(hashes) == 3
    for one in (plain, coder):
        write_vocabulary(tmp_path, one)
        assert read_vocabulary(tmp_path) == one
    assert "fill_in_middle" not in plain.vocabulary.facts()


class TestStore:
    def write(self, folder: Path, tokenizer: TokenizerFile, orders: list[int] | None) -> Part:
        table = pa.table([[doc_id(i) for i in range(len(TEXTS))], TEXTS], schema=SCHEMA)
        documents = commit_table(folder / "documents", "d0", table, schema=SCHEMA)
        return write_store_part(
            folder / "tokens",
            Encoder(tokenizer, fast=False),
            documents=documents,
            batches=table.to_batches(max_chunksize=2),
            admitted=np.arange(len(TEXTS)),
            orders=None if orders is None else np.array(orders, np.uint8),
        )

    def test_every_text_comes_back_from_it(self, coder: TokenizerFile, tmp_path: Path) -> None:
        part = self.write(tmp_path, coder, [1, 1, 2, 1, 1])
        publish_store(tmp_path / "tokens", coder.vocabulary, [part])
        store, encoder = open_store(tmp_path / "tokens"), Encoder(coder, fast=False)
        middle = coder.vocabulary.fill_in_middle
        assert store.vocabulary == coder.vocabulary and middle
        rearranged = 0
        for number, text in enumerate(TEXTS):
            location = store.find(doc_id(number))
            if not text:
                assert location is None
                continue
            assert location and store.decode(location, encoder) == text
            ids = store.tokens(location).tolist()
            rearranged += ids[0] == middle.begin
            assert [ids.count(token) for token in (middle.begin, middle.hole, middle.end)] in ([0] * 3, [1] * 3)
        assert rearranged == 3, "one text has fewer than three tokens"
        assert verify_store(store).sequences == 4

    def test_orders_make_another_part_and_none_the_same(self, coder: TokenizerFile, tmp_path: Path) -> None:
        asked: list[list[int] | None] = [None, [0] * 5, [1, 0, 0, 0, 0], [2, 0, 0, 0, 0]]
        parts = [self.write(tmp_path, coder, orders) for orders in asked]
        assert parts[0] == parts[1] and len({part.identity for part in parts}) == 3
        plain, moved = (IndexedReader(tmp_path / "tokens" / parts[i].identity) for i in (0, 2))
        assert moved.lengths[0] == plain.lengths[0] + 3 and moved.lengths[1:].tolist() == plain.lengths[1:].tolist()
