"""Shards are checked, joined, cut and read back; Megatron's own tools are the reference."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import DatasetError
from storage.megatron import IndexedReader, IndexedWriter, bin_path, idx_path, write_index
from storage.shards import check_shard, merge_shards, read_batches, split_shard

END = 0


def write(prefix: Path, lengths: Sequence[int], first: int = 1, dtype: type = np.uint16) -> Path:
    """Document i holds its number (from `first` on), closed by END."""
    with IndexedWriter(prefix, dtype) as writer:
        for number, length in enumerate(lengths, first):
            writer.add(np.array([number] * (length - 1) + [END] * (length > 0), dtype))
    return prefix


def point(prefix: Path, at: Path, order: Sequence[int]) -> Path:
    """An index over another pair's `.bin`, in any order and with repeats."""
    reader = IndexedReader(at)
    os.symlink(bin_path(at), bin_path(prefix))
    write_index(
        idx_path(prefix),
        dtype=reader.dtype,
        lengths=reader.lengths[list(order)],
        pointers=reader.pointers[list(order)],
        documents=np.arange(len(order) + 1),
    )
    return prefix


def texts(prefix: Path) -> list[list[int]]:
    reader = IndexedReader(prefix)
    return [reader[i].tolist() for i in range(len(reader))]


def test_a_merge_is_megatrons(tmp_path: Path) -> None:
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    prefixes = [write(tmp_path / "a", [3, 0, 5]), write(tmp_path / "b", [2, 7], first=9)]
    for prefix, documents in ((prefixes[0], [0, 2, 3]), (prefixes[1], [0, 1, 2])):
        reader = IndexedReader(prefix)
        write_index(
            idx_path(prefix),
            dtype=reader.dtype,
            lengths=reader.lengths,
            pointers=reader.pointers,
            documents=documents,
        )
    builder = indexed.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=np.uint16)
    for prefix in prefixes:
        builder.add_index(str(prefix))
    builder.finalize(str(tmp_path / "theirs.idx"))
    merge_shards(tmp_path / "ours", prefixes)
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()


