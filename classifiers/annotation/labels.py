"""Labels and errors as tables: a row a rating with all that says how it came about, a row a document without one.

Invariant: a document has at most one label under one identity, and none of its text is in either table; texts stay with
the documents. A label names rubric, wording, model, seed and temperature, so that a table is understood alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from classifiers.annotation.asking import Answer
from classifiers.annotation.rating import Rating
from classifiers.annotation.rubric import Rubric
from classifiers.llm.asking import Failed, Sampling
from storage.identity import fingerprint
from storage.schema import IDENTIFIER, encode

VERSION = 1
KIND = "annotations"
LABELS = pa.schema(
    [
        pa.field("doc_id", IDENTIFIER, nullable=False),
        pa.field("content_hash", IDENTIFIER, nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("argmax", pa.int8(), nullable=False),
        pa.field("said", pa.int8(), nullable=False),
        pa.field("probabilities", pa.list_(pa.float64())),
        pa.field("mass", pa.float64()),
        pa.field("rubric", pa.string(), nullable=False),
        pa.field("prompt_version", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("temperature", pa.float64(), nullable=False),
        pa.field("characters", pa.int32(), nullable=False),
        pa.field("prompt_tokens", pa.int32(), nullable=False),
        pa.field("completion_tokens", pa.int32(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
    ]
)
ERRORS = pa.schema(
    [
        pa.field("doc_id", IDENTIFIER, nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("said", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Who rates, by what, and how: all that a label's identity is made of."""

    rubric: Rubric
    model: str
    model_identity: str
    sampling: Sampling

    def identity(self) -> str:
        """The model's weights count where they are known, its name where a server serves it; where it runs does not."""
        made_of = [self.rubric.name, self.rubric.version(), self.model_identity, self.sampling]
        return fingerprint({"annotation": VERSION, "origin": made_of})


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The document behind a question."""

    doc_id: bytes
    content_hash: bytes


def label_rows(asked: Sequence[Asked], answers: Sequence[Answer], origin: Origin) -> pa.Table:
    """LABELS of the answers that are ratings, in the order of their doc_ids; `answer.key` is a place in `asked`."""
    found = [(asked[answer.key], answer, answer.outcome) for answer in answers if isinstance(answer.outcome, Rating)]
    rows = [
        {
            "doc_id": document.doc_id,
            "content_hash": document.content_hash,
            "score": rating.score,
            "argmax": rating.argmax,
            "said": rating.said,
            "probabilities": rating.probabilities,
            "mass": rating.mass,
            "rubric": origin.rubric.name,
            "prompt_version": origin.rubric.version(),
            "model": origin.model,
            "seed": origin.sampling.seed,
            "temperature": origin.sampling.temperature,
            "characters": answer.characters,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "attempts": answer.attempts,
        }
        for document, answer, rating in sorted(found, key=lambda row: row[0].doc_id)
    ]
    return pa.Table.from_pylist(rows, schema=LABELS)


def error_rows(asked: Sequence[Asked], answers: Sequence[Answer]) -> pa.Table:
    """ERRORS of the answers that are none, in the order of their doc_ids."""
    rows: list[dict[str, Any]] = [
        {
            "doc_id": asked[answer.key].doc_id,
            "reason": answer.outcome.reason,
            "attempts": answer.attempts,
            "said": encode(answer.outcome.said).decode(),
        }
        for answer in answers
        if isinstance(answer.outcome, Failed)
    ]
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["doc_id"]), schema=ERRORS)
