"""Bits per byte of any texts: files that no mixture holds out, read, encoded and scored like held-out sources.

Each document is followed by end-of-document, which is scored too; bytes are the texts' own UTF-8 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from storage.errors import InputError
from trainer.checkpoints.trained import Trained
from trainer.data.batches import Int64s
from trainer.evaluation.held_out import score_documents
from trainer.evaluation.rows import read_texts
from trainer.parallel.world import World
from trainer.serving.generate import open_tokenizer


@dataclass(frozen=True, kw_only=True)
class TextScore:
    """`loss` in nats a token; documents, tokens (end-of-document among them) and UTF-8 bytes scored."""

    bits_per_byte: float
    loss: float
    documents: int
    tokens: int
    bytes: int


def score_texts(trained: Trained, path: Path, world: World) -> TextScore:
    """The figures of one file. Raises InputError for one without text."""
    tokenizer, end = open_tokenizer(trained.tokenizer_file), trained.vocabulary.end_of_document
    counts = {"documents": 0, "tokens": 0, "bytes": 0}

    def documents() -> Iterator[Int64s]:
        for text in read_texts(path):
            ids = np.array([*tokenizer.encode(text, add_special_tokens=False).ids, end], dtype=np.int64)
            counts["documents"] += 1
            counts["tokens"] += len(ids)
            counts["bytes"] += len(text.encode())
            yield ids

    nats = score_documents(trained.model, documents(), end, trained.training, world)
    if not counts["bytes"]:
        raise InputError("there is no text in this file", at=str(path))
    return TextScore(bits_per_byte=nats / math.log(2) / counts["bytes"], loss=nats / counts["tokens"], **counts)
