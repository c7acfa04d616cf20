"""Calibration: from what a distilled model says to what its labels meant, by a function saved in its gristmill.json.

Invariant: the order of a regression's scores is never turned round. `points` bends scores along straight pieces, whose
outermost values stand for all beyond (an isotonic fit has many, a linear one two); `temperature` sharpens or flattens
probabilities without changing which class is the likeliest.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from storage.errors import ModelError

FACTS = "gristmill.json"
FORMAT_VERSION = 1
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """`points`: (raw, calibrated), both ascending, of a regression; `temperature`, of classes."""

    kind: Literal["none", "linear", "isotonic", "temperature"] = "none"
    points: tuple[tuple[float, float], ...] = ()
    temperature: float = 1.0

    def apply(self, scores: Scores) -> Scores:
        """float32 of the same shape: [N] raw values of a regression, or [N, classes] probabilities."""
        if self.kind == "none" or not scores.size:
            return scores
        if self.kind == "temperature":
            logs = np.log(np.clip(scores.astype(np.float64), 1e-30, 1)) / self.temperature
            powers = np.exp(logs - logs.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
        raw, calibrated = np.array(self.points).T
        return np.asarray(np.interp(scores, raw, calibrated), np.float32)


def calibration_file(folder: Path) -> Path | None:
    """The file that a calibration of this model would be in, for its identity; None where there is none."""
    return path if (path := folder / FACTS).is_file() else None


def read_calibration(folder: Path) -> Calibration:
    """The calibration of the model in `folder`; of a model without one, the scores as they are. Raises ModelError."""
    if (path := calibration_file(folder)) is None:
        return Calibration()
    try:
        facts: dict[str, Any] = json.loads(path.read_bytes())
        told = facts["calibration"]
        points = tuple((float(raw), float(calibrated)) for raw, calibrated in told["points"])
        found = Calibration(kind=told["kind"], points=points, temperature=float(told["temperature"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _refuse(path, f"it cannot be read: {error!r}") from error
    if facts.get("format_version") != FORMAT_VERSION:
        raise _refuse(path, f"it is of format {facts.get('format_version')}, this reads {FORMAT_VERSION}")
    raw, calibrated = np.array(points or [(0, 0)]).T
    if (np.diff(raw) < 0).any() or (np.diff(calibrated) < 0).any() or found.temperature <= 0:
        raise _refuse(path, "it would turn the order of scores round")
    if found.kind in ("linear", "isotonic") and len(points) < 2:
        raise _refuse(path, f"a calibration of kind {found.kind} has {len(points)} points")
    return found


def _refuse(path: Path, why: str) -> ModelError:
    return ModelError(f"the model's calibration is unusable: {why}", at=str(path), hint="train the model again")
