"""Intervals over seeds: Student's t for a mean, and for the mean of differences between runs of one seed.

Invariant: nothing here rounds, and a mean of one value has no interval rather than one of width 0. Trade-off: three
seeds stand for the spread of all, so an interval is 4.3 standard errors to each side, honest and wide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean of `count` values and the interval that holds the true one with CONFIDENCE; None for one value."""

    mean: float
    low: float | None
    high: float | None
    count: int

    @property
    def half(self) -> float | None:
        """Half the interval's width."""
        return None if self.high is None else self.high - self.mean

    def touches(self, other: Interval) -> bool | None:
        """Whether two intervals share a value; None where one of them is none."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return None
        return self.low <= other.high and other.low <= self.high

    def to_json(self) -> dict[str, Any]:
        return {"mean": self.mean, "low": self.low, "high": self.high, "count": self.count}


def interval_of(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The mean of one value a seed and its t-interval. Raises ValueError without any value."""
    if not values:
        raise ValueError("a mean of nothing")
    mean, count = fmean(values), len(values)
    if count == 1:
        return Interval(mean=mean, low=None, high=None, count=1)
    half = t_quantile(count - 1, (1 + confidence) / 2) * stdev(values) / math.sqrt(count)
    return Interval(mean=mean, low=mean - half, high=mean + half, count=count)


def difference_of(values: Mapping[int, float], baseline: Mapping[int, float]) -> Interval:
    """The mean difference to a baseline over the seeds that both have, with its t-interval: what seeds share is gone.

    Raises ValueError where they have no seed in common.
    """
    return interval_of([values[seed] - baseline[seed] for seed in sorted(values.keys() & baseline.keys())])


def t_quantile(degrees: int, share: float) -> float:
    """Student's t below which `share` of the values lie."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, share))
