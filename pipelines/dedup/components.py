"""Connected components of more documents than one task can hold: rounds of contraction over ranges of nodes.

Edges tie places: verified pairs, exact copies, documents of one URL, members of one crowd. Each task replaces the edges
that it sees by stars round their least nodes, and each edge travels to the ranges of both its ends. When a round
changes nothing, every edge points at its component's least node: the alternating stars of Kiveris et al. ("Connected
Components in MapReduce and Beyond", 2014), with a whole range contracted at once instead of one node's neighbours.

Two million documents in chains of 64, which the web does not have, took 8 rounds over 8 ranges, 10 over 64 and 2 over
one, and at most 3.4 times their edges in between. A task holds its range's edges (16 bytes each), never a tree's root,
which would hold them all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.dedup.columns import identifier_halves, numbers, whole
from pipelines.dedup.exact import COPIES
from pipelines.dedup.pairs import find_components
from pipelines.dedup.shuffle import PLACE, groups_of, parts_of, shuffled_schema, with_ranges
from pipelines.dedup.verify import CROWD_MEMBERS, PAIRS
from storage.schema import IDENTIFIER

EDGES = shuffled_schema(("node", PLACE), ("least", PLACE))
"""`least` < `node`. `range`: that of the node and that of the least, a row for each."""

MEMBERS = shuffled_schema(("place", PLACE), ("doc_id", IDENTIFIER), ("settle", pa.uint32()), ("cluster_id", IDENTIFIER))
"""Documents in a pair of any kind, a copy, a crowd or a group of one URL. `range`: their part; `settle`: that of what
they are tied to; `cluster_id`: the least doc_id of what pairs and copies tie together, whatever their similarity."""

Integers = npt.NDArray[np.int64]


def contract_edges(first: Integers, second: Integers) -> tuple[Integers, Integers]:
    """(nodes, leasts): a star round the least node of each component; each node once, ascending, without the leasts."""
    nodes, where = np.unique(np.concatenate([first, second]), return_inverse=True)
    least = find_components(len(nodes), where[: len(first)], where[len(first) :])
    moved = least != np.arange(len(nodes))
    return nodes[moved], nodes[least[moved]]


def edges_table(nodes: Integers, leasts: Integers, num_ranges: int) -> pa.Table:
    """EDGES for both ends."""
    ranges, others = groups_of(nodes, num_ranges), groups_of(leasts, num_ranges)
    apart = ranges != others
    columns = [np.concatenate([column, column[apart]]) for column in (nodes, leasts)]
    table = pa.table([pa.array(column) for column in columns], names=["node", "least"])
    return with_ranges(table, np.concatenate([ranges, others[apart]])).cast(EDGES)


def contract_range(edges: pa.Table, num_ranges: int) -> tuple[pa.Table, bool]:
    """(EDGES after one round of one range, whether they differ from what came in)."""
    before = [numbers(edges.column(name), np.int64) for name in ("node", "least")]
    nodes, leasts = contract_edges(before[0], before[1])
    order = np.lexsort((before[1], before[0]))
    new = np.ones(len(order), np.bool_)
    sorted_nodes, sorted_leasts = before[0][order], before[1][order]
    new[1:] = (sorted_nodes[1:] != sorted_nodes[:-1]) | (sorted_leasts[1:] != sorted_leasts[:-1])
    same = np.array_equal(sorted_nodes[new], nodes) and np.array_equal(sorted_leasts[new], leasts)
    return edges_table(nodes, leasts, num_ranges), not same


def edges_of(pairs: pa.Table, crowds: pa.Table, num_ranges: int) -> pa.Table:
    """EDGES of PAIRS and CROWD_MEMBERS, already contracted."""
    leaders, members = _crowd_edges(crowds)
    first = np.concatenate([numbers(pairs.column("a_place"), np.int64), leaders])
    second = np.concatenate([numbers(pairs.column("b_place"), np.int64), members])
    return edges_table(*contract_edges(first, second), num_ranges)


def edges_of_copies(copies: pa.Table, num_ranges: int) -> pa.Table:
    """EDGES of COPIES, already contracted."""
    ends = [numbers(copies.column(name), np.int64) for name in ("place", "representative_place")]
    return edges_table(*contract_edges(*ends), num_ranges)


def _crowd_edges(crowds: pa.Table) -> tuple[Integers, Integers]:
    """Each member with one of its bucket."""
    buckets, places = numbers(crowds.column("bucket"), np.uint64), numbers(crowds.column("place"), np.int64)
    _, first, where = np.unique(buckets, return_index=True, return_inverse=True)
    return places[first[where]], places


def settle_ranges(edges: pa.Table, places: Integers, num_ranges: int) -> npt.NDArray[np.uint32]:
    """uint32[n]: the range that settles each place's component, from the EDGES of the last round of the place's range.

    A place without an edge is its own least: it stands in no component but its own.
    """
    nodes, leasts = contract_edges(*(numbers(edges.column(name), np.int64) for name in ("node", "least")))
    rows = np.searchsorted(nodes, places)
    found = np.append(nodes, -1)[rows] == places
    return groups_of(np.where(found, np.append(leasts, -1)[rows], places), num_ranges)


def list_members(
    pairs: pa.Table, copies: pa.Table, crowds: pa.Table, urls: pa.Table, semantic: pa.Table, settle: int
) -> pa.Table:
    """MEMBERS of one settle range, from its PAIRS, COPIES, CROWD_MEMBERS, COPIES by URL and PAIRS by meaning."""
    ends = ((pairs, "a_place", "a_doc_id"), (copies, "place", "doc_id"))
    others = ((pairs, "b_place", "b_doc_id"), (copies, "representative_place", "representative"))
    alone = [(table, *end[1:]) for table, of in ((urls, 1), (semantic, 0)) for end in (ends[of], others[of])]
    columns = (*ends, *others, (crowds, "place", "doc_id"), *alone)
    every = np.concatenate([numbers(table.column(place), np.int64) for table, place, _ in columns])
    doc_ids = pa.concat_arrays([whole(table.column(doc_id)) for table, _, doc_id in columns])
    places, first, where = np.unique(every, return_index=True, return_inverse=True)
    names, tied = doc_ids.take(pa.array(first)), len(pairs) + len(copies)
    clusters = _cluster(names, where[:tied], where[tied : 2 * tied])
    fields = [pa.array(places), names, pa.array(np.full(len(places), settle, np.uint32)), clusters]
    return with_ranges(pa.table(fields, schema=pa.schema(list(MEMBERS)[1:])), parts_of(places).astype(np.uint32))


def _cluster(names: pa.Array, first: Integers, second: Integers) -> pa.Array:
    """The least doc_id of each document's component."""
    high, low = identifier_halves(names)
    order = np.lexsort((low, high))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return names.take(pa.array(order[find_components(len(order), rank[first], rank[second])[rank]]))


TRAVELLING = {
    "pairs": pa.schema([MEMBERS.field("range"), *PAIRS]),
    "copies": COPIES,
    "urls": COPIES,
    "semantic": pa.schema([MEMBERS.field("range"), *PAIRS]),
    "crowds": pa.schema([MEMBERS.field("range"), *CROWD_MEMBERS]),
}
"""What is routed, first by the range of a place (`ROUTED_BY`), then by the range that settles its component."""

ROUTED_BY = {"pairs": "a_place", "copies": "place", "urls": "place", "semantic": "a_place", "crowds": "place"}
