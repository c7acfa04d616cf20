"""What is told of a scorer's outputs: a value and its bucket, or the most probable class.

Invariant: buckets come from the value as the model gives it; a calibration's steps, scale and clip change what is told
and no bucket, so they make no ties. A text without anything in it, and one that a gate kept out, has nothing told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from classifiers.encoders.calibration import Calibration
from classifiers.quality.buckets import BucketThresholds, assign_buckets
from storage.errors import InputError

VALUED = (pa.field("value", pa.float32()), pa.field("bucket", pa.int32()))
CLASSED = (pa.field("label", pa.string()), pa.field("score", pa.float32()))
PROBABILITIES = "probabilities"
UNCHANGED = Calibration()
Outputs = npt.NDArray[np.float32]
"""[N, classes], or [N, 1] of a model that gives a number; NaN where there is nothing."""


@dataclass(frozen=True, kw_only=True)
class Telling:
    """How outputs are told. `positive` names classes whose probability, summed, is the value.

    The value is multiplied by `scale` (above 0), then held within `clip`. `probabilities`: those of all classes are
    told beside the label.
    """

    positive: tuple[str, ...] = ()
    scale: float = 1.0
    clip: tuple[float, float] | None = None
    probabilities: bool = False

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise InputError(f"the scale is {self.scale:g}; it must be above 0", hint="a higher value must stay better")
        if self.clip and not self.clip[0] < self.clip[1]:
            raise InputError(f"the clip {self.clip[0]:g}..{self.clip[1]:g} is empty", hint="write `clip=0..5`, say")


def gives_value(labels: Sequence[str], telling: Telling) -> bool:
    """Whether a value is told, and with it a bucket: of a model that gives a number, or of named classes."""
    return not labels or bool(telling.positive)


def check_telling(labels: Sequence[str], telling: Telling) -> None:
    """Raises InputError for a telling that does not go with a model of these classes."""
    if telling.positive and not labels:
        raise InputError("`positive` names a class, and this model gives one number", hint="leave `positive` out")
    if unknown := [name for name in telling.positive if name not in labels]:
        raise InputError(f"the model has no class `{unknown[0]}`", hint=f"it has {', '.join(labels[:30])}")
    valued = gives_value(labels, telling)
    if valued and telling.probabilities:
        raise InputError("`probabilities` are told of classes, and here a value is told", hint="leave one of them out")
    if not valued and (telling.scale != 1 or telling.clip):
        raise InputError(
            "`scale` and `clip` are of a value, and this model sorts into classes",
            hint=f"name the class that counts: `positive={labels[-1]}`",
        )


def told_type(labels: Sequence[str], telling: Telling) -> pa.StructType:
    """The struct that a scorer's column holds."""
    if gives_value(labels, telling):
        return pa.struct(list(VALUED))
    each = [pa.field(PROBABILITIES, pa.struct([pa.field(name, pa.float32()) for name in labels]))]
    return pa.struct([*CLASSED, *(each if telling.probabilities else [])])


def ranked_values(
    outputs: Outputs, labels: Sequence[str], telling: Telling, calibration: Calibration = UNCHANGED
) -> Outputs:
    """float32[N], what buckets rank: the model's own number, or the summed probability of the named classes."""
    if not labels:
        first: Outputs = outputs[:, 0]
        return first
    columns = [list(labels).index(name) for name in telling.positive]
    summed: Outputs = calibration.apply(outputs)[:, columns].sum(axis=1, dtype=np.float32)
    return summed


def tell(
    outputs: Outputs,
    labels: Sequence[str],
    telling: Telling,
    thresholds: BucketThresholds | None = None,
    calibration: Calibration = UNCHANGED,
) -> pa.StructArray:
    """The column of a scorer, row for row; without thresholds there are no buckets."""
    if not gives_value(labels, telling):
        return _tell_class(calibration.apply(outputs), labels, telling)
    values = ranked_values(outputs, labels, telling, calibration)
    return _tell_value(values, values if labels else calibration.apply(values), telling, thresholds)


def _tell_value(
    values: Outputs, calibrated: Outputs, telling: Telling, thresholds: BucketThresholds | None
) -> pa.StructArray:
    unknown = ~np.isfinite(values)
    told: Outputs = calibrated * np.float32(telling.scale)
    if telling.clip:
        low, high = telling.clip
        told = np.clip(told, np.float32(low), np.float32(high))
    buckets = np.zeros(len(values), np.int32)
    if thresholds is not None:
        buckets[~unknown] = assign_buckets(values[~unknown], thresholds)
    columns = [pa.array(told, mask=unknown), pa.array(buckets, mask=unknown | (thresholds is None))]
    return pa.StructArray.from_arrays(columns, fields=list(VALUED))


def _tell_class(outputs: Outputs, labels: Sequence[str], telling: Telling) -> pa.StructArray:
    """The most probable class; none where no class has any probability (fastText knows nothing of the text)."""
    unknown = ~np.isfinite(outputs[:, 0])
    best = np.where(unknown[:, None], 0, outputs).argmax(axis=1)
    score = outputs[np.arange(len(outputs)), best]
    names = pa.array(labels, pa.string()).take(pa.array(best, mask=unknown | (score <= 0)))
    columns = [names, pa.array(score, mask=unknown)]
    fields = list(told_type(labels, telling))
    if telling.probabilities:
        each = [pa.array(outputs[:, i], mask=unknown) for i in range(len(labels))]
        columns.append(pa.StructArray.from_arrays(each, fields=list(fields[-1].type)))
    return pa.StructArray.from_arrays(columns, fields=fields)
