"""Calibration and figures, against brute force and by their own properties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers.distillation.calibrating import calibrate_classes, calibrate_grades
from classifiers.distillation.figures import by_language, measure_classes, measure_grades, quadratic_weighted_kappa
from classifiers.encoders.calibration import Calibration

SCALE = (0.0, 5.0)
PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=40)


def plain_kappa(pairs: list[tuple[int, int]]) -> float | None:
    observed = sum((a - b) ** 2 for a, b in pairs) / len(pairs)
    chance = sum((a - b) ** 2 for (a, _), (_, b) in itertools.product(pairs, pairs)) / len(pairs) ** 2
    return 1 - observed / chance if chance else None


@given(PAIRS)
def test_kappa_is_that_of_its_definition(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, np.int64).T
    expected, found = plain_kappa(pairs), quadratic_weighted_kappa(a, b)
    assert found == expected or (expected is not None and found == pytest.approx(expected, abs=1e-5))


def test_grades_are_rounded_cut_and_counted() -> None:
    grades, scores = np.array([0, 2, 3, 5.0]), np.array([0.4, 2.5, 2.9, 4.4])
    found = measure_grades(scores, grades, threshold=3.0, scale=SCALE)
    assert found["mean_absolute_error"] == pytest.approx(0.4) and found["rank_correlation"] == 1
    assert found["confusion"][2][3] == 1 and found["confusion"][5][4] == 1 and np.sum(found["confusion"]) == 4
    assert found["at_threshold"]["precision"] == 1 and found["at_threshold"]["recall"] == 0.5
    assert found["at_threshold"]["threshold"] == 3.0


def test_classes_are_counted_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1, 0], [0.6, 0.4, 0], [0.2, 0.8, 0], [0.7, 0.2, 0.1]])
    found = measure_classes(probabilities, np.array([0, 1, 1, 0]), ("a", "b", "c"))
    assert found["accuracy"] == 0.75 and found["confusion"] == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert found["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2, abs=1e-6), "a class that never occurs does not count"
    assert found["classes"]["c"]["precision"] is None


def test_languages_are_told_apart() -> None:
    assert by_language(["fr", None, "fr"], len) == {"fr": 2, "unknown": 1}


def spread(num: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    grades = draw.integers(0, 6, num).astype(np.float64)
    return grades**2 / 10 + draw.normal(0, 0.05, num), grades


@pytest.mark.parametrize(("num", "kind", "error"), [(2000, "isotonic", 0.1), (200, "linear", 0.6)])
def test_calibration_brings_scores_to_grades_and_keeps_their_order(num: int, kind: str, error: float) -> None:
    scores, grades = spread(num)
    found = calibrate_grades(scores, grades, SCALE)
    after = found.apply(scores.astype(np.float32))
    assert found.kind == kind and np.abs(after - grades).mean() < error < np.abs(scores - grades).mean()
    assert (np.diff(after[np.argsort(scores)]) >= -1e-6).all() and 0 <= after.min() and after.max() <= 5


def test_an_isotonic_fit_is_the_best_monotone_one() -> None:
    """Against all monotone step functions on few points: pool adjacent violators leaves no better one."""
    scores, grades = np.arange(4.0), np.array([1.0, 0.0, 3.0, 2.0])
    from classifiers.distillation.calibrating import _isotonic

    fit = np.interp(scores, *np.array(_isotonic(scores, grades)).T)
    assert fit.tolist() == [0.5, 0.5, 2.5, 2.5]


def test_noise_never_turns_the_order_round() -> None:
    scores, grades = spread(200)
    found = calibrate_grades(scores, grades[::-1] * 0 + np.linspace(5, 0, 200)[np.argsort(np.argsort(scores))], SCALE)
    after = found.apply(scores.astype(np.float32))
    assert (np.diff(after[np.argsort(scores)]) >= 0).all()


def test_a_constant_model_is_left_as_it_is() -> None:
    assert calibrate_grades(np.ones(9), np.arange(9.0) / 2, SCALE) == Calibration()


def test_a_temperature_tempers_and_keeps_the_likeliest() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 500)
    right = draw.random(500) < 0.7
    sure = np.where((labels == 1) == right, 0.99, 0.01)
    probabilities = np.column_stack([1 - sure, sure])
    found = calibrate_classes(probabilities, labels)
    after = found.apply(probabilities.astype(np.float32))
    assert found.temperature > 2 and after.max() == pytest.approx(0.7, abs=0.05)
    assert (after.argmax(1) == probabilities.argmax(1)).all() and np.allclose(after.sum(1), 1)
