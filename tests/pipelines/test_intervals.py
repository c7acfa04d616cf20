"""Intervals over seeds, against scipy's own and closed forms."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from pipelines.intervals import Interval, difference_of, interval_of, t_quantile


@pytest.mark.parametrize("values", [[2.0, 2.5], [1.91, 1.87, 1.95], [3.0, 3.1, 2.7, 3.4, 2.2]])
def test_an_interval_is_scipys(values: list[float]) -> None:
    found = interval_of(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=found.mean, scale=stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_two_values_have_the_closed_form() -> None:
    """With one degree of freedom t is Cauchy's: its quantile is the tangent of π (p - 1/2)."""
    assert t_quantile(1, 0.975) == pytest.approx(math.tan(math.pi * 0.475))
    found = interval_of([1.0, 3.0])
    assert found.half == pytest.approx(math.tan(math.pi * 0.475) * 1.0)


def test_one_value_has_no_interval_and_none_is_an_error() -> None:
    assert interval_of([2.0]) == Interval(mean=2.0, low=None, high=None, count=1)
    assert interval_of([2.0]).touches(interval_of([2.0, 2.1])) is None
    with pytest.raises(ValueError, match="nothing"):
        interval_of([])


def test_a_difference_is_taken_seed_by_seed() -> None:
    """What a seed does to both is no part of it: ten times the spread between seeds, and still an exact difference."""
    baseline = {1: 2.0, 2: 3.0, 3: 4.0}
    found = difference_of({1: 1.9, 2: 2.9, 3: 3.9, 4: 9.0}, baseline)
    assert found.mean == pytest.approx(-0.1) and found.half == pytest.approx(0, abs=1e-12) and found.count == 3
    paired = stats.ttest_rel([1.9, 2.7, 3.9], [2.0, 3.0, 4.0]).confidence_interval(0.95)
    found = difference_of({1: 1.9, 2: 2.7, 3: 3.9}, baseline)
    assert (found.low, found.high) == (pytest.approx(paired.low), pytest.approx(paired.high))


def test_intervals_touch_where_they_share_a_value() -> None:
    narrow, apart = interval_of([2.0, 2.01, 2.02]), interval_of([2.2, 2.21, 2.22])
    assert not narrow.touches(apart) and narrow.touches(interval_of([1.9, 2.0, 2.1]))
