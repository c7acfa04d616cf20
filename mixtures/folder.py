"""A mixture folder as others are told of it: its shards with weights and sources, its held-out shards, its vocabulary.

A run's own mixtures, exported and adopted ones read alike. Prefixes stay relative to the folder, so that a list of them
can be written for wherever the folder will lie.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixtures.select import BLEND, VOCABULARY
from storage.errors import DatasetError


@dataclass(frozen=True, kw_only=True)
class TrainingShard:
    """A Megatron prefix within the folder, its weight in the blend, and the tokens of one pass over its index."""

    prefix: str
    source: str
    weight: float
    tokens: int


@dataclass(frozen=True, kw_only=True)
class MixtureFolder:
    """What `blend.json` and `vocabulary.json` say; an adopted mixture has no seed and no sequence length."""

    folder: Path
    train: tuple[TrainingShard, ...]
    heldout: Mapping[str, tuple[str, ...]]
    train_tokens: int
    seed: int | None
    sequence_length: int | None
    vocabulary_size: int
    end_of_document: int
    dtype: str

    def shares(self) -> dict[str, float]:
        """Each source's part of all tokens, by the weights; they sum to one."""
        total = sum(shard.weight for shard in self.train)
        weights: dict[str, float] = {}
        for shard in self.train:
            weights[shard.source] = weights.get(shard.source, 0.0) + shard.weight
        return {source: weight / total for source, weight in weights.items()}


def read_mixture_folder(folder: Path) -> MixtureFolder:
    """Raises DatasetError when `folder` is no mixture folder."""
    blend, vocabulary = _read(folder, BLEND), _read(folder, VOCABULARY)
    try:
        return MixtureFolder(
            folder=folder.resolve(),
            train=tuple(
                TrainingShard(
                    prefix=row["prefix"], source=row["source"], weight=float(row["weight"]), tokens=int(row["tokens"])
                )
                for row in blend["train"]
            ),
            heldout={name: tuple(row["prefixes"]) for name, row in blend["heldout"].items()},
            train_tokens=int(blend["train_tokens"]),
            seed=blend.get("seed"),
            sequence_length=blend.get("sequence_length"),
            vocabulary_size=int(vocabulary["size"]),
            end_of_document=int(vocabulary["end_of_document"]),
            dtype=str(vocabulary["dtype"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(f"`{BLEND}` or `{VOCABULARY}` is not a mixture's: {error!r}", at=str(folder)) from error


def _read(folder: Path, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / name).read_bytes())
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"there is no mixture here: `{name}` cannot be read",
            at=str(folder),
            hint="name a folder that `gristmill run`, `gristmill export --format shards` or `gristmill adopt` wrote",
        ) from error
    return found
