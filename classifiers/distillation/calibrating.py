"""Fitting a calibration on validation texts: isotonic where there are many, linear where there are few.

An isotonic fit (pool adjacent violators) follows any monotone bend, but learns noise from few texts: below 1,000 of
them a line is fitted, of slope 0.01 at least, so that the order of scores stays. Probabilities get a temperature
(Guo et al., 1706.04599), found on a grid of 1 %.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from classifiers.encoders.calibration import Calibration

Floats = npt.NDArray[np.float64]
ISOTONIC_FROM = 1_000
_LEAST_SLOPE = 0.01
_TEMPERATURES = np.exp(np.arange(-150, 231) / 100)


def calibrate_grades(scores: Floats, grades: Floats, scale: tuple[float, float]) -> Calibration:
    """From raw values of a regression to grades, kept within the scale."""
    if len(scores) < 2 or np.ptp(scores) == 0:
        return Calibration()
    if len(scores) >= ISOTONIC_FROM:
        return Calibration(kind="isotonic", points=_isotonic(scores, grades))
    centred = scores - scores.mean()
    slope = max(float((centred * (grades - grades.mean())).sum() / (centred**2).sum()), _LEAST_SLOPE)
    raw = tuple(float(scores.mean() + (end - grades.mean()) / slope) for end in scale)
    return Calibration(kind="linear", points=((raw[0], scale[0]), (raw[1], scale[1])))


def calibrate_classes(probabilities: Floats, labels: npt.NDArray[np.int64]) -> Calibration:
    """The temperature of least cross-entropy."""
    if not len(labels):
        return Calibration()
    logs = np.log(np.clip(probabilities, 1e-30, 1))
    losses = [_cross_entropy(logs / temperature, labels) for temperature in _TEMPERATURES]
    return Calibration(kind="temperature", temperature=float(_TEMPERATURES[int(np.argmin(losses))]))


def _cross_entropy(logits: Floats, labels: npt.NDArray[np.int64]) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]).mean())


def _isotonic(scores: Floats, grades: Floats) -> tuple[tuple[float, float], ...]:
    """The ends of the blocks of the least-squares monotone fit; equal scores are one, with their mean grade."""
    distinct, which, counts = np.unique(scores, return_inverse=True, return_counts=True)
    means = np.bincount(which, grades) / counts
    blocks: list[tuple[float, int, float, float]] = []
    for raw, mean, count in zip(distinct.tolist(), means.tolist(), counts.tolist(), strict=True):
        first = raw
        while blocks and blocks[-1][0] >= mean:
            before = blocks.pop()
            mean = (mean * count + before[0] * before[1]) / (count + before[1])
            count, first = count + before[1], before[2]
        blocks.append((mean, count, first, raw))
    points = [(end, mean) for mean, _, first, last in blocks for end in ((first,) if first == last else (first, last))]
    return tuple(points)
