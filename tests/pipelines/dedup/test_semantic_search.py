"""Semantic pairs over files: routed and settled with the other kinds, whatever the ranges, and anew when parts come."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.dedup.parameters import DedupConfig, SemanticConfig
from storage.errors import DatasetError
from storage.manifests import open_dataset
from storage.schema import IDENTIFIER
from tests.pipelines.dedup.dedup_corpora import doc_id, edited, near_pairs, shuffled_parts
from tests.pipelines.dedup.searching import published, search, small_ranges
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


def test_only_who_asks_needs_vectors(tmp_path: Path) -> None:
    table, _ = embedded(missing=COUNT)
    assert search(tmp_path, [table.drop_columns(["vector"])], DedupConfig())["semantic"] == 0
    with pytest.raises(DatasetError, match="no document has a vector"):
        search(tmp_path / "none", [table], CONFIG)
