"""Verification of a mixture folder: its shards hold what its blend and its selection say of them.

Everything is read; all that is wrong is said at once. It runs at the speed of one scan of the tokens that are taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mixtures.select import BLEND, SELECTION, VOCABULARY
from storage.checksums import checksum_faults
from storage.errors import DatasetError
from storage.lineage import pieces_path
from storage.megatron import IndexedReader
from storage.shards import ShardSummary, check_shard


def verify_mixture(folder: Path) -> dict[str, ShardSummary]:
    """What each prefix of the folder holds. Raises DatasetError that lists what is wrong with any of them."""
    blend = json.loads((folder / BLEND).read_bytes())
    vocabulary = json.loads((folder / VOCABULARY).read_bytes())
    tokens = _tokens_said(blend)
    selection = pq.read_table(folder / SELECTION) if (folder / SELECTION).exists() else None
    found: dict[str, ShardSummary] = {}
    faults = checksum_faults(folder)
    for prefix in tokens:
        try:
            end = None if pieces_path(folder / prefix).exists() else vocabulary["end_of_document"]
            summary = check_shard(folder / prefix, size=vocabulary["size"], end_of_document=end)
        except DatasetError as error:
            faults.append(f"{prefix}: {error.what}")
            continue
        found[prefix] = summary
        faults += [f"{prefix}: {fault}" for fault in _shard_faults(folder, prefix, summary, vocabulary, selection)]
    for prefixes, said in _sums(blend):
        held = sum(found[prefix].tokens for prefix in prefixes if prefix in found)
        if held != said and all(prefix in found for prefix in prefixes):
            faults.append(f"{', '.join(prefixes)}: {held} tokens, `{BLEND}` says {said}")
    if faults:
        listed = "\n".join(f"    {fault}" for fault in faults)
        raise DatasetError(
            f"this mixture is damaged:\n{listed}", at=str(folder), hint="remove the folder and make the mixture again"
        )
    return found


def _tokens_said(blend: Mapping[str, Any]) -> list[str]:
    return [prefix for prefixes, _ in _sums(blend) for prefix in prefixes]


def _sums(blend: Mapping[str, Any]) -> Iterator[tuple[list[str], int]]:
    """Prefixes, and how many tokens the blend says they hold together."""
    for entry in blend["train"]:
        yield [entry["prefix"]], entry["tokens"]
    for entry in blend["heldout"].values():
        yield entry["prefixes"], entry["tokens"]


def _shard_faults(
    folder: Path, prefix: str, summary: ShardSummary, vocabulary: Mapping[str, Any], selection: pa.Table | None
) -> Iterator[str]:
    if summary.dtype != vocabulary["dtype"]:
        yield f"ids are {summary.dtype}, `{VOCABULARY}` says {vocabulary['dtype']}"
    if selection is None:
        return
    mine = selection.filter(pc.equal(selection["prefix"], prefix))
    lengths = IndexedReader(folder / prefix).lengths
    if pieces_path(folder / prefix).exists():
        yield from _packing_faults(folder / prefix, lengths, mine)
    elif int(pc.sum(mine["repeats"]).as_py() or 0) != len(lengths):
        yield f"{len(lengths)} sequences, `{SELECTION}` says {pc.sum(mine['repeats']).as_py()}"
    elif not np.array_equal(lengths[np.asarray(mine["sequence"])], np.asarray(mine["tokens"])):
        yield f"documents have other lengths than `{SELECTION}` says"


def _packing_faults(prefix: Path, lengths: npt.NDArray[np.int32], selection: pa.Table) -> Iterator[str]:
    pieces = pq.read_table(pieces_path(prefix))
    if len(np.unique(lengths)) > 1:
        yield "packed sequences of different lengths"
    held = np.bincount(np.asarray(pieces["document"]), np.asarray(pieces["tokens"]), selection.num_rows)
    if not np.array_equal(held, np.asarray(selection["tokens"])):
        yield f"documents have other lengths than `{SELECTION}` says"
