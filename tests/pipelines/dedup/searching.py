"""A search over files in this process: parts of a tiny corpus in memory, tasks one after another."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.dedup.components import list_members
from pipelines.dedup.deduplicate import Duplicates
from pipelines.dedup.exact import COPIES
from pipelines.dedup.parameters import DedupConfig
from pipelines.dedup.search import generations
from pipelines.dedup.search.generations import Growth
from pipelines.dedup.search.run import Task, search_duplicates
from pipelines.dedup.shuffle import select_range
from pipelines.dedup.verify import CROWD_MEMBERS, PAIRS
from storage.identity import fingerprint
from storage.manifests import Manifest, open_dataset, write_manifest
from storage.parts import commit_table


@dataclass(frozen=True)
class TableTexts:
    """Parts that are tables."""

    parts: Mapping[int, pa.Table]

    def batches(self, part: int) -> Iterator[pa.RecordBatch]:
        yield from self.parts[part].select(["doc_id", "text"]).to_batches()

    def urls(self, part: int) -> pa.Table:
        return self.parts[part].select(["doc_id", "url"])

    def vectors(self, part: int) -> pa.Table:
        return self.parts[part].select(["doc_id", "vector"])

    def take(self, part: int, rows: npt.NDArray[np.int64]) -> pa.Table:
        return self.parts[part].take(pa.array(rows))


def one_by_one(task: Task, arguments: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [task(each) for each in arguments]


def checksum(part: pa.Table) -> str:
    return hashlib.sha256(b"".join(part["doc_id"].to_pylist())).hexdigest()


def search(
    root: Path,
    parts: Sequence[pa.Table],
    config: DedupConfig,
    run: Callable[[Task, Sequence[dict[str, Any]]], list[dict[str, Any]]] = one_by_one,
) -> dict[str, Any]:
    by_checksum = {checksum(part): part for part in parts}

    def texts(growth: Growth) -> TableTexts:
        return TableTexts({i: by_checksum[name] for i, name in enumerate(growth.checksums)})

    return search_duplicates(root, dataclasses.asdict(config), [checksum(part) for part in parts], texts, run)


def small_ranges(monkeypatch: Any, *, ranges: int = 4, nodes: int = 4, groups: int = 3) -> None:
    """Sizes that a corpus of a hundred documents does not ask for."""
    monkeypatch.setattr(generations, "DOCUMENTS_PER_NODE_RANGE", 1)
    monkeypatch.setattr(generations, "choose_num_ranges", lambda rows, per: nodes if per == 1 else ranges)
    monkeypatch.setattr(generations, "choose_num_groups", lambda shingles: groups)


def published(root: Path, kind: str) -> pa.Table:
    dataset = open_dataset(root / kind)
    return pa.concat_tables([dataset.read(part) for part in dataset.parts])


_NO_URLS = COPIES.empty_table()


def publish_found(root: Path, found: Duplicates, documents: Sequence[str | None], urls: pa.Table = _NO_URLS) -> None:
    """What a search would publish, by hand, as one settle range: `documents` are the checksums of the parts."""
    tables = {"pairs": found.pairs, "copies": found.copies, "crowds": found.crowds, "urls": urls}
    tables["semantic"] = PAIRS.empty_table()
    members = list_members(**tables, settle=0)
    for kind, table in tables.items():
        part = commit_table(root / kind, fingerprint(kind), table, schema=table.schema)
        stage = {"config": {"threshold": 0.8}}
        write_manifest(root / kind, Manifest(kind=kind, identity=kind, stage=stage, parts=(part,)))
    parts = []
    for number, checksum in enumerate(documents):
        here = select_range(members, number).drop_columns(["range"])
        name, facts = fingerprint(["members", number]), {"number": number}
        parts.append(commit_table(root / "members", name, here, schema=here.schema, of=checksum, facts=facts))
    write_manifest(root / "members", Manifest(kind="members", identity="m", stage={}, parts=tuple(parts)))


def found_by_hand(
    places: Mapping[bytes, int], pairs: Sequence[tuple[bytes, bytes, float]], copies: Sequence[tuple[bytes, bytes]]
) -> Duplicates:
    """Pairs of doc_ids with their similarity, and copies with their representatives."""
    near = [(*sorted((a, b)), similarity) for a, b, similarity in pairs]
    rows = [(a, b, similarity, places[a], places[b]) for a, b, similarity in near]
    same = [(places[a] >> 32, places[a], a, b, places[b]) for a, b in copies]
    tables = [
        pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in found], schema)
        for found, schema in ((rows, PAIRS), (same, COPIES))
    ]
    return Duplicates(tables[0], tables[1], CROWD_MEMBERS.empty_table(), len(rows))
