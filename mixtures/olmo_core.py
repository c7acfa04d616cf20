"""A mixture folder for OLMo-core: raw token files, each document once, and the ratios of its source mixture.

OLMo-core reads headerless files of unsigned ids and repeats whole files by ratio, the last time the beginning of each.
So the documents that the plan gives once more than the others stand first: its partial epoch is then ours, to within an
instance a file. A `.bin` that holds just that already is linked, not copied; otherwise 2 or 4 bytes a stored token.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from mixtures.folder import MixtureFolder
from storage.commit import atomic_path
from storage.megatron import IndexedReader, Int64s, bin_path

UNSIGNED = {"uint8": "uint8", "int8": "uint8", "int16": "uint16", "uint16": "uint16", "int32": "uint32"}
"""OLMo-core's name for ids that we store as …: they are never negative, so the bytes are the same."""
RATIO_STEPS = 10**6
DEFAULT_SEQUENCE_LENGTH = 4096
DEFAULT_SEED = 42


@dataclass(frozen=True, kw_only=True)
class TokenFile:
    """A file of ids under the target folder; `tokens` are those that it holds."""

    source: str
    name: str
    tokens: int


def write_token_files(target: Path, mixture: MixtureFolder) -> tuple[list[TokenFile], list[TokenFile]]:
    """Write `train/…npy` and `heldout/…npy` under `target`; both lists in the order of the blend."""
    train = [_write(target, mixture, shard.source, shard.prefix) for shard in mixture.train]
    held = [
        _write(target, mixture, source, prefix) for source, prefixes in mixture.heldout.items() for prefix in prefixes
    ]
    return train, held


def _write(target: Path, mixture: MixtureFolder, source: str, prefix: str) -> TokenFile:
    reader = IndexedReader(mixture.folder / prefix)
    starts, ends = _runs(*_stored_once(reader), reader.dtype.itemsize)
    stored, path = Path(os.path.realpath(bin_path(mixture.folder / prefix))), target / f"{prefix}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not (starts.tolist() == [0] and ends.tolist() == [stored.stat().st_size] and _link(stored, path)):
        _copy(stored, path, starts, ends)
    size = int((ends - starts).sum()) // reader.dtype.itemsize
    return TokenFile(source=source, name=f"{prefix}.npy", tokens=size)


def _stored_once(reader: IndexedReader) -> tuple[Int64s, Int64s]:
    """Where each sequence lies in the `.bin` and its tokens, each once; those that stand most often come first."""
    filled = np.flatnonzero(reader.lengths)
    pointers, first, counts = np.unique(reader.pointers[filled], return_index=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return pointers[order], reader.lengths[filled][first][order].astype(np.int64)


def _runs(pointers: Int64s, lengths: Int64s, itemsize: int) -> tuple[Int64s, Int64s]:
    """The sequences as stretches of bytes, neighbours joined."""
    ends = pointers + lengths * itemsize
    breaks = np.flatnonzero(pointers[1:] != ends[:-1]) + 1
    return pointers[np.concatenate([[0], breaks])], ends[np.concatenate([breaks - 1, [len(ends) - 1]])]


def _link(stored: Path, path: Path) -> bool:
    """Another name for the same file, where the file system can give one."""
    try:
        os.link(stored, path)
    except OSError:
        return False
    return True


def _copy(stored: Path, path: Path, starts: Int64s, ends: Int64s) -> None:
    tokens = np.memmap(stored, dtype=np.uint8, mode="r")
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            file.write(tokens[start:end].data)


def source_list(mixture: MixtureFolder, files: Sequence[TokenFile], base: str) -> dict[str, Any]:
    """OLMo-core's SourceMixtureList: one entry a source; `target_ratio`s sum to one."""
    return {"sources": [_source(mixture, files, base, name, share) for name, share in mixture.shares().items()]}


def _source(mixture: MixtureFolder, files: Sequence[TokenFile], base: str, source: str, share: float) -> dict[str, Any]:
    mine = [file for file in files if file.source == source]
    needed, stored = round(mixture.train_tokens * share), sum(file.tokens for file in mine)
    return {
        "source_name": source,
        "target_ratio": share,
        "paths": [f"{base.rstrip('/')}/{file.name}" for file in mine],
        "max_repetition_ratio": max(1.0, math.ceil(Fraction(needed * RATIO_STEPS, stored)) / RATIO_STEPS),
        "max_source_fraction": 1.0,
    }


def dataset_config(
    mixture: MixtureFolder, files: Sequence[TokenFile], base: str, tokenizer_path: str
) -> dict[str, Any]:
    """OLMo-core's NumpyFSLDatasetConfig with its source mixture. Held-out texts lie in files of their own."""
    length = mixture.sequence_length or DEFAULT_SEQUENCE_LENGTH
    return {
        **_read_as(mixture, tokenizer_path),
        "source_mixture_config": {
            "source_list": source_list(mixture, files, base),
            "requested_tokens": mixture.train_tokens,
            "global_batch_size": length,
            "seed": DEFAULT_SEED if mixture.seed is None else mixture.seed % 2**32,
        },
    }


def heldout_config(
    mixture: MixtureFolder, files: Sequence[TokenFile], base: str, tokenizer_path: str
) -> dict[str, Any]:
    """OLMo-core's NumpyPaddedFSLDatasetConfig of the held-out texts, labelled by source as its evaluator wants them."""
    paths = [f"{base.rstrip('/')}/{file.name}" for file in files]
    labels = [{"label": file.source} for file in files]
    return {**_read_as(mixture, tokenizer_path), "paths": paths, "metadata": labels}


def _read_as(mixture: MixtureFolder, tokenizer_path: str) -> dict[str, Any]:
    end = mixture.end_of_document
    tokenizer = {"vocab_size": mixture.vocabulary_size, "eos_token_id": end, "pad_token_id": end}
    return {
        "tokenizer": {**tokenizer, "identifier": tokenizer_path},
        "dtype": UNSIGNED[mixture.dtype],
        "sequence_length": mixture.sequence_length or DEFAULT_SEQUENCE_LENGTH,
    }
