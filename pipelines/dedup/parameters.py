"""What is asked of deduplication: how texts become shingles and signatures, and how alike a duplicate must be.

A candidate is a pair with one band in common: P(candidate | Jaccard s) = 1 - (1 - s^rows)^bands. Verification makes
precision 1, so bands and rows set recall and cost only. At threshold 0.8, 16 x 7 finds 0.977 of the pairs that lie
exactly on it; datatrove's 14 x 8, with the same 112 permutations, 0.923.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

import numpy as np

from storage.errors import EnvironmentMismatch, RecipeError

LEAST_RECALL = 0.97
MOST_SHINGLE, MOST_BANDS, MOST_ROWS = 64, 1024, 64
_GRID_POINTS = 2001


@dataclass(frozen=True, kw_only=True)
class SignatureConfig:
    """How a text becomes a signature.

    `words` are runs of letters and digits, lower-cased; in scripts without spaces each character is a word.
    `characters` are code points, lower-cased, a run of white space counting as one. `unicode` is part of the identity:
    another version of the character tables can cut words elsewhere.
    """

    unit: Literal["words", "characters"] = "words"
    shingle_size: int = 5
    bands: int = 16
    rows: int = 7
    seed: int = 1
    unicode: str = unicodedata.unidata_version

    def __post_init__(self) -> None:
        if self.unit not in ("words", "characters"):
            raise RecipeError(f"unit is {self.unit!r}; it must be `words` or `characters`")
        for name, most in (("shingle_size", MOST_SHINGLE), ("bands", MOST_BANDS), ("rows", MOST_ROWS)):
            if not 1 <= getattr(self, name) <= most:
                raise RecipeError(f"{name} is {getattr(self, name)}; it must be from 1 to {most}")
        if self.unicode != unicodedata.unidata_version:
            raise EnvironmentMismatch(
                f"the signatures were made with Unicode {self.unicode}; this Python has {unicodedata.unidata_version}",
                hint="use the Python version that made them, or make the signatures anew",
            )

    @property
    def num_permutations(self) -> int:
        return self.bands * self.rows


@dataclass(frozen=True, kw_only=True)
class SemanticConfig:
    """Documents that mean the same. `threshold` is the least cosine that is recorded; `visits`: in how many clusters a
    document is compared; `neighbour_limit`: with how many it is tied in a crowd; `most_rows`: a larger cluster is cut
    by k-means of its own. `vectors` names the encoder and the gate that made them."""

    threshold: float = 0.9
    visits: int = 3
    neighbour_limit: int = 32
    most_rows: int = 65_536
    vectors: str = ""

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold <= 1.0:
            raise RecipeError(f"the semantic threshold is {self.threshold:g}; it must be above 0 and at most 1")
        for name in ("visits", "neighbour_limit", "most_rows"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class DedupConfig:
    """The whole search. `bucket_limit`: up to so many documents that share a band are compared each with each (496
    pairs at 32); larger buckets are crowds, in which a document is compared with at most `leader_limit` leaders.
    `urls`: documents of one URL are looked for too; `semantic`: so are those that mean the same."""

    signature: SignatureConfig = field(default_factory=SignatureConfig)
    threshold: float = 0.8
    bucket_limit: int = 32
    leader_limit: int = 16
    urls: bool = False
    semantic: SemanticConfig | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold <= 1.0:
            raise RecipeError(f"threshold is {self.threshold}; it must be above 0 and at most 1")
        for name, least in (("bucket_limit", 2), ("leader_limit", 1)):
            if getattr(self, name) < least:
                raise RecipeError(f"{name} is {getattr(self, name)}; it must be at least {least}")


def candidate_probability(similarity: float, bands: int, rows: int) -> float:
    """The chance that a pair of that Jaccard similarity shares a band."""
    return float(1.0 - (1.0 - similarity**rows) ** bands)


def choose_bands(threshold: float, num_permutations: int, least_recall: float = LEAST_RECALL) -> tuple[int, int]:
    """(bands, rows): the most rows with which the recall at the threshold is reached, so fewest keys and candidates.

    Raises RecipeError when even rows of one do not reach it.
    """
    for rows in range(min(num_permutations, MOST_ROWS), 0, -1):
        bands = min(num_permutations // rows, MOST_BANDS)
        if candidate_probability(threshold, bands, rows) >= least_recall:
            return bands, rows
    best = candidate_probability(threshold, min(num_permutations, MOST_BANDS), 1)
    raise RecipeError(
        f"{num_permutations} permutations find at most {best:.3f} of the pairs at {threshold}; {least_recall} is asked",
        hint="raise the number of permutations or the threshold",
    )


@lru_cache(maxsize=32)
def choose_bands_by_integral(threshold: float, num_permutations: int) -> tuple[int, int]:
    """(bands, rows) that minimise half the false-positive plus half the false-negative area, as datasketch and CCI4.0.

    Published value: (25, 10) for threshold 0.7 and 256 permutations.
    """
    below = np.linspace(0.0, threshold, _GRID_POINTS)
    above = np.linspace(threshold, 1.0, _GRID_POINTS)
    best, chosen = np.inf, (1, 1)
    for bands in range(1, min(num_permutations, MOST_BANDS) + 1):
        for rows in range(1, min(num_permutations // bands, MOST_ROWS) + 1):
            false_positive = np.trapezoid(1.0 - (1.0 - below**rows) ** bands, below)
            false_negative = np.trapezoid((1.0 - above**rows) ** bands, above)
            area = float(0.5 * false_positive + 0.5 * false_negative)
            if area < best:
                best, chosen = area, (bands, rows)
    return chosen


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What a search is made of; `divide` turns threshold and permutations into bands and rows."""

    unit: Literal["words", "characters"] = "words"
    shingle_size: int = 5
    permutations: int = 112
    threshold: float = 0.8
    divide: Callable[[float, int], tuple[int, int]] = choose_bands


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "default": Preset(),
        # datatrove 0.10.1 names no threshold: (1/14)^(1/8) = 0.72 is where its candidates become likely.
        "datatrove": Preset(threshold=0.72, divide=lambda threshold, permutations: (permutations // 8, 8)),
        # OpenSeek CCI4.0 `minhash_spark.py`: optimal_param(0.7, 250) = (25, 10).
        "cci4": Preset(unit="characters", permutations=250, threshold=0.7, divide=choose_bands_by_integral),
    }
)


def near_duplicates(
    threshold: float | None = None,
    *,
    preset: str = "default",
    unit: Literal["words", "characters"] | None = None,
    shingle_size: int | None = None,
    permutations: int | None = None,
    bands: int | None = None,
    rows: int | None = None,
) -> DedupConfig:
    """A search by a preset, with what is given in place of its own; bands and rows are worked out unless given."""
    given = PRESETS[preset]
    threshold = given.threshold if threshold is None else threshold
    if bands is None or rows is None:
        bands, rows = given.divide(threshold, permutations or given.permutations)
    signature = SignatureConfig(
        unit=unit or given.unit, shingle_size=shingle_size or given.shingle_size, bands=bands, rows=rows
    )
    return DedupConfig(signature=signature, threshold=threshold)
