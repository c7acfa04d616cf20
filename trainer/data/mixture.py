"""The mixture folder: which shards to train on and with which weights, which texts are held out, which vocabulary.

This is all that the trainer knows of the data side (`blend.json`, `vocabulary.json`, `tokenizer.json`, shards).
Everything is checked before the first step: a missing shard costs seconds here and hours later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from storage.errors import DatasetError
from storage.identity import hash_file
from storage.megatron import IndexedReader, bin_path, idx_path

BLEND_FILE = "blend.json"
VOCABULARY_FILE = "vocabulary.json"
TOKENIZER_FILE = "tokenizer.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What a model must know of a tokenizer: ids below `size`, embedding rows `padded_size`, the end-of-document id."""

    size: int
    padded_size: int
    end_of_document: int
    dtype: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class TrainShard:
    """A Megatron prefix and its weight in the blend (relative)."""

    weight: float
    prefix: Path
    source: str


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A source's held-out text: its shards and the UTF-8 bytes that they stand for."""

    prefixes: tuple[Path, ...]
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Mixture:
    folder: Path
    identity: str
    train: tuple[TrainShard, ...]
    heldout: Mapping[str, HeldOut]
    vocabulary: Vocabulary
    packed_length: int | None = None
    """Tokens of every training sequence, where documents were packed into sequences of one length."""

    @cached_property
    def readers(self) -> tuple[IndexedReader, ...]:
        """The training shards in the order of the blend."""
        return tuple(self._open(shard.prefix) for shard in self.train)

    def heldout_readers(self, source: str) -> tuple[IndexedReader, ...]:
        return tuple(self._open(prefix) for prefix in self.heldout[source].prefixes)

    @property
    def train_tokens(self) -> int:
        """Tokens of one pass, as the shards have them."""
        return sum(reader.num_tokens for reader in self.readers)

    def _open(self, prefix: Path) -> IndexedReader:
        reader = IndexedReader(prefix)
        if reader.dtype.name != self.vocabulary.dtype:
            raise DatasetError(
                f"the shard holds {reader.dtype.name} ids, `{VOCABULARY_FILE}` says {self.vocabulary.dtype}",
                at=str(prefix),
                hint="the shards and the vocabulary come from different runs; make the mixture again",
            )
        return reader


def open_mixture(folder: Path) -> Mixture:
    """Read and check a mixture folder. Raises DatasetError that names every fault at once."""
    blend = _read_json(folder / BLEND_FILE)
    vocabulary = read_vocabulary(folder)
    try:
        train = tuple(
            TrainShard(weight=float(row["weight"]), prefix=folder / row["prefix"], source=str(row["source"]))
            for row in blend["train"]
        )
        heldout = {
            str(name): HeldOut(prefixes=tuple(folder / prefix for prefix in row["prefixes"]), bytes=int(row["bytes"]))
            for name, row in blend["heldout"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(f"not a blend: {error!r}", at=str(folder / BLEND_FILE)) from error
    faults = _faults(folder, train, heldout, vocabulary)
    if faults:
        raise DatasetError(
            "this mixture cannot be trained on:\n" + "\n".join(f"    {fault}" for fault in faults),
            at=str(folder),
            hint="make the mixture again: `gristmill run` writes one, and `gristmill plan` shows what it would hold",
        )
    packed = blend.get("packing", {}).get("sequence_length")
    identity = str(blend.get("mixture") or hash_file(folder / BLEND_FILE)[:32])
    return Mixture(
        folder=folder, identity=identity, train=train, heldout=heldout, vocabulary=vocabulary, packed_length=packed
    )


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary facts in `folder`."""
    path = folder / VOCABULARY_FILE
    row = _read_json(path)
    try:
        return Vocabulary(
            size=int(row["size"]),
            padded_size=int(row["padded_size"]),
            end_of_document=int(row["end_of_document"]),
            dtype=str(row["dtype"]),
            sha256=str(row["sha256"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"not a vocabulary: {error!r}", at=str(path)) from error


def _faults(
    folder: Path, train: tuple[TrainShard, ...], heldout: Mapping[str, HeldOut], vocabulary: Vocabulary
) -> list[str]:
    faults = [] if train else [f"`{BLEND_FILE}` names no training shards: the blend is empty"]
    faults += [
        f"weight {shard.weight} of {shard.prefix.name}: weights must be above 0" for shard in train if shard.weight <= 0
    ]
    prefixes = [shard.prefix for shard in train] + [prefix for row in heldout.values() for prefix in row.prefixes]
    files = [path for prefix in prefixes for path in (idx_path(prefix), bin_path(prefix))]
    faults += [f"missing: {path}" for path in [*files, folder / TOKENIZER_FILE] if not path.is_file()]
    if not 0 <= vocabulary.end_of_document < vocabulary.size <= vocabulary.padded_size:
        faults.append(f"`{VOCABULARY_FILE}` contradicts itself: {vocabulary}")
    tokenizer = folder / TOKENIZER_FILE
    if tokenizer.is_file() and hash_file(tokenizer) != vocabulary.sha256:
        faults.append(f"`{TOKENIZER_FILE}` is not the one that `{VOCABULARY_FILE}` was written for")
    return faults


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DatasetError(
            f"`{path.name}` is missing", at=str(path.parent), hint="give a mixture folder (RUN/mixtures/ID) with --data"
        )
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise DatasetError(f"not JSON: {error}", at=str(path)) from error
    version = value.get("format_version") if isinstance(value, dict) else None
    if version != FORMAT_VERSION:
        raise DatasetError(f"format_version {version}; only {FORMAT_VERSION} is known", at=str(path))
    return dict(value)
