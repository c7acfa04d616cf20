"""Semantic pairs over files: routed and settled with the other kinds, whatever the ranges, and anew when parts come."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.dedup.parameters import DedupConfig, SemanticConfig
from pipelines.dedup.search.run import search_duplicates
from pipelines.dedup.search.texts import PartTexts
from storage.errors import DatasetError
from storage.manifests import open_dataset
from storage.parts import commit_table
from storage.schema import IDENTIFIER
from tests.pipelines.dedup.dedup_corpora import doc_id, edited, near_pairs, shuffled_parts
from tests.pipelines.dedup.searching import one_by_one, published, search, small_ranges
from tests.pipelines.dedup.test_semantic import WIDTH, brute_force, families

COUNT = 120
CONFIG = DedupConfig(semantic=SemanticConfig(threshold=0.9))


def embedded(missing: int = 0) -> tuple[pa.Table, dict[frozenset[object], float]]:
    """Documents with vectors in families, the first few without one; and the pairs of those that have one."""
    vectors, chance = families(30, 4, 0.25), random.Random(6)
    words = [f"w{i}" for i in range(100)]
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), WIDTH)
    there = pa.array([i if i >= missing else None for i in range(COUNT)], pa.int64())
    ids = pa.array([doc_id(i) for i in range(COUNT)], IDENTIFIER)
    texts = [edited(words, 1 if i % 9 == 0 else 80, chance) for i in range(COUNT)]
    truth = {pair: s for pair, s in brute_force(vectors, 0.9).items() if min(pair) >= missing}  # type: ignore[type-var]
    return pa.table({"doc_id": ids, "text": texts, "vector": flat.take(there)}), truth


def found_in(root: Path) -> dict[frozenset[object], float]:
    return near_pairs(published(root, "semantic"), range(COUNT))


def test_pairs_are_those_of_brute_force_in_any_cut_and_settled_with_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_ranges(monkeypatch)
    table, truth = embedded(missing=10)
    result = search(tmp_path, shuffled_parts(table, random.Random(7), 3), CONFIG)
    found = found_in(tmp_path)
    assert found.items() <= truth.items() and len(found) >= 0.95 * len(truth) > 30
    assert result["semantic"] == len(found)
    search(tmp_path / "other", [table], CONFIG)
    assert found_in(tmp_path / "other") == found
    settled: dict[bytes, set[int]] = {}
    for kind in ("pairs", "semantic"):
        dataset = open_dataset(tmp_path / kind)
        for number, part in enumerate(dataset.parts):
            for name in ("a_doc_id", "b_doc_id"):
                for document in dataset.read(part)[name].to_pylist():
                    settled.setdefault(document, set()).add(number)
    assert all(len(numbers) == 1 for numbers in settled.values())
    assert set(published(tmp_path, "members")["doc_id"].to_pylist()) == set(settled)


def test_parts_that_come_are_compared_with_those_that_are_there(tmp_path: Path) -> None:
    table, _ = embedded()
    parts = [table.slice(0, 70), table.slice(70)]
    search(tmp_path, parts[:1], CONFIG)
    grown = search(tmp_path, parts, CONFIG)
    search(tmp_path / "whole", parts, CONFIG)
    assert grown["added"] == 50
    assert found_in(tmp_path) == found_in(tmp_path / "whole")


def test_a_part_without_a_document_has_no_address_and_no_vector(tmp_path: Path) -> None:
    """As `gristmill remove` may leave one: Parquet then gives no batch at all."""
    table, truth = embedded()
    table = table.append_column("url", pa.array([f"http://x.org/{i // 2}" for i in range(COUNT)]))
    vector = pa.StructArray.from_arrays([table["vector"].combine_chunks()], ["vector"])
    embeddings = pa.table({"doc_id": table["doc_id"], "embedding": vector})
    names: dict[str, list[str]] = {"documents": [], "embeddings": []}
    for kind, rows in (("documents", table.drop_columns(["vector"])), ("embeddings", embeddings)):
        for number, part in enumerate((rows, rows.slice(0, 0))):
            names[kind].append(commit_table(tmp_path, f"{kind}{number}", part, schema=part.schema).file)
        (tmp_path / kind).write_text(json.dumps(names[kind]))
    texts = PartTexts(tmp_path, tmp_path / "documents", (tmp_path, tmp_path / "embeddings"))
    settings = asdict(replace(CONFIG, urls=True))
    found = search_duplicates(tmp_path / "found", settings, names["documents"], lambda _: texts, one_by_one)
    assert found["documents"] == COUNT and found["urls"] == COUNT // 2
    assert 0.95 * len(truth) <= found["semantic"] <= len(truth)


def test_only_who_asks_needs_vectors(tmp_path: Path) -> None:
    table, _ = embedded(missing=COUNT)
    assert search(tmp_path, [table.drop_columns(["vector"])], DedupConfig())["semantic"] == 0
    with pytest.raises(DatasetError, match="no document has a vector"):
        search(tmp_path / "none", [table], CONFIG)
