"""The greedy blend compiled, where numba is there: 300 million samples in seconds, as megatron's C++ takes.

The arithmetic is that of the loop in `trainer.data.indices`, operation by operation, so the order is the same to the
last sample; without numba that loop does the work (1.6 µs a sample, here 0.01 to 0.06).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

from storage.kernels import prepare_kernel_cache


@cache
def compiled_fill() -> Callable[..., None] | None:
    """`fill_blend` as machine code; None where numba is not installed, which the trainer does not need."""
    prepare_kernel_cache()
    try:
        numba = importlib.import_module("numba")
    except ImportError:
        return None
    kernel: Callable[..., None] = numba.njit(cache=True, nogil=True)(fill_blend)
    return kernel


def fill_blend(shares: npt.NDArray[np.float64], dataset: npt.NDArray[np.int16], sample: npt.NDArray[np.int64]) -> None:
    """Fill `dataset` and `sample`: the dataset that lags most behind its share is next, the first of equals."""
    counts = np.zeros(len(shares))
    for index in range(len(dataset)):
        chosen, furthest = 0, -np.inf
        for number in range(len(shares)):
            lag = shares[number] * max(index, 1) - counts[number]
            if lag > furthest:
                chosen, furthest = number, lag
        dataset[index] = chosen
        sample[index] = int(counts[chosen])
        counts[chosen] += 1.0
