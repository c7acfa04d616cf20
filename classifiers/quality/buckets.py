"""Scores to buckets 0-19: thresholds at 5, 10, …, 95 % of a sample's bytes, as Nemotron-CC cuts its scores.

A threshold is the inverted empirical CDF: the smallest score at or below which lie at least k/20 of the UTF-8 bytes.
A document's bucket is the number of thresholds that are not above its score (`numpy.digitize`), so equal scores share
a bucket, and where many are equal the buckets under them stay empty rather than being filled by chance. The sums are
integers: order and machine cannot move a threshold.

Which documents are the sample decides what a bucket means. They are those that buckets are to rank (the web, where the
head learned from an encyclopedia): a sample with the encyclopedia in it would push the web down as the encyclopedia
grows, and `bucket >= 1` would drop more of the web than its worst twentieth.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from storage.commit import write_atomically
from storage.errors import DatasetError, InputError
from storage.identity import fingerprint

NUM_BUCKETS = 20
_FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class BucketThresholds:
    """A fitted artifact: 19 rising scores, and the sample that they came from."""

    values: tuple[float, ...]
    sample_documents: int
    sample_bytes: int

    @property
    def identity(self) -> str:
        return fingerprint({"values": self.values, "buckets": NUM_BUCKETS, "format_version": _FORMAT_VERSION})


def fit_buckets(scores: npt.ArrayLike, num_bytes: npt.ArrayLike) -> BucketThresholds:
    """Thresholds from a sample's scores (NaN: not scored, left out) and UTF-8 lengths; InputError if it is empty."""
    score_N = np.asarray(scores, np.float64)
    bytes_N = np.asarray(num_bytes, np.int64)
    used = ~np.isnan(score_N) & (bytes_N > 0)
    total = int(bytes_N[used].sum())
    if total == 0:
        raise InputError(
            f"no bucket thresholds from {len(score_N)} documents: none of them has both a score and text",
            hint="score some documents first",
        )
    distinct, group = np.unique(score_N[used], return_inverse=True)
    reached = np.cumsum(_sum_by_group(bytes_N[used], group, len(distinct))).tolist()
    # Python's integers, because 20 x the bytes of a large sample passes 2^63.
    wanted = [-(-total * k // NUM_BUCKETS) for k in range(1, NUM_BUCKETS)]
    values = tuple(float(distinct[i]) for i in np.searchsorted(reached, wanted))
    return BucketThresholds(values=values, sample_documents=int(used.sum()), sample_bytes=total)


def assign_buckets(scores: npt.ArrayLike, thresholds: BucketThresholds) -> npt.NDArray[np.int8]:
    """int8[N] in 0-19, 19 the best; scores must not be NaN."""
    return np.digitize(np.asarray(scores, np.float64), thresholds.values).astype(np.int8)


def share_buckets(scores: npt.ArrayLike, num_bytes: npt.ArrayLike, thresholds: BucketThresholds) -> list[float]:
    """The share of the scored bytes in each bucket; a twentieth each in the thresholds' own sample, but for ties."""
    score_N = np.asarray(scores, np.float64)
    used = ~np.isnan(score_N)
    sums = _sum_by_group(
        np.asarray(num_bytes, np.int64)[used], assign_buckets(score_N[used], thresholds).astype(np.intp), NUM_BUCKETS
    )
    total = max(1, int(sums.sum()))
    return [int(size) / total for size in sums]


def write_thresholds(path: Path, thresholds: BucketThresholds) -> None:
    """Save them as JSON, atomically."""
    values = {
        "format_version": _FORMAT_VERSION,
        "identity": thresholds.identity,
        "percent": [100 * k // NUM_BUCKETS for k in range(1, NUM_BUCKETS)],
        "thresholds": thresholds.values,
        "sample_documents": thresholds.sample_documents,
        "sample_bytes": thresholds.sample_bytes,
    }
    write_atomically(path, (json.dumps(values, indent=1) + "\n").encode())


def read_thresholds(path: Path) -> BucketThresholds:
    """Load them; raises DatasetError for a file that is missing, altered or of another version."""
    try:
        saved = json.loads(path.read_bytes())
        version = saved["format_version"]
        found = BucketThresholds(
            values=tuple(float(value) for value in saved["thresholds"]),
            sample_documents=int(saved["sample_documents"]),
            sample_bytes=int(saved["sample_bytes"]),
        )
        identity = saved["identity"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unusable(path, f"the bucket thresholds cannot be read: {error!r}") from error
    if version != _FORMAT_VERSION:
        raise _unusable(path, f"the bucket thresholds are of format {version}, this Gristmill reads {_FORMAT_VERSION}")
    if len(found.values) != NUM_BUCKETS - 1 or not all(math.isfinite(value) for value in found.values):
        raise _unusable(
            path, f"there must be {NUM_BUCKETS - 1} finite thresholds, here are {len(found.values)} numbers"
        )
    if list(found.values) != sorted(found.values) or found.identity != identity:
        raise _unusable(path, "the bucket thresholds were altered")
    return found


def _sum_by_group(values: npt.NDArray[np.int64], group: npt.NDArray[np.intp], size: int) -> npt.NDArray[np.int64]:
    sums = np.zeros(size, np.int64)
    np.add.at(sums, group, values)
    return sums


def _unusable(path: Path, what: str) -> DatasetError:
    return DatasetError(what, at=str(path), hint="remove the file and run the scoring again")
