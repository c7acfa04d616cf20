"""The greedy blend compiled, where numba is there: 300 million samples in seconds, as megatron's C++ takes.

The arithmetic is that of the loop in `trainer.data.indices`, operation by operation, so the order is the same to the
last sample; without numba that loop does the work (1.6 µs a sample, here 0.01 to 0.06).
"""

from __future__ import annotations

from storage.kernels import prepare_kernel_cache

prepare_kernel_cache()

import numba  # noqa: E402
import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402


@numba.njit(cache=True, nogil=True)
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
        sample[index] = counts[chosen]
        counts[chosen] += 1.0
