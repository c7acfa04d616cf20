"""The tasks from pairs to what a policy settles: components, then all of a component to one range, then to the parts.

They run over all generations: what ties documents together is small beside what finds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dedup.columns import numbers
from pipelines.dedup.components import (
    EDGES,
    MEMBERS,
    ROUTED_BY,
    TRAVELLING,
    contract_range,
    list_members,
    settle_ranges,
)
from pipelines.dedup.exact import COPIES
from pipelines.dedup.range_files import read_range
from pipelines.dedup.search.generations import Generation, Search
from pipelines.dedup.shuffle import groups_of, parts_of, with_ranges
from pipelines.dedup.verify import CROWD_MEMBERS, PAIRS, merge_pairs
from storage.parts import commit_table, find_part, part_to_json

Arguments = dict[str, Any]
Counts = dict[str, Any]

ENDS = ("node", "least")
_WRITTEN_BY = dict.fromkeys(("pairs", "crowds", "edges-pairs", "semantic", "edges-semantic"), "groups")


def contract_node_range(arguments: Arguments) -> Counts:
    """One round of one range of nodes; `changed` is 0 where every edge points at its least node already."""
    search, number, turn = arguments["search"], arguments["number"], arguments["round"]
    phase = f"work/edges-{turn + 1}"
    if done := search.files.facts(phase, number):
        return dict(done)
    edges, changed = contract_range(_edges(search, number, turn), search.now.nodes)
    return dict(search.files.commit(phase, number, edges, changed=int(changed)))


def _edges(search: Search, number: int, turn: int) -> pa.Table:
    """The EDGES of a range of nodes before a round."""
    if turn:
        return read_range(search.files.paths(f"work/edges-{turn}", range(search.now.nodes)), number, EDGES)
    kinds = ("edges-pairs", "edges-copies", "edges-urls", "edges-semantic")
    return pa.concat_tables([table for kind in kinds for table in _kept(search, kind, number, EDGES, ENDS)])


def _kept(search: Search, kind: str, number: int, schema: pa.Schema, places: tuple[str, ...]) -> Iterator[pa.Table]:
    """The rows of a range of nodes that all generations kept. An older range may hold several of now: only rows with
    one of `places` in the range are taken."""
    yield schema.empty_table()
    for generation in _keepers_of(search, kind):
        table = read_range(_files(search, generation, kind), number * generation.nodes // search.now.nodes, schema)
        yield table if generation.nodes == search.now.nodes else _share(search, table, number, places)


def _keepers_of(search: Search, kind: str) -> tuple[Generation, ...]:
    """The generations that kept files of that kind: of vectors only the last one, which compared all of them."""
    if not search.looks_for(kind):
        return ()
    return search.generations[-1:] if kind.endswith("semantic") else search.generations


def _files(search: Search, generation: Generation, kind: str) -> list[Path]:
    count = getattr(generation, _WRITTEN_BY.get(kind, "ranges"))
    return search.files_of(generation).paths(f"kept/{kind}", range(count))


def _share(search: Search, table: pa.Table, number: int, places: tuple[str, ...]) -> pa.Table:
    ranges = [groups_of(numbers(table.column(name), np.int64), search.now.nodes) for name in places]
    return table.filter(pa.array(np.logical_or.reduce([found == number for found in ranges])))


def route_node_range(arguments: Arguments) -> Counts:
    """What ties documents of one range of places together, to the ranges that settle their components."""
    search, number = arguments["search"], arguments["number"]
    files, nodes = search.files, search.now.nodes
    if done := files.facts("work/routed-pairs", number):
        return dict(done)
    edges = _edges(search, number, arguments["round"])
    for kind in ("copies", "urls", "semantic", "crowds", "pairs"):
        name = ROUTED_BY[kind]
        table = pa.concat_tables(_kept(search, kind, number, TRAVELLING[kind], (name,)))
        ranges = settle_ranges(edges, numbers(table.column(name), np.int64), nodes)
        done = files.commit(f"work/routed-{kind}", number, with_ranges(table, ranges))
    return dict(done or {})


def publish_settle_range(arguments: Arguments) -> Counts:
    """The published parts of one settle range, and its members on their way to their parts."""
    search, number = arguments["search"], arguments["number"]
    done = find_part(search.root / "pairs", _name(search, number))
    if done is None or search.files.facts("work/members", number) is None:
        routed = {kind: _routed(search, kind, number) for kind in TRAVELLING}
        tables = {
            "crowds": _crowds(routed["crowds"]),
            "copies": _copies(routed["copies"]),
            "urls": _copies(routed["urls"]),
            "semantic": merge_pairs([routed["semantic"].select(PAIRS.names)]),
            "pairs": merge_pairs([routed["pairs"].select(PAIRS.names)]),
        }
        members = list_members(**tables, settle=number)
        search.files.commit("work/members", number, members)
        for kind, table in tables.items():
            commit_table(search.root / kind, _name(search, number), table, schema=table.schema)
    return {kind: part_to_json(_published(search.root / kind, search, number)) for kind in TRAVELLING}


def publish_members(arguments: Arguments) -> Counts:
    """MEMBERS of one documents part, in its order: `checksum` is the part's."""
    search, number = arguments["search"], arguments["number"]
    members = read_range(search.files.paths("work/members", range(search.now.nodes)), number, MEMBERS).sort_by("place")
    part = commit_table(
        search.root / "members",
        _name(search, number),
        members.drop_columns(["range"]),
        schema=pa.schema(list(MEMBERS)[1:]),
        of=arguments["checksum"],
        facts={"number": number},
    )
    return {"members": part_to_json(part)}


def _name(search: Search, number: int) -> str:
    return f"{search.now.base}-{number}"


def _published(folder: Path, search: Search, number: int) -> Any:
    part = find_part(folder, _name(search, number))
    assert part is not None, "committed just now"
    return part


def _routed(search: Search, kind: str, number: int) -> pa.Table:
    files = search.files.paths(f"work/routed-{kind}", range(search.now.nodes))
    return read_range(files, number, TRAVELLING[kind])


def _copies(copies: pa.Table) -> pa.Table:
    """COPIES, `range` the part of each again, in the order of places."""
    copies = copies.sort_by("place")
    return with_ranges(copies, parts_of(numbers(copies.column("place"), np.int64)).astype(np.uint32)).cast(COPIES)


def _crowds(crowds: pa.Table) -> pa.Table:
    """CROWD_MEMBERS, each once: a crowd that grew was kept by several generations."""
    unique = crowds.select(CROWD_MEMBERS.names).group_by(CROWD_MEMBERS.names, use_threads=False).aggregate([])
    order = pc.sort_indices(unique, [("bucket", "ascending"), ("place", "ascending")])
    return unique.take(order).select(CROWD_MEMBERS.names).cast(CROWD_MEMBERS)
