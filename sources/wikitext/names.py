"""Names that markup is looked up by (templates, tags, namespaces, entities) as one hash table that kernels read.

A name is known by the FNV-1a hash of its UTF-8 bytes, ASCII letters in lower case, `_` as a blank; each kind of name
has a seed of its own. 64 bits: among the 5,000 names of a table and the 10^8 different ones of all wikis a mistaken
hit has a chance of 3e-8.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.int64]
Values = NDArray[np.int64]

TEMPLATE, NAMESPACE, TAG, ENTITY = 14695981039, 24695981047, 34695981053, 44695981069
"""The seeds."""
PRIME = 1099511628211
_MASK = (1 << 64) - 1


def hash_name(name: str, seed: int) -> int:
    """The hash as the kernels compute it, in wrapping 64-bit arithmetic."""
    state = seed
    for byte in name.encode():
        state = (state ^ _fold(byte, seed)) * PRIME & _MASK
    return state - (1 << 64) if state >> 63 else state


def _fold(byte: int, seed: int) -> int:
    if seed == ENTITY:
        return byte
    return byte + 32 if 65 <= byte <= 90 else 32 if byte == 95 else byte


def name_table(entries: Iterable[tuple[int, str, int]]) -> tuple[Keys, Values]:
    """Open addressing over (seed, name, value); a first letter outside ASCII is entered in both cases."""
    found: dict[int, int] = {}
    for seed, name, value in entries:
        for spelling in {name, name[:1].upper() + name[1:]} if seed != ENTITY else {name}:
            found.setdefault(hash_name(spelling, seed), value)
    size = 1 << (4 * len(found)).bit_length()
    keys, values = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for key, value in found.items():
        place = (key ^ (key >> 32)) & (size - 1)
        while keys[place]:
            place = (place + 1) & (size - 1)
        keys[place], values[place] = key, value
    return keys, values
