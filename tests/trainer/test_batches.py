"""Samples, blends, positions and masks are those of megatron-core over the same folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist

from storage.errors import DatasetError
from storage.megatron import IndexedWriter
from trainer.data.batches import TrainingSamples, cut_documents, make_batch
from trainer.data.mixture import open_mixture
from trainer.models.attention import document_mask
from trainer.settings import Preset


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """megatron-core 0.16 builds a blend only where torch.distributed is up."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("num_samples", [60, 700])
def test_training_samples_are_those_of_a_megatron_blend(mixture_folder: Path, tmp_path: Path, num_samples: int) -> None:
    gpt = pytest.importorskip("megatron.core.datasets.gpt_dataset")
    builder = pytest.importorskip("megatron.core.datasets.blended_megatron_dataset_builder")
    mixture = open_mixture(mixture_folder)
    end = mixture.vocabulary.end_of_document
    config = gpt.GPTDatasetConfig(
        random_seed=7,
        sequence_length=32,
        blend_per_split=[
            ([str(shard.prefix) for shard in mixture.train], [shard.weight for shard in mixture.train]), None, None
        ],
        path_to_cache=str(tmp_path / "cache"),
        tokenizer=SimpleNamespace(vocab_size=300, eod=end, pad=-1, unique_identifiers={"class": "none"}),
        reset_position_ids=True,
        reset_attention_mask=True,
        eod_mask_loss=True,
    )  # fmt: skip
    theirs = builder.BlendedMegatronDatasetBuilder(gpt.GPTDataset, [num_samples, 0, 0], lambda: True, config).build()[0]
    ours = TrainingSamples(mixture, sequence_length=32, num_samples=num_samples, seed=7)
    for index in range(num_samples):
        sample = theirs[index]
        np.testing.assert_array_equal(ours[index][:-1], sample["tokens"])
        np.testing.assert_array_equal(ours[index][1:], sample["labels"])


@pytest.mark.parametrize("reset", [True, False])
def test_positions_masks_and_weights_are_megatrons(make_preset: Callable[..., Preset], reset: bool) -> None:
    gpt = pytest.importorskip("megatron.core.datasets.gpt_dataset")
    config = make_preset(reset_attention_mask=reset, reset_position_ids=reset, eod_mask_loss=reset).training
    generator = np.random.default_rng(0)
    rows = [np.where(generator.random(33) < 0.2, 9, generator.integers(10, 99, 33)) for _ in range(20)]
    rows += [np.full(33, 9), np.arange(10, 43)]
    batch = make_batch(rows, 9, config)
    ours = document_mask(batch.documents)[:, 0]
    for row in range(len(rows)):
        mask, weights, positions = gpt._get_ltor_masks_and_position_ids(batch.tokens[row], 9, reset, reset, reset, True)
        torch.testing.assert_close(batch.positions[row], positions)
        torch.testing.assert_close(batch.weights[row], weights)
        assert torch.equal(ours[row] == float("-inf"), mask[0])
        torch.testing.assert_close(batch.labels[row, :-1], batch.tokens[row, 1:])


@pytest.mark.parametrize("num_samples", [1, 7, 40])
def test_every_sample_of_a_short_run_over_many_sets_exists(fresh_mixture: Path, num_samples: int) -> None:
    mixture = open_mixture(fresh_mixture)
    shards = tuple(replace(mixture.train[number % 2], weight=0.1 + number**3) for number in range(33))
    samples = TrainingSamples(replace(mixture, train=shards), sequence_length=32, num_samples=num_samples, seed=1)
    assert {len(samples[index]) for index in range(num_samples)} == {33}


def test_ids_beyond_the_vocabulary_name_their_shard(fresh_mixture: Path) -> None:
    with IndexedWriter(fresh_mixture / "train/b-0000", np.uint16) as writer:
        for _ in range(50):
            writer.add(np.full(20, 4_000))
    samples = TrainingSamples(open_mixture(fresh_mixture), sequence_length=32, num_samples=40, seed=1)
    with pytest.raises(DatasetError, match="token id 4000 in a shard, but the vocabulary has") as caught:
        [samples[index] for index in range(40)]
    assert str(caught.value.at).endswith("train/b-0000")


def test_a_shard_without_tokens_is_refused(fresh_mixture: Path) -> None:
    with IndexedWriter(fresh_mixture / "train/b-0000", np.uint16) as writer:
        writer.add([])
    with pytest.raises(DatasetError, match="the shard holds 0 tokens"):
        TrainingSamples(open_mixture(fresh_mixture), sequence_length=32, num_samples=40, seed=1)


def test_documents_are_cut_after_the_end() -> None:
    documents, positions = cut_documents(np.array([[5, 0, 0, 6, 7]]), 0)
    assert documents.tolist() == [[0, 0, 1, 2, 2]]
    assert positions.tolist() == [[0, 1, 0, 0, 1]]
