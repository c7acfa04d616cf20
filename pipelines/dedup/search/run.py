"""The order of a search's tasks. Each is found again by its files, so a search that was killed goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.dedup.range_files import RangeFiles
from pipelines.dedup.search.candidates import (
    find_range_candidates,
    group_range_copies,
    group_range_urls,
    scatter_part_bands,
    scatter_part_hashes,
    scatter_part_urls,
    sign_part,
)
from pipelines.dedup.search.generations import Growth, Search, plan_growth, with_sizes, write_record
from pipelines.dedup.search.meaning import (
    find_range_semantic,
    fit_clusters,
    sample_part_vectors,
    scatter_part_vectors,
)
from pipelines.dedup.search.routing import (
    contract_node_range,
    publish_members,
    publish_settle_range,
    route_node_range,
)
from pipelines.dedup.search.texts import Texts
from pipelines.dedup.search.verification import (
    Group,
    groups_of_search,
    list_group_wanted,
    read_part_shingles,
    verify_group,
)
from pipelines.dedup.semantic import MOST_SAMPLED
from storage.errors import DatasetError
from storage.identity import fingerprint
from storage.manifests import Manifest, write_manifest
from storage.parts import part_from_json

Task = Callable[[dict[str, Any]], dict[str, Any]]
Run = Callable[[Task, Sequence[dict[str, Any]]], list[dict[str, Any]]]
"""Calls a task with each of the arguments, anywhere and in any order; the results in order of the arguments."""

MOST_ROUNDS = 64
"""Far above the logarithm of any chain: a search that needs more is broken."""


def search_duplicates(
    root: Path, settings: Mapping[str, Any], checksums: Sequence[str], texts: Callable[[Growth], Texts], run: Run
) -> dict[str, Any]:
    """Find every verified pair and every exact copy; publish the datasets of `TRAVELLING` and `members`.

    `checksums` are the sha256 of all documents parts; `texts` makes what reads them, by their numbers.
    """
    growth = plan_growth(root, settings, checksums)
    search = _sign(root, settings, growth, texts(growth), run)
    if search.looks_for("urls"):
        run(scatter_part_urls, [{"search": search, "number": part} for part in search.now.parts])
        _each(search, run, group_range_urls, range(search.now.ranges))
    candidates = _find_candidates(search, growth, run)
    verify_groups(search, search.files, groups_of_search(search), run)
    if search.looks_for("semantic"):
        _compare_vectors(search, run)
    rounds = _contract(search, run)
    _each(search, run, route_node_range, range(search.now.nodes), round=rounds)
    counts = _publish(search, growth, run)
    write_record(search, growth.checksums)
    return {
        **counts,
        "candidates": candidates,
        "base": search.now.base,
        "rounds": rounds,
        "documents": sum(generation.rows for generation in search.generations),
        "added": search.now.rows,
        "anew": growth.anew,
    }


def _sign(root: Path, settings: Mapping[str, Any], growth: Growth, texts: Texts, run: Run) -> Search:
    now = growth.generations[-1]
    shared = {"root": root, "settings": dict(settings), "texts": texts}
    signed = run(sign_part, [{**shared, "number": i, "checksum": growth.checksums[i]} for i in now.parts])
    rows, shingles = sum(part["rows"] for part in signed), sum(part["shingles"] for part in signed)
    generations = with_sizes(growth, settings, rows, shingles)
    return Search(root=root, settings=dict(settings), texts=texts, generations=generations)


def _each(search: Search, run: Run, task: Task, numbers: Sequence[int], **more: Any) -> list[dict[str, Any]]:
    return run(task, [{"search": search, "number": number, **more} for number in numbers])


def _find_candidates(search: Search, growth: Growth, run: Run) -> int:
    now = search.now
    parts = [{"search": search, "number": i, "checksum": growth.checksums[i]} for i in now.parts]
    run(scatter_part_hashes, parts)
    _each(search, run, group_range_copies, range(now.ranges))
    run(scatter_part_bands, parts)
    return sum(found["rows"] for found in _each(search, run, find_range_candidates, range(now.ranges)))


def _compare_vectors(search: Search, run: Run) -> None:
    parts, total = range(search.now.end), sum(generation.rows for generation in search.generations)
    share = min(1.0, MOST_SAMPLED / max(1, total))
    sampled = _each(search, run, sample_part_vectors, parts, share=share)
    vectors = sum(found["vectors"] for found in sampled)
    if not vectors:
        raise DatasetError("no document has a vector", at=str(search.root), hint="the policy's gate admits none")
    run(fit_clusters, [{"search": search, "vectors": vectors}])
    _each(search, run, scatter_part_vectors, parts)
    _each(search, run, find_range_semantic, range(search.now.groups))


def verify_groups(search: Search, files: RangeFiles, groups: Sequence[Group], run: Run) -> None:
    """Verify what the groups hold; their PAIRS are `kept/pairs` of the files."""
    numbers, parts = [group.number for group in groups], range(search.now.end)
    shared = {"search": search, "files": files}
    run(list_group_wanted, [{"files": files, "group": group} for group in groups])
    run(read_part_shingles, [{**shared, "number": part, "groups": numbers} for part in parts])
    run(verify_group, [{**shared, "group": group, "parts": parts} for group in groups])


def _contract(search: Search, run: Run) -> int:
    """Rounds until nothing changes; returns the round whose EDGES point at the least of each component."""
    for turn in range(MOST_ROUNDS):
        done = _each(search, run, contract_node_range, range(search.now.nodes), round=turn)
        if not any(result["changed"] for result in done):
            return turn
    raise AssertionError(f"components were not settled in {MOST_ROUNDS} rounds")


def _publish(search: Search, growth: Growth, run: Run) -> dict[str, int]:
    """The manifests, and how many rows each dataset has."""
    settled = _each(search, run, publish_settle_range, range(search.now.nodes))
    parts = [{"search": search, "number": i, "checksum": growth.checksums[i]} for i in range(search.now.end)]
    listed = {kind: [result[kind] for result in settled] for kind in ("pairs", "copies", "urls", "semantic", "crowds")}
    listed["members"] = [result["members"] for result in run(publish_members, parts)]
    stage = {"name": "deduplicate", "config": dict(search.settings)}
    for kind, found in listed.items():
        published = tuple(part_from_json(part) for part in found)
        identity = fingerprint({"kind": kind, "parts": [part.sha256 for part in published]})
        facts = {"base": search.now.base}
        write_manifest(
            search.root / kind, Manifest(kind=kind, identity=identity, stage=stage, parts=published, facts=facts)
        )
    return {kind: sum(part["rows"] for part in found) for kind, found in listed.items()}
