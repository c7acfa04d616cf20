"""What every hash of deduplication is made of: constants, and the permutations that a seed stands for.

No compiler is needed here, so that the kernels and the GPU share it. A change of any number makes other signatures.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Codes = npt.NDArray[np.uint32]

TOKEN_SEED = np.uint64(0x243F6A8885A308D3)
TOKEN_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
SHINGLE_MULTIPLIER = np.uint64(0xD6E8FEB86659FD93)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)


@lru_cache(maxsize=8)
def permutations(seed: int, count: int) -> tuple[Codes, Codes]:
    """(multipliers, addends) uint32[count]: h -> (a * h + b) mod 2^32 with a odd, a permutation of the 32-bit hashes.

    Written by SplitMix64 from the seed, not by a library's generator, so that no release can change them.
    """
    values = (_split_mix(seed, 2 * count) >> np.uint64(32)).astype(np.uint32)
    multipliers, addends = values[:count] | np.uint32(1), values[count:].copy()
    multipliers.setflags(write=False)
    addends.setflags(write=False)
    return multipliers, addends


def _split_mix(seed: int, count: int) -> Hashes:
    """The first `count` outputs of SplitMix64 (Steele, Lea, Flood 2014)."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * TOKEN_MULTIPLIER
    values = steps + np.uint64(seed % (1 << 64))
    values = (values ^ (values >> np.uint64(30))) * MIX_1
    values = (values ^ (values >> np.uint64(27))) * MIX_2
    return values ^ (values >> np.uint64(31))
