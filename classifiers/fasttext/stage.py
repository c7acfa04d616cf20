"""Stage `fasttext`: what any fastText classifier says of the whole text: toxicity, quality, domain, by a model's path.

Invariant: one row a document, from its own text alone, line breaks read as spaces; the labels are the model's own
without `__label__`. A text in which the model knows nothing has no label and score 0. A folder that was trained here
brings its own preparation (Chinese words, stop words) and its positive label with it.
Trade-off: the text is read whole, at the speed of the model (lid.176, 16 dimensions: 50 to 60 MB/s a core).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from classifiers.fasttext.file import read_classifier
from classifiers.fasttext.folder import find_fasttext
from classifiers.fasttext.model import FastTextClassifier
from storage.errors import InputError
from storage.stage import BatchFunction, Stage

LABELLED = pa.schema([pa.field("label", pa.string()), pa.field("score", pa.float32(), nullable=False)])
POSITIVE = pa.field("positive_score", pa.float32(), nullable=False)
"""Beside LABELLED where a positive label is named, and only there: a rule on it is refused without one."""
_PREFIX = "__label__"


@dataclass(frozen=True, kw_only=True)
class FastTextConfig:
    """`model` is a file or a folder; `positive` a label whose probability every document gets, as `positive_score`, by
    default the folder's own; `name` is the stage's."""

    model: str
    name: str = "fasttext"
    positive: str | None = None


class FastTextMeasurer:
    """The function of the stage, with its open model."""

    def __init__(self, config: FastTextConfig) -> None:
        found = find_fasttext(Path(config.model))
        self._prepare = found.open_preparation()
        self._model = FastTextClassifier.open(found.weights)
        self._names = [label.removeprefix(_PREFIX) for label in self._model.labels]
        self._positive = self._names.index(config.positive) if config.positive is not None else None

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        best = 1 if self._positive is None else len(self._names)
        labels, scores = self._model.predict(self._prepare(batch.column("text")), best=best)
        first = [self._names[place] if place >= 0 else None for place in labels[:, 0].tolist()]
        batch = pa.record_batch([pa.array(first, pa.string()), pa.array(scores[:, 0])], schema=LABELLED)
        return batch if self._positive is None else batch.append_column(POSITIVE, self._positive_scores(labels, scores))

    def _positive_scores(self, labels: np.ndarray, scores: np.ndarray) -> pa.Array:
        return pa.array(np.where(labels == self._positive, scores, np.float32(0)).sum(axis=1, dtype=np.float32))


def _open(config: FastTextConfig, _: FastTextConfig) -> BatchFunction:
    return FastTextMeasurer(config)


def fasttext_stage(config: FastTextConfig) -> Stage:
    """A stage of the config's name: reads `text`; writes LABELLED, and POSITIVE where a label is named so.

    The model counts by its content.
    """
    found = find_fasttext(Path(config.model))
    labels = [label.removeprefix(_PREFIX) for label in read_classifier(found.weights).labels]
    config = config if config.positive is not None else replace(config, positive=found.positive)
    if config.positive is not None and config.positive not in labels:
        raise InputError(
            f"the model has no label `{config.positive}`", at=config.model, hint=f"it has {', '.join(labels[:20])}"
        )
    return Stage(
        name=config.name,
        version=2,
        kind="measure",
        config=replace(config, model=""),
        reads=("text",),
        writes=LABELLED if config.positive is None else LABELLED.append(POSITIVE),
        make=functools.partial(_open, config),
        files=found.files,
    )
