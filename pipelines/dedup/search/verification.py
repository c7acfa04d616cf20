"""The tasks from candidates to verified pairs, by group: which texts are wanted, their shingles, their similarity.

A search verifies the groups of its own candidates; the pairs that a policy asks for later (`Asked`) go through the same
tasks under a base of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.dedup.candidates import CANDIDATES, CROWDS
from pipelines.dedup.columns import numbers
from pipelines.dedup.components import TRAVELLING, edges_of
from pipelines.dedup.memory import keep_freed_memory
from pipelines.dedup.range_files import RangeFiles, read_range
from pipelines.dedup.search.generations import Search
from pipelines.dedup.shuffle import groups_of, rows_of, with_ranges
from pipelines.dedup.verify import SHINGLES, WANTED, list_wanted, read_shingles, verify_pairs

Arguments = dict[str, Any]
Counts = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Group:
    """One group's work: its number, the files of its CANDIDATES and CROWDS, and its range in them."""

    number: int
    range: int
    candidates: tuple[Path, ...]
    crowds: tuple[Path, ...] = ()

    def read(self) -> tuple[pa.Table, pa.Table]:
        return read_range(self.candidates, self.range, CANDIDATES), read_range(self.crowds, self.range, CROWDS)


def groups_of_search(search: Search) -> list[Group]:
    """The groups of a search's own candidates."""
    ranges = range(search.now.ranges)
    candidates = tuple(search.files.paths("work/candidates", ranges))
    crowds = tuple(search.files.paths("work/crowds", ranges))
    return [Group(number=i, range=i, candidates=candidates, crowds=crowds) for i in range(search.now.groups)]


def list_group_wanted(arguments: Arguments) -> Counts:
    """WANTED of one group: `files` and `group`."""
    files, group = arguments["files"], arguments["group"]
    if done := files.facts("work/wanted", group.number):
        return dict(done)
    candidates, crowds = group.read()
    return dict(files.commit("work/wanted", group.number, list_wanted(candidates, crowds, group.number)))


def read_part_shingles(arguments: Arguments) -> Counts:
    """SHINGLES of one part for all groups: `search`, `files`, `number` and the numbers of the `groups`."""
    keep_freed_memory()
    search, files, number = arguments["search"], arguments["files"], arguments["number"]
    done = files.facts("work/shingles", number)
    return dict(done or files.commit("work/shingles", number, _read_shingles(search, files, number, arguments)))


def _read_shingles(search: Search, files: RangeFiles, number: int, arguments: Arguments) -> pa.Table:
    wanted = read_range(files.paths("work/wanted", arguments["groups"]), number, WANTED)
    places = numbers(wanted.column("place"), np.int64)
    if not len(places):
        return SHINGLES.empty_table()
    rows, where = np.unique(rows_of(places), return_inverse=True)
    documents = search.texts.take(number, rows)
    # `read_shingles` takes rows of the table that it is given: those that were read, not those of the part.
    here = wanted.set_column(2, WANTED.field("place"), pa.array(places - rows_of(places) + where))
    batches = read_shingles(documents, here, search.config.signature)
    shingles = pa.Table.from_batches(batches, schema=SHINGLES)
    local = numbers(shingles.column("place"), np.int64)
    there = pa.array(local - rows_of(local) + rows[rows_of(local)])
    return shingles.set_column(1, SHINGLES.field("place"), there)


def verify_group(arguments: Arguments) -> Counts:
    """PAIRS and CROWD_MEMBERS of one group by range of places, and how they tie documents together."""
    keep_freed_memory()
    search, files, group = arguments["search"], arguments["files"], arguments["group"]
    if done := files.facts("kept/pairs", group.number):
        return dict(done)
    candidates, crowds = group.read()
    shingles = read_range(files.paths("work/shingles", arguments["parts"]), group.number, SHINGLES)
    pairs, members = verify_pairs(candidates, crowds, shingles, search.config)
    nodes = search.now.nodes
    files.commit("kept/edges-pairs", group.number, edges_of(pairs, members, nodes))
    files.commit("kept/crowds", group.number, _by_place(members, "place", nodes).cast(TRAVELLING["crowds"]))
    by_place = _by_place(pairs, "a_place", nodes).cast(TRAVELLING["pairs"])
    return dict(files.commit("kept/pairs", group.number, by_place))


def _by_place(table: pa.Table, name: str, num_ranges: int) -> pa.Table:
    return with_ranges(table, groups_of(numbers(table.column(name), np.int64), num_ranges))
