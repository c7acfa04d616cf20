"""Screening: which drafts become documents, and why the others do not.

Invariant: every draft is a document or has a reason, and it has the first that holds: copied from its source, holding a
benchmark's item, equal to another, nearly equal to another. Of equal texts the one with the least doc_id stays, however
parts are cut. Trade-off: what the model wrote is in memory while duplicates are searched, some 3 KB a text: a million
texts take 3 GB, and the run that reads them as a source searches all of its documents over files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from classifiers.llm.asking import Failed
from pipelines.contamination import LIMITS, benchmark_stage, prepare_index
from pipelines.dedup.deduplicate import deduplicate
from pipelines.dedup.parameters import DedupConfig
from storage.parts import Part, read_batches
from storage.schema import IDENTIFIER

_STANDING = ("doc_id", "rank", "eligible")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """`copied`: above this share of its source's 8-grams a text is no new one (None: never); `near`: from this
    similarity two texts are one. `benchmarks`: the run's folder and the spec of those whose items are looked for."""

    copied: float | None
    near: float
    benchmarks: tuple[Path, str] | None = None


def screen(folder: Path, parts: Sequence[Part], limits: Limits) -> dict[bytes, Failed]:
    """Why drafts are no documents, by their doc_ids; those that are do not stand there."""
    rejected = dict(_copied(folder, parts, limits.copied))
    if limits.benchmarks:
        rejected |= {
            doc_id: why for doc_id, why in _contaminated(folder, parts, *limits.benchmarks) if doc_id not in rejected
        }
    texts = [_texts(folder, part) for part in parts]
    return rejected | dict(_repeated(texts, rejected, limits.near))


def _copied(folder: Path, parts: Sequence[Part], most: float | None) -> Iterator[tuple[bytes, Failed]]:
    for part in parts if most is not None else ():
        for batch in read_batches(folder / part.file, ["doc_id", "copied_share"]):
            found = batch.filter(pc.greater(batch.column("copied_share"), most))
            for doc_id, share in zip(*(column.to_pylist() for column in found.columns), strict=True):
                said = f"{share:.2f} of its 8-grams stand in the source, at most {most:g} may"
                yield doc_id, Failed(reason="copied", said=said)


def _contaminated(folder: Path, parts: Sequence[Part], root: Path, spec: str) -> Iterator[tuple[bytes, Failed]]:
    """Texts that hold more of an item than the shipped policies let pass; what is trained on counts, source and all."""
    prepare_index(spec, root)
    stage = benchmark_stage(spec, root)
    find = stage.make(stage.config)
    for part in parts:
        for batch in read_batches(folder / part.file, ["doc_id", "text"]):
            for doc_id, row in zip(batch.column("doc_id").to_pylist(), find(batch).to_pylist(), strict=True):
                if any(row[name] > limit for name, limit in LIMITS.items()):
                    yield doc_id, Failed(reason="contaminated", said=_item(row))


def _item(row: dict[str, Any]) -> str:
    return f"{row['share']:.2f} of item {row['item']} of {row['benchmark']} ({row['char_share']:.2f} of its characters)"


def _texts(folder: Path, part: Part) -> pa.Table:
    """What the model wrote, as the search for duplicates takes it."""
    batches = list(read_batches(folder / part.file, ["doc_id", "written"]))
    schema = pa.schema([pa.field("doc_id", IDENTIFIER, nullable=False), pa.field("text", pa.string(), nullable=False)])
    return pa.Table.from_batches([batch.rename_columns(["doc_id", "text"]).cast(schema) for batch in batches], schema)


def _repeated(texts: Sequence[pa.Table], rejected: dict[bytes, Failed], near: float) -> Iterator[tuple[bytes, Failed]]:
    """Duplicates among the texts that are left."""
    left = [
        table.filter(pa.array([doc_id not in rejected for doc_id in table["doc_id"].to_pylist()], pa.bool_()))
        for table in texts
    ]
    ids = sorted(doc_id for table in left for doc_id in table["doc_id"].to_pylist())
    if not ids:
        return
    ranks, eligible = np.arange(len(ids)), np.ones(len(ids), np.bool_)
    standings = pa.table([pa.array(ids, IDENTIFIER), pa.array(ranks), pa.array(eligible)], names=_STANDING)
    keepers = deduplicate(left, standings, DedupConfig(threshold=near))
    for row in keepers.filter(keepers["duplicate_of"].is_valid()).to_pylist():
        reason = "exact_duplicate" if row["kind"] == "exact" else "near_duplicate"
        said = f"Jaccard {row['similarity']:.2f} with {row['duplicate_of'].hex()}"
        yield row["doc_id"], Failed(reason=reason, said=said)
