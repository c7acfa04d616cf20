"""Sample and blend indices equal megatron-core's, element for element, and so do the samples read through them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from storage.megatron import IndexedReader, IndexedWriter
from trainer.data import indices
from trainer.data.indices import SAMPLE_SURPLUS, apportion_samples, build_blend, build_sample_indices


def lengths_of(seed: int, count: int) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng(seed)
    lengths = np.minimum(generator.geometric(0.01, count), 2_000).astype(np.int32)
    lengths[generator.integers(0, count, 3)] = 0  # megatron's own tool writes empty documents
    return lengths


def megatron_dataset(prefix: Path, *, sequence_length: int, num_samples: int, seed: int, eod: int = 0) -> Any:
    gpt = pytest.importorskip("megatron.core.datasets.gpt_dataset")
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    split = pytest.importorskip("megatron.core.datasets.utils").Split.train
    tokenizer = SimpleNamespace(vocab_size=1_000, eod=eod, pad=999, unique_identifiers={"class": "none"})
    config = gpt.GPTDatasetConfig(
        random_seed=seed,
        sequence_length=sequence_length,
        blend=([str(prefix)], None),
        split="1",
        path_to_cache=str(prefix.parent / f"cache-{seed}-{num_samples}-{sequence_length}"),
        tokenizer=tokenizer,
        reset_position_ids=True,
        reset_attention_mask=True,
        eod_mask_loss=True,
    )
    store = indexed.IndexedDataset(str(prefix))
    return gpt.GPTDataset(store, str(prefix), np.arange(len(store), dtype=np.int32), num_samples, split, config)


def write_shard(prefix: Path, lengths: np.ndarray[Any, Any], seed: int) -> None:
    generator = np.random.default_rng(seed)
    with IndexedWriter(prefix, np.uint16) as writer:
        for length in lengths:
            writer.add(generator.integers(0, 900, int(length)).astype(np.uint16))


@pytest.mark.parametrize("seed", [1, 1234])
@pytest.mark.parametrize("sequence_length", [7, 256])
@pytest.mark.parametrize("passes", [0.02, 0.9, 1.0, 1.3, 1.95, 4.1])
def test_indices_are_megatrons(tmp_path: Path, seed: int, sequence_length: int, passes: float) -> None:
    lengths = lengths_of(seed, 200)
    write_shard(tmp_path / "shard", lengths, seed)
    num_samples = max(1, int(passes * lengths.sum()) // sequence_length)
    theirs = megatron_dataset(tmp_path / "shard", sequence_length=sequence_length, num_samples=num_samples, seed=seed)
    ours = build_sample_indices(lengths, sequence_length=sequence_length, num_samples=num_samples, seed=seed)
    for mine, other in (
        (ours.documents, theirs.document_index),
        (ours.samples, theirs.sample_index),
        (ours.shuffle, theirs.shuffle_index),
    ):
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other)


def test_samples_read_through_them_are_megatrons(tmp_path: Path) -> None:
    lengths = lengths_of(5, 60)
    write_shard(tmp_path / "shard", lengths, 5)
    theirs = megatron_dataset(tmp_path / "shard", sequence_length=64, num_samples=40, seed=5)
    ours = build_sample_indices(lengths, sequence_length=64, num_samples=40, seed=5)
    reader = IndexedReader(tmp_path / "shard")
    assert len(ours) == len(theirs)
    for index in range(len(ours)):
        pieces = [reader.read(sequence, first, None if n < 0 else n) for sequence, first, n in ours.spans(index)]
        text, _ = theirs._query_document_sample_shuffle_indices(index)
        np.testing.assert_array_equal(np.concatenate(pieces), text)


@pytest.mark.parametrize(
    "weights", [[0.3, 0.7], [1.0], [26.11, 0.4, 4.08, 14.4], [1, 1, 1], [1e-6, 5.0], list(np.linspace(0.1, 9, 84))]
)
@pytest.mark.parametrize("num_samples", [1, 400, 5_001])
@pytest.mark.parametrize("compiled", [True, False])
def test_blend_is_megatrons(
    weights: list[float], num_samples: int, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indices, "WORTH_COMPILING", 0 if compiled else 1 << 40)
    cpp = pytest.importorskip("megatron.core.datasets.helpers_cpp")
    utils = pytest.importorskip("megatron.core.datasets.utils")
    builder = pytest.importorskip("megatron.core.datasets.blended_megatron_dataset_builder")
    shares = utils.normalize(weights)
    asked = apportion_samples(weights, num_samples)
    assert [[n] for n in asked] == builder._get_size_per_split_per_dataset(shares, [num_samples])
    assert [[n] for n in apportion_samples(weights, num_samples, surplus=SAMPLE_SURPLUS)] == (
        builder._get_size_per_split_per_dataset(shares, [num_samples], surplus=0.005)
    )
    size = sum(asked)
    dataset, sample = np.zeros(size, np.int16), np.zeros(size, np.int64)
    cpp.build_blending_indices(dataset, sample, shares, len(weights), size, False)
    ours = build_blend(weights, size)
    np.testing.assert_array_equal(ours[0], dataset)
    np.testing.assert_array_equal(ours[1], sample)
