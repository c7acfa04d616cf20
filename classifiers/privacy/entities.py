"""Stage `entities`: names of persons, places and organisations, by a token classifier that the user names.

Invariant: a document's entities depend on its own text alone: its windows are one padded batch, never mixed with
another document's. Weights are safetensors, and a model that brings code of its own is refused. Only the first
`max_chars` characters are read, and `is_complete` says where that was not all.
Trade-off: a transformer of the base size reads a few KB a second on a core, a hundred thousand times less than the scan
for everything else, so nothing is loaded or run unless a model is named.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from classifiers.encoders.models import find_model
from classifiers.privacy.kinds import ENTITIES, PRIVACY, Span
from classifiers.privacy.stage import list_spans
from storage.errors import ModelError
from storage.stage import BatchFunction, Stage

ENTITY_COLUMNS = pa.schema(
    [pa.field(kind, pa.int32(), nullable=False) for kind in ENTITIES]
    + [pa.field("is_complete", pa.bool_(), nullable=False), PRIVACY.field("spans")]
)
_KIND_OF = {
    "PER": "person", "PERSON": "person", "NAME": "person", "PRIVATE_PERSON": "person", "FIRSTNAME": "person",
    "LASTNAME": "person", "GIVENNAME": "person", "SURNAME": "person", "LOC": "address", "LOCATION": "address",
    "GPE": "address", "ADDRESS": "address", "STREET": "address", "CITY": "address", "FAC": "address",
    "PRIVATE_ADDRESS": "address", "ORG": "organisation", "ORGANIZATION": "organisation", "COMPANY": "organisation",
}  # fmt: skip
"""What the labels of common models mean, without their B- and I-."""
_DEFAULT_TOKENS = 512


@dataclass(frozen=True, kw_only=True)
class EntityConfig:
    """`least_score` is the probability from which a token counts; windows overlap by `overlap` tokens and are read
    `batch_windows` at a time; characters after `max_chars` are not read."""

    least_score: float = 0.5
    overlap: int = 32
    batch_windows: int = 8
    max_chars: int = 200_000


class EntityFinder:
    """A token classifier, opened once a worker; `find` gives the spans of one text."""

    def __init__(self, model: str, config: EntityConfig) -> None:
        from transformers import AutoModelForTokenClassification, AutoTokenizer

        self._config, found = config, find_model(model)
        self._width = min(found.max_tokens or _DEFAULT_TOKENS, _DEFAULT_TOKENS)
        options = {"local_files_only": True, "trust_remote_code": False}
        self._tokenizer: Any = AutoTokenizer.from_pretrained(found.folder, **options)
        if not self._tokenizer.is_fast:
            raise ModelError("the tokenizer gives no character offsets", at=model, hint="give one with tokenizer.json")
        loaded = AutoModelForTokenClassification.from_pretrained(found.folder, use_safetensors=True, **options)
        self._model: Any = loaded.float().eval()
        self._kinds = [kind_of(name) for _, name in sorted(self._model.config.id2label.items())]
        if not any(self._kinds):
            raise ModelError(
                f"none of the model's labels is a person, place or organisation: {self._model.config.id2label}",
                at=model,
                hint="choose a model for named entities",
            )

    def find(self, text: str) -> list[Span]:
        """Spans in characters, by place; of two that overlap the longer stays."""
        found = [span for window in self._windows(text[: self._config.max_chars]) for span in _join(*window)]
        kept: list[Span] = []
        for span in sorted(found, key=lambda span: (span.start, -span.end)):
            if not kept or span.start >= kept[-1].end:
                kept.append(span)
        return kept

    def find_bytes(self, text: str) -> list[Span]:
        """The same in bytes of the text's UTF-8."""
        spans = self.find(text) if text.strip() else []
        if text.isascii():
            return spans
        starts = [len(text[: span.start].encode()) for span in spans]
        sizes = [len(text[span.start : span.end].encode()) for span in spans]
        return [Span(span.kind, first, first + size) for span, first, size in zip(spans, starts, sizes, strict=True)]

    def _windows(self, text: str) -> Iterator[tuple[list[str | None], list[tuple[int, int]]]]:
        """For each window its tokens' kinds, and their characters."""
        import torch

        inputs = self._tokenizer(
            text, truncation=True, max_length=self._width, stride=min(self._config.overlap, self._width // 4),
            return_overflowing_tokens=True, return_offsets_mapping=True, padding=True, return_tensors="pt",
        )  # fmt: skip
        offsets, _ = inputs.pop("offset_mapping").tolist(), inputs.pop("overflow_to_sample_mapping")
        for start in range(0, len(offsets), self._config.batch_windows):
            rows = slice(start, start + self._config.batch_windows)
            with torch.inference_mode():
                logits = self._model(**{name: values[rows] for name, values in inputs.items()}).logits
            scores, labels = logits.softmax(-1).max(-1)
            for places, window, chosen in zip(offsets[rows], scores.tolist(), labels.tolist(), strict=True):
                yield [self._kind(label, score) for label, score in zip(chosen, window, strict=True)], places

    def _kind(self, label: int, score: float) -> str | None:
        return self._kinds[label] if score >= self._config.least_score else None


def kind_of(label: str) -> str | None:
    """The kind that a model's label stands for: `B-PER` is a person, `O` is nothing."""
    name = label.upper().removeprefix("LABEL_")
    return _KIND_OF.get(name[2:] if name[:2] in ("B-", "I-", "E-", "S-", "L-", "U-") else name)


def _join(kinds: list[str | None], places: list[tuple[int, int]]) -> Iterator[Span]:
    """Neighbouring tokens of one kind as one span; special tokens cover no character."""
    current: Span | None = None
    for kind, (start, end) in zip(kinds, places, strict=True):
        if start == end:
            continue
        if current and kind == current.kind and start - current.end <= 1:
            current = Span(current.kind, current.start, end)
            continue
        if current:
            yield current
        current = Span(kind, start, end) if kind else None
    if current:
        yield current


def measure_entities(finder: EntityFinder, config: EntityConfig, batch: pa.RecordBatch) -> pa.RecordBatch:
    """ENTITY_COLUMNS of a batch with `text`."""
    texts = [text or "" for text in batch.column("text").to_pylist()]
    spans = [finder.find_bytes(text) for text in texts]
    counts = [[sum(span.kind == kind for span in row) for row in spans] for kind in ENTITIES]
    is_complete = [len(text) <= config.max_chars for text in texts]
    listed = list_spans([span for row in spans for span in row], np.array([len(row) for row in spans], np.int32))
    columns = [*(pa.array(column, pa.int32()) for column in counts), pa.array(is_complete, pa.bool_()), listed]
    return pa.record_batch(columns, schema=ENTITY_COLUMNS)


def _open(model: str, config: EntityConfig) -> BatchFunction:
    return functools.partial(measure_entities, EntityFinder(model, config), config)


def entities_stage(model: str, config: EntityConfig = EntityConfig()) -> Stage:
    """Stage `entities`: reads `text`; writes ENTITY_COLUMNS. The model counts by its files, not by its path.

    Raises ModelError where there is no model, or where it is unsafe to load.
    """
    return Stage(
        name="entities",
        version=1,
        kind="measure",
        config=config,
        reads=("text",),
        writes=ENTITY_COLUMNS,
        make=functools.partial(_open, model),
        packages=("torch", "transformers", "tokenizers"),
        files=tuple(str(path) for path in find_model(model).paths),
    )