@settings(max_examples=30, deadline=None)
@given(
    parts=st.lists(st.lists(st.integers(0, 6), max_size=6), min_size=1, max_size=4),
    tokens=st.integers(1, 30),
)
def test_what_is_joined_and_cut_again_holds_the_same(
    parts: list[list[int]], tokens: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    prefixes = [write(folder / f"p{i}", lengths, first=10 * i + 1) for i, lengths in enumerate(parts)]
    whole = merge_shards(folder / "whole", prefixes)
    expected = [text for prefix in prefixes for text in texts(prefix)]
    assert texts(whole.prefix) == expected
    pieces = split_shard(folder / "piece", whole.prefix, tokens)
    assert [text for piece in pieces for text in texts(piece)] == expected
    sizes = [IndexedReader(piece).num_tokens for piece in pieces]
    assert all(size < tokens + 6 for size in sizes)
    assert len(pieces) <= 1 + sum(sizes) // tokens


def test_an_index_with_repeats_is_copied_as_it_says(tmp_path: Path) -> None:
    stored = write(tmp_path / "stored", [3, 4, 5])
    mixed = point(tmp_path / "mixed", stored, [2, 0, 0, 1, 2])
    merge_shards(tmp_path / "alone", [mixed, stored])
    assert texts(tmp_path / "alone") == texts(mixed) + texts(stored)
    assert bin_path(tmp_path / "alone").stat().st_size == 2 * IndexedReader(tmp_path / "alone").num_tokens


class TestChecks:
    def test_repeats_are_counted_and_read_once(self, tmp_path: Path) -> None:
        stored = write(tmp_path / "stored", [3, 4, 5, 2])
        summary = check_shard(point(tmp_path / "mixed", stored, [2, 0, 0, 1, 2]), size=4, end_of_document=END)
        assert (summary.tokens, summary.distinct_tokens, summary.highest_id) == (20, 12, 3)
        assert (summary.sequences, summary.documents, summary.dtype) == (5, 5, "uint16")

    def test_an_empty_shard_is_one(self, tmp_path: Path) -> None:
        assert check_shard(write(tmp_path / "a", []), size=1, end_of_document=END).highest_id == -1

    def test_ids_of_another_vocabulary(self, tmp_path: Path) -> None:
        prefix = write(tmp_path / "a", [3, 4, 5])
        with pytest.raises(DatasetError, match="holds id 3, the vocabulary has 3 entries"):
            check_shard(prefix, size=3)
        with pytest.raises(DatasetError, match="3 documents do not end with id 7: 0, 1, 2"):
            check_shard(prefix, end_of_document=7)

    def test_only_the_last_sequence_of_a_document_must_end_it(self, tmp_path: Path) -> None:
        prefix = write(tmp_path / "a", [3, 0, 4])
        reader = IndexedReader(prefix)
        fields = {"dtype": reader.dtype, "lengths": [2, 1, 4], "pointers": [0, 4, 6]}
        write_index(idx_path(prefix), **fields, documents=[0, 2, 3])
        check_shard(prefix, end_of_document=END)
        write_index(idx_path(prefix), **fields, documents=[0, 1, 2, 3])
        with pytest.raises(DatasetError, match="1 documents do not end with id 0: 0"):
            check_shard(prefix, end_of_document=END)

    @pytest.mark.parametrize("lost", [1, 2, 11])
    def test_a_truncated_bin(self, tmp_path: Path, lost: int) -> None:
        prefix = write(tmp_path / "a", [3, 4])
        bin_path(prefix).write_bytes(bin_path(prefix).read_bytes()[:-lost])
        with pytest.raises(DatasetError, match="beyond the"):
            check_shard(prefix)

    @pytest.mark.parametrize(("pointer", "words"), [(12, "beyond the 14 bytes"), (3, "inside an id of 2 bytes")])
    def test_an_index_that_points_outside_or_between(self, tmp_path: Path, pointer: int, words: str) -> None:
        prefix = write(tmp_path / "a", [3, 4])
        write_index(idx_path(prefix), dtype=np.uint16, lengths=[3, 2], pointers=[0, pointer], documents=[0, 1, 2])
        with pytest.raises(DatasetError, match=words):
            check_shard(prefix)


def test_shards_of_different_ids_are_not_joined(tmp_path: Path) -> None:
    prefixes = [write(tmp_path / "a", [3]), write(tmp_path / "b", [3], dtype=np.int32)]
    with pytest.raises(DatasetError, match="a uint16, b int32"):
        merge_shards(tmp_path / "c", prefixes)
    with pytest.raises(DatasetError, match="no shards"):
        merge_shards(tmp_path / "c", [])


def test_arrow_batches_hold_every_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.shards.BATCH_TOKENS", 8)
    prefix = point(tmp_path / "mixed", write(tmp_path / "stored", [3, 0, 9, 5]), [2, 0, 1, 3, 2])
    batches = list(read_batches(IndexedReader(prefix)))
    table = pa.Table.from_batches(batches)
    assert len(batches) > 1 and table["tokens"].to_pylist() == texts(prefix)
    assert table["document"].to_pylist() == table["sequence"].to_pylist() == [0, 1, 2, 3, 4]


def _hold(prefix: Path, ready: Connection) -> None:
    writer = IndexedWriter(prefix, np.uint16)
    writer.add(np.array([1, 0], np.uint16))
    ready.send(True)
    signal.pause()


def test_two_writers_on_one_path(tmp_path: Path) -> None:
    first = IndexedWriter(tmp_path / "a", np.uint16)
    with pytest.raises(DatasetError, match="another process is writing"):
        IndexedWriter(tmp_path / "a", np.uint16)
    with pytest.raises(DatasetError, match="another process is writing"):
        merge_shards(tmp_path / "a", [write(tmp_path / "b", [2])])
    first.add(np.array([5, 0], np.uint16))
    first.finish()
    assert texts(write(tmp_path / "a", [3])) == [[1, 1, 0]]
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_killed_writer_holds_nothing(tmp_path: Path) -> None:
    ready, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_hold, args=(tmp_path / "a", theirs))
    process.start()
    assert ready.recv()
    with pytest.raises(DatasetError, match="another process is writing"):
        IndexedWriter(tmp_path / "a", np.uint16)
    process.kill()
    process.join()
    assert texts(write(tmp_path / "a", [2])) == [[1, 0]]
