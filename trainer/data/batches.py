"""The tokens of any step, as tensors: a pure function of the shards, the seed and the number of the sample.

Nothing is remembered between batches, so the data position of a run is one number and resuming at any step is exact,
with any number of processes. Documents and positions are cut at end-of-document as Megatron does with
`reset_attention_mask` and `reset_position_ids`: the end-of-document id still belongs to the document that it closes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from storage.errors import DatasetError
from storage.megatron import IndexedReader
from trainer.data.indices import SAMPLE_SURPLUS, apportion_samples, build_blend, build_sample_indices
from trainer.data.mixture import Mixture
from trainer.settings import TrainingConfig

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples as int64 tensors [B, T]; `documents` numbers the documents within a row, `weights` (float32) the loss."""

    tokens: Tensor
    labels: Tensor
    positions: Tensor
    documents: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(**{name: tensor.to(device, non_blocking=True) for name, tensor in vars(self).items()})


class TrainingSamples:
    """All samples of a run in training order, drawn from the mixture's shards through Megatron's indices.

    Raises DatasetError for shards without enough tokens for one sample, and for ids beyond the vocabulary.
    """

    def __init__(self, mixture: Mixture, *, sequence_length: int, num_samples: int, seed: int) -> None:
        self.mixture = mixture
        self.readers = mixture.readers
        weights = [shard.weight for shard in mixture.train]
        # Megatron lays out the sum of the rounded-up shares; its first `num_samples` rows are these, and draw from no
        # dataset more than its rounded-up share.
        self._dataset, self._sample = build_blend(weights, num_samples)
        built = apportion_samples(weights, num_samples, surplus=SAMPLE_SURPLUS)
        self.indices = [
            build_sample_indices(lengths_of(reader), sequence_length=sequence_length, num_samples=target, seed=seed)
            for reader, target in zip(self.readers, built, strict=True)
        ]

    def __getitem__(self, index: int) -> Int64s:
        """sequence_length + 1 token ids, the last of them the label of the one before."""
        number = int(self._dataset[index])
        reader = self.readers[number]
        pieces = [
            reader.read(sequence, first, None if count < 0 else count)
            for sequence, first, count in self.indices[number].spans(int(self._sample[index]))
        ]
        tokens: Int64s = np.concatenate(pieces, dtype=np.int64)
        highest = int(tokens.max())
        if highest >= self.mixture.vocabulary.size:
            raise DatasetError(
                f"token id {highest} in a shard, but the vocabulary has {self.mixture.vocabulary.size} entries",
                at=str(reader.prefix),
                hint="the shard was made with another tokenizer; make the mixture again",
            )
        return tokens

    def places(self, index: int) -> list[tuple[int, int, int, int]]:
        """(shard, sequence, first token, number of tokens) of each piece of a sample, its last label left out."""
        number = int(self._dataset[index])
        pieces = self.indices[number].spans(int(self._sample[index]))
        lengths = self.readers[number].lengths
        whole = [(seq, first, int(lengths[seq]) - first if count < 0 else count) for seq, first, count in pieces]
        (sequence, first, count) = whole[-1]
        return [(number, *piece) for piece in [*whole[:-1], (sequence, first, count - 1)] if piece[2]]


def lengths_of(reader: IndexedReader) -> npt.NDArray[np.int32]:
    """Tokens of each sequence. Raises DatasetError for a shard too short to hold any token and its label."""
    if reader.num_tokens < 2:
        raise DatasetError(
            f"the shard holds {reader.num_tokens} tokens; training takes at least 2",
            at=str(reader.prefix),
            hint="leave this source out of the recipe, or loosen the policy that empties it",
        )
    return reader.lengths


def make_batch(samples: Sequence[Int64s], end_of_document: int, config: TrainingConfig) -> Batch:
    """Samples of T + 1 tokens as one batch; T is the same for all of them."""
    rows = np.stack(samples)
    tokens, labels = np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])
    documents, positions = cut_documents(tokens, end_of_document)
    weights = np.ones(tokens.shape, dtype=np.float32)
    if config.eod_mask_loss:
        weights[tokens == end_of_document] = 0.0
    if not config.reset_attention_mask:
        documents = np.zeros_like(documents)
    if not config.reset_position_ids:
        positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape).copy()
    arrays: dict[str, npt.NDArray[Any]] = {
        "tokens": tokens, "labels": labels, "positions": positions, "documents": documents, "weights": weights
    }  # fmt: skip
    return Batch(**{name: torch.from_numpy(array) for name, array in arrays.items()})


def cut_documents(tokens_BT: Int64s, end_of_document: int) -> tuple[Int64s, Int64s]:
    """(document number in the row, position in the document) of each token; both change after an end-of-document id."""
    ends = tokens_BT == end_of_document
    starts = np.zeros_like(ends)
    starts[:, 1:] = ends[:, :-1]
    documents = np.cumsum(starts, axis=1, dtype=np.int64)
    columns = np.broadcast_to(np.arange(tokens_BT.shape[1], dtype=np.int64), tokens_BT.shape)
    return documents, columns - np.maximum.accumulate(np.where(starts, columns, 0), axis=1)
