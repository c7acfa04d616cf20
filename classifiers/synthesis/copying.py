"""How much of a text stands in its source already: the share of its 8-grams of units that the source has too.

Units are those of the search for benchmark items: words without case and accents, single characters in scripts without
spaces. Invariant: 1 for any stretch of the source, 0 for texts without eight units in a row in common; a text of fewer
units is one gram. Trade-off: eight in a row seldom meet by chance, while names and terms of a subject are shorter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from classifiers.contamination.units import units_of

GRAM_UNITS = 8


def copied_shares(texts: Sequence[str], sources: Sequence[str]) -> NDArray[np.float64]:
    """float64[n]: the share of each text that stands in the source beside it; 0 for a text without units."""
    written, source = _units(texts), _units(sources)
    return np.array([_share(mine, theirs) for mine, theirs in zip(written, source, strict=True)], np.float64)


def _units(texts: Sequence[str]) -> list[NDArray[np.uint32]]:
    units, counts = units_of(pa.array(texts, pa.string()))
    return np.split(units, np.cumsum(counts))[:-1]


def _share(text: NDArray[np.uint32], source: NDArray[np.uint32]) -> float:
    size = min(GRAM_UNITS, len(text))
    if not size or len(source) < size:
        return 0.0
    return float(np.isin(_grams(text, size), _grams(source, size)).mean())


def _grams(units: NDArray[np.uint32], size: int) -> NDArray[np.void]:
    """Each run of `size` units as one value that compares byte for byte."""
    windows = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(units, size))
    return windows.view(np.dtype((np.void, 4 * size))).ravel()
