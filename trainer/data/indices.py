"""Which tokens a training sample holds: Megatron-LM's document, sample, shuffle and blend indices, in NumPy.

Equal, element for element, to `GPTDataset` and `BlendedDataset` of megatron-core for the same lengths, seed and
number of samples, so a run can move between the two trainers. The random draws must keep their order: documents,
(last epoch's documents), samples, (last epoch's samples), all from one `RandomState(seed)`.

The sample index is a binary search instead of megatron's C++ walk: 1 M documents cut into 4 M samples take 0.9 s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.data.blend_kernel import compiled_fill

SEPARATE_EPOCH_THRESHOLD = 0.80
SAMPLE_SURPLUS = 0.005
WORTH_COMPILING = 500_000
"""Samples of a blend from which the kernel is fetched: the loop takes 0.8 s for them, numba a second to come."""

Ints = npt.NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class SampleIndices:
    """How one dataset is cut into samples of `sequence_length + 1` tokens, neighbours sharing one.

    `documents` int32[epochs · N]: sequence numbers in reading order. `samples` int[S + 1, 2]: where each sample
    starts, as (position in `documents`, token offset there). `shuffle` uint32[S]: the order of the samples.
    """

    documents: Ints
    samples: Ints
    shuffle: Ints
    epochs: int

    def __len__(self) -> int:
        return len(self.shuffle)

    def spans(self, index: int) -> list[tuple[int, int, int]]:
        """(sequence, first token, number of tokens) of each piece of the `index`-th sample in training order."""
        row = int(self.shuffle[index])
        (first, start), (last, end) = self.samples[row].tolist(), self.samples[row + 1].tolist()
        if first == last:
            return [(int(self.documents[first]), start, end - start + 1)]
        inner = [(int(self.documents[at]), 0, -1) for at in range(first + 1, last)]
        return [(int(self.documents[first]), start, -1), *inner, (int(self.documents[last]), 0, end + 1)]


def build_sample_indices(lengths: Ints, *, sequence_length: int, num_samples: int, seed: int) -> SampleIndices:
    """Indices for at least `num_samples` samples, in as many epochs over the sequences (`lengths` tokens) as needed."""
    tokens_per_epoch = int(lengths.sum(dtype=np.int64))
    epochs = max(1, math.ceil((num_samples * sequence_length + 1) / tokens_per_epoch))
    samples_before_last = ((epochs - 1) * tokens_per_epoch - 1) // sequence_length
    separate_last = epochs > 1 and num_samples - samples_before_last < int(
        SEPARATE_EPOCH_THRESHOLD * ((tokens_per_epoch - 1) // sequence_length)
    )
    random = np.random.RandomState(seed)
    blocks = [epochs - 1, 1] if separate_last else [epochs]
    documents = np.concatenate([_shuffled_documents(len(lengths), block, random) for block in blocks])
    total = (epochs * tokens_per_epoch - 1) // sequence_length
    samples = _cut_samples(lengths, documents, sequence_length, total)
    bounds = [0, samples_before_last, total] if separate_last else [0, total]
    shuffle = np.concatenate([_shuffled_range(*pair, total, random) for pair in zip(bounds, bounds[1:], strict=False)])
    return SampleIndices(documents=documents, samples=samples, shuffle=shuffle, epochs=epochs)


def apportion_samples(weights: Sequence[float], num_samples: int, *, surplus: float = 0.0) -> list[int]:
    """Samples that each dataset of a blend contributes, rounded up, with `surplus` of them more to be safe."""
    return [math.ceil(math.ceil(num_samples * weight) * (1 + surplus)) for weight in normalize_weights(weights)]


def build_blend(weights: Sequence[float], size: int) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int64]]:
    """For each of `size` samples: the dataset it comes from, and its number there.

    Greedy: the dataset that lags most behind its weight gives the next sample; the first of equals wins.
    """
    shares = np.array(normalize_weights(weights))
    dataset = np.zeros(size, dtype=np.int16)
    sample = np.zeros(size, dtype=np.int64)
    if len(shares) == 1:
        return dataset, np.arange(size, dtype=np.int64)
    fill = compiled_fill() if size >= WORTH_COMPILING else None
    (fill or _fill_blend)(shares, dataset, sample)
    return dataset, sample


def _fill_blend(shares: npt.NDArray[np.float64], dataset: npt.NDArray[np.int16], sample: npt.NDArray[np.int64]) -> None:
    counts = np.zeros(len(shares))
    for index in range(len(dataset)):
        chosen = int((shares * max(index, 1) - counts).argmax())
        dataset[index] = chosen
        sample[index] = counts[chosen]
        counts[chosen] += 1


def normalize_weights(weights: Sequence[float]) -> list[float]:
    """Weights divided by their sum, as megatron-core rounds them."""
    array = np.array(weights, dtype=np.float64)
    shares: list[float] = (array / np.sum(array)).tolist()
    return shares


def _shuffled_documents(count: int, epochs: int, random: np.random.RandomState) -> Ints:
    documents = np.tile(np.arange(count, dtype=np.int32), epochs)
    random.shuffle(documents)
    return documents


def _cut_samples(lengths: Ints, documents: Ints, sequence_length: int, total: int) -> Ints:
    """Row j: the position and offset of token j · sequence_length in the concatenated documents."""
    ends = np.cumsum(lengths[documents], dtype=np.int64)
    tokens = np.arange(total + 1, dtype=np.int64) * sequence_length
    positions = np.searchsorted(ends, tokens, side="right")
    positions[0] = 0
    starts = ends[positions] - lengths[documents[positions]]
    fits_int32 = max(len(documents), int(lengths.max())) <= np.iinfo(np.int32).max
    return np.stack([positions, tokens - starts], axis=1).astype(np.int32 if fits_int32 else np.int64)


def _shuffled_range(first: int, stop: int, total: int, random: np.random.RandomState) -> Ints:
    dtype: type[np.integer] = np.int64 if total >= np.iinfo(np.uint32).max - 1 else np.uint32
    samples: Ints = np.arange(first, stop, dtype=dtype)
    random.shuffle(samples)
    return samples
