"""How well a distilled classifier says what its labels say, on examples whose groups it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from classifiers.quality.metrics import measure_scores, rank_correlation

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
_AT_THRESHOLD = ("threshold", "positives", "auc", "accuracy", "precision", "recall", "f1", "confusion")


def measure_grades(scores: Floats, grades: Floats, *, threshold: float, scale: tuple[float, float]) -> dict[str, Any]:
    """Agreement of scores with grades: rank correlation (Spearman), quadratic-weighted kappa of whole grades, mean
    absolute error, the confusion matrix of whole grades (rows: label), and both cut at a threshold."""
    lowest, highest = scale
    width = highest - lowest
    cut = measure_scores((scores - lowest) / width, (grades - lowest) / width, (threshold - lowest) / width)
    said, meant = (_whole(values, scale) for values in (scores, grades))
    return {
        "examples": len(grades),
        "rank_correlation": rank_correlation(scores, grades),
        "quadratic_weighted_kappa": quadratic_weighted_kappa(said, meant),
        "mean_absolute_error": _rounded(np.abs(scores - grades).mean()),
        "at_threshold": {name: cut[name] for name in _AT_THRESHOLD} | {"threshold": threshold},
        "confusion": _matrix(said, meant, int(np.floor(width)) + 1),
    }


def measure_classes(probabilities: npt.NDArray[np.floating], labels: Integers, names: Sequence[str]) -> dict[str, Any]:
    """Accuracy, macro-F1 over the classes that occur, each class's figures, and the confusion matrix (rows: label)."""
    said = probabilities.argmax(axis=1)
    matrix = np.array(_matrix(said, labels, len(names)))
    right, meant, guessed = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    f1 = 2 * right / np.maximum(meant + guessed, 1)
    return {
        "examples": len(labels),
        "accuracy": _rounded(right.sum() / max(len(labels), 1)),
        "macro_f1": _rounded(f1[meant + guessed > 0].mean()),
        "log_loss": _rounded(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1)).mean()),
        "classes": {
            name: {
                "examples": int(meant[i]),
                "precision": _rounded(right[i] / guessed[i]) if guessed[i] else None,
                "recall": _rounded(right[i] / meant[i]) if meant[i] else None,
                "f1": _rounded(f1[i]),
            }
            for i, name in enumerate(names)
        },
        "confusion": matrix.tolist(),
    }


def by_language(languages: Sequence[str | None], measure: Any) -> dict[str, Any]:
    """`measure(rows)` of the rows of each language; "unknown" for those without one."""
    codes = np.array([language or "unknown" for language in languages])
    return {code: measure(np.flatnonzero(codes == code)) for code in sorted(set(codes.tolist()))}


def quadratic_weighted_kappa(a: Integers, b: Integers) -> float | None:
    """Cohen's kappa with squared distances as weights; None where chance alone would agree fully."""
    distances = ((a - b) ** 2).mean()
    expected = ((a[:, None] - np.unique(b)) ** 2 * (np.unique(b, return_counts=True)[1] / len(b))).sum(axis=1).mean()
    return _rounded(1 - distances / expected) if expected else None


def _whole(values: Floats, scale: tuple[float, float]) -> Integers:
    """Whole grades, counted from the lowest; halves go up."""
    return np.floor(np.clip(values, *scale) - scale[0] + 0.5).astype(np.int64)


def _matrix(said: Integers, meant: Integers, size: int) -> list[list[int]]:
    counts = np.zeros((size, size), np.int64)
    np.add.at(counts, (meant, said), 1)
    return [[int(count) for count in row] for row in counts]


def _rounded(value: float) -> float:
    return round(float(value), 6)
