"""The search over files finds what the search in memory finds, whatever its ranges, and goes on after a kill."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.dedup.components import contract_range, edges_table, settle_ranges
from pipelines.dedup.deduplicate import Duplicates, find_duplicates
from pipelines.dedup.pairs import find_components
from pipelines.dedup.range_files import read_range, write_ranges
from pipelines.dedup.search.run import Task
from pipelines.dedup.shuffle import RANGE, gather_range, groups_of, with_ranges
from pipelines.dedup.verify import merge_pairs
from storage.errors import DatasetError
from storage.manifests import open_dataset
from tests.pipelines.dedup.dedup_corpora import as_set, corpus, edited, exhaustive, family_corpus, shuffled_parts
from tests.pipelines.dedup.searching import one_by_one, published, search, small_ranges

CONFIG = exhaustive(0.5, bucket_limit=4, leader_limit=3)


def some_parts(seed: int = 1, num_parts: int = 3) -> list[pa.Table]:
    chance = random.Random(seed)
    texts = family_corpus(chance, families=6, size=9, words=120) + ["", "!", "short one", "short  one"]
    return [part for part in shuffled_parts(corpus(texts), chance, num_parts) if len(part)]


def found_in_files(root: Path) -> dict[str, set[tuple[object, ...]]]:
    return {kind: as_set(published(root, kind)) for kind in ("pairs", "copies", "crowds")}


def found_in_memory(found: Duplicates) -> dict[str, set[tuple[object, ...]]]:
    return {"pairs": as_set(found.pairs), "copies": as_set(found.copies), "crowds": as_set(found.crowds)}


@pytest.mark.parametrize(("ranges", "nodes", "groups"), [(1, 1, 1), (4, 4, 3), (2, 8, 5)])
def test_files_hold_what_memory_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranges: int, nodes: int, groups: int
) -> None:
    small_ranges(monkeypatch, ranges=ranges, nodes=nodes, groups=groups)
    parts = some_parts()
    result = search(tmp_path, parts, CONFIG)
    assert found_in_files(tmp_path) == found_in_memory(find_duplicates(parts, CONFIG))
    assert result["pairs"] == len(published(tmp_path, "pairs")) > 50
    assert len(open_dataset(tmp_path / "pairs").parts) == nodes


def test_each_part_is_told_its_members_and_their_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_ranges(monkeypatch)
    parts = some_parts()
    search(tmp_path, parts, CONFIG)
    pairs, copies = published(tmp_path, "pairs"), published(tmp_path, "copies")
    ends = [*zip(pairs["a_doc_id"].to_pylist(), pairs["b_doc_id"].to_pylist(), strict=True)]
    ends += zip(copies["doc_id"].to_pylist(), copies["representative"].to_pylist(), strict=True)
    names = sorted({name for end in ends for name in end})
    number = {name: i for i, name in enumerate(names)}
    least = find_components(len(names), *(np.array([number[end[side]] for end in ends]) for side in (0, 1)))
    clusters = {name: names[least[i]] for name, i in number.items()}
    members = open_dataset(tmp_path / "members")
    assert len(members.parts) == len(parts)
    told: dict[bytes, bytes] = {}
    for part, documents in zip(members.parts, parts, strict=True):
        table = members.read(part)
        rows = [place & 0xFFFFFFFF for place in table["place"].to_pylist()]
        assert documents["doc_id"].take(pa.array(rows)).to_pylist() == table["doc_id"].to_pylist()
        told |= dict(zip(table["doc_id"].to_pylist(), table["cluster_id"].to_pylist(), strict=True))
    assert {name: told[name] for name in names} == clusters
    assert all(told[name] == name for name in told.keys() - set(names)), "in a crowd alone: a cluster of one"


def test_what_is_tied_together_is_settled_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_ranges(monkeypatch, nodes=8)
    search(tmp_path, some_parts(), CONFIG)
    members = published(tmp_path, "members")
    settle = dict(zip(members["doc_id"].to_pylist(), members["settle"].to_pylist(), strict=True))
    for kind, columns in (("pairs", ("a_doc_id", "b_doc_id")), ("copies", ("doc_id", "representative"))):
        dataset = open_dataset(tmp_path / kind)
        for number, part in enumerate(dataset.parts):
            table = dataset.read(part, list(columns))
            assert {settle[name] for name in columns for name in table[name].to_pylist()} <= {number}  # type: ignore[misc]
    crowds = open_dataset(tmp_path / "crowds")
    buckets = [set(crowds.read(part)["bucket"].to_pylist()) for part in crowds.parts]
    assert sum(map(len, buckets)) == len(set().union(*buckets)) > 0


def test_the_driver_is_told_counts_and_parts_and_never_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_ranges(monkeypatch, ranges=2, nodes=2)
    said: dict[int, int] = {}
    for copies in (1, 8):
        parts = [
            corpus([f"{text} {n}" for text in part["text"].to_pylist() for n in range(copies)]) for part in some_parts()
        ]
        sizes: list[int] = []

        def run(task: Task, arguments: Sequence[dict[str, Any]], sizes: list[int] = sizes) -> list[dict[str, Any]]:
            results = one_by_one(task, arguments)
            sizes.extend(len(json.dumps(result)) for result in results)
            return results

        search(tmp_path / str(copies), parts, CONFIG, run)
        said[copies] = max(sizes)
    assert said[8] <= said[1] + 20 < 2_000, "eight times the documents add digits to counts"


class Killed(Exception):
    pass


def test_a_search_goes_on_from_wherever_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_ranges(monkeypatch, ranges=2, nodes=2, groups=2)
    parts = some_parts()
    left = 0

    def until_killed(task: Task, arguments: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        nonlocal left
        results = []
        for each in arguments:
            if left == 0:
                raise Killed
            left -= 1
            results.append(task(each))
        return results

    expected = search(tmp_path / "whole", parts, CONFIG)
    for turn in range(200):
        left = 1 + turn
        try:
            assert search(tmp_path / "killed", parts, CONFIG, until_killed) == expected
            break
        except Killed:
            assert not (tmp_path / "killed" / "search.json").exists()
    assert turn > 5
    for kind in ("pairs", "copies", "crowds", "members"):
        whole, killed = (open_dataset(tmp_path / name / kind).manifest for name in ("whole", "killed"))
        assert whole == killed


def test_a_finished_search_reads_no_text_again(tmp_path: Path) -> None:
    parts = some_parts()
    first = search(tmp_path, parts, CONFIG)
    monkey = [part.select(["doc_id"]) for part in parts]
    assert search(tmp_path, monkey, CONFIG) == first


@pytest.mark.parametrize("num_ranges", [1, 8])
def test_chains_are_contracted_to_their_least_place_in_few_rounds(num_ranges: int) -> None:
    chance = np.random.default_rng(5)
    nodes = chance.permutation(6_400)
    chains = nodes.reshape(100, 64)
    first, second = chains[:, :-1].ravel(), chains[:, 1:].ravel()
    raw = edges_table(np.maximum(first, second), np.minimum(first, second), num_ranges)
    edges, rounds, changed = raw, 0, True
    while changed:
        done = [contract_range(gather_range([edges], i, raw.schema), num_ranges) for i in range(num_ranges)]
        changed = any(each for _, each in done)
        tables = [table for table, _ in done]
        edges = pa.concat_tables([gather_range(tables, i, raw.schema) for i in range(num_ranges)])
        rounds += 1
    assert rounds <= (2 if num_ranges == 1 else 8)
    least = np.repeat(chains.min(axis=1), 64)
    ranges = groups_of(chains.ravel(), num_ranges)
    for number in range(num_ranges):
        mine = ranges == number
        told = settle_ranges(gather_range([edges], number, raw.schema), chains.ravel()[mine], 1 << 20)
        assert np.array_equal(told, groups_of(least[mine], 1 << 20))


def test_a_range_of_a_file_is_read_alone_and_a_missing_file_is_said(tmp_path: Path) -> None:
    table = pa.table({"value": pa.array(range(9)), "words": [["a"] * i for i in range(9)]})
    ranges = np.array([3, 0, 3, 7, 0, 3, 7, 7, 3], np.uint32)
    write_ranges(tmp_path / "file", with_ranges(table, ranges), {"rows": 9})
    for number in range(9):
        there = read_range([tmp_path / "file"], number)
        assert there.schema.field("range") == RANGE
        assert there.drop_columns(["range"]).equals(table.filter(pa.array(ranges == number)))
    with pytest.raises(DatasetError, match="missing"):
        read_range([tmp_path / "none"], 0, table.schema)
    (tmp_path / "cut").write_bytes((tmp_path / "file").read_bytes()[:300])
    with pytest.raises(DatasetError, match="cannot be read"):
        read_range([tmp_path / "cut"], 0, table.schema)


def test_pairs_of_several_groups_are_published_once_and_sorted(tmp_path: Path) -> None:
    chance = random.Random(3)
    words = [f"w{i}" for i in range(120)]
    search(tmp_path, [corpus([edited(words, 1, chance) for _ in range(80)])], CONFIG)
    pairs = published(tmp_path, "pairs")
    assert pairs.equals(merge_pairs([pairs, pairs]))
