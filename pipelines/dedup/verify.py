"""Verification: the true Jaccard similarity of the shingle sets of every candidate pair, from the texts themselves.

A group lists the rows that it wants, each part's texts are read once more for those rows only, and their shingles
travel to the groups (8 bytes a shingle, about the size of the text). A group's sets are in memory at a time;
`choose_num_groups` keeps them near 256 MB. One set of a pair is put into a hash table and the other looked up in it, so
none is sorted: of 430 shingles, 4 us a pair where sorting one set takes 15.

The sets hold 64-bit hashes of shingles: two sets of 1,000 differ from what strings would give once in 10^13.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.dedup.candidates import candidates_table
from pipelines.dedup.characters import character_tables
from pipelines.dedup.columns import identifier_halves, numbers, read_only, string_buffers, whole
from pipelines.dedup.kernels import collect_shingles
from pipelines.dedup.pairs import follow_leaders, measure_pairs
from pipelines.dedup.parameters import DedupConfig, SignatureConfig
from pipelines.dedup.shuffle import PLACE, choose_num_ranges, parts_of, rows_of, shuffled_schema
from pipelines.dedup.signatures import compose, normalise
from storage.errors import DatasetError
from storage.schema import IDENTIFIER

WANTED = shuffled_schema(("group", pa.uint32()), ("place", PLACE))
"""Documents whose shingles a group wants. `range`: the document's part."""

SHINGLES = shuffled_schema(("place", PLACE), ("doc_id", IDENTIFIER), ("shingles", pa.large_binary()))
"""Distinct shingles, uint64 each, packed into one value. `range`: the group that wants them."""

PAIRS = pa.schema(
    [
        pa.field("a_doc_id", IDENTIFIER, nullable=False),
        pa.field("b_doc_id", IDENTIFIER, nullable=False),
        pa.field("similarity", pa.float64(), nullable=False),
        pa.field("a_place", PLACE, nullable=False),
        pa.field("b_place", PLACE, nullable=False),
    ]
)
"""Verified pairs, a_doc_id < b_doc_id, by doc_ids."""

CROWD_MEMBERS = pa.schema(
    [
        pa.field("bucket", pa.uint64(), nullable=False),
        pa.field("doc_id", IDENTIFIER, nullable=False),
        pa.field("place", PLACE, nullable=False),
    ]
)
"""Who stood in which crowd: not every pair of them was compared, so keepers may ask for more (`keepers.py`)."""

TEXTS_AT_A_TIME = 1024
SHINGLES_PER_GROUP = 32_000_000

Integers = npt.NDArray[np.int64]
Sets = tuple[Integers, Integers, npt.NDArray[np.uint64]]
"""(starts, ends, values): set s is values[starts[s]:ends[s]]."""


def choose_num_groups(num_shingles: int) -> int:
    """How many groups a corpus of so many shingles asks for (256 MB each, if every document were a candidate)."""
    return choose_num_ranges(num_shingles, SHINGLES_PER_GROUP)


def list_wanted(candidates: pa.Table, crowds: pa.Table, group: int) -> pa.Table:
    """WANTED of one group, from its CANDIDATES and CROWDS."""
    columns = (candidates.column("a_place"), candidates.column("b_place"), crowds.column("place"))
    places = np.unique(np.concatenate([numbers(column, np.int64) for column in columns]))
    groups = np.full(len(places), group, np.uint32)
    return pa.table([pa.array(parts_of(places).astype(np.uint32)), pa.array(groups), pa.array(places)], schema=WANTED)


def read_shingles(documents: pa.Table, wanted: pa.Table, config: SignatureConfig) -> Iterator[pa.RecordBatch]:
    """SHINGLES for one part's WANTED rows, group after group; `documents` is that part, with `doc_id` and `text`.

    Each text is scanned once, however many groups want it.
    """
    places, groups = numbers(wanted.column("place"), np.int64), numbers(wanted.column("group"), np.uint32)
    order = np.lexsort((places, groups))
    rows, positions = np.unique(rows_of(places[order]), return_inverse=True)
    asked = _take(documents.select(["doc_id", "text"]), rows)
    batches = asked.to_batches(max_chunksize=TEXTS_AT_A_TIME)
    packed = pa.chunked_array([_pack_shingles(batch.column("text"), config) for batch in batches], pa.large_binary())
    found = _take(pa.table({"doc_id": asked.column("doc_id"), "shingles": packed}), positions)
    columns = [pa.array(groups[order]), pa.array(places[order]), *found.columns]
    yield from pa.table(columns, schema=SHINGLES).to_batches()


def _take(table: pa.Table, rows: Integers) -> pa.Table:
    """Those rows; the table itself, uncopied, where that is all of them in their order."""
    return table if np.array_equal(rows, np.arange(len(table))) else table.take(pa.array(rows))


def _pack_shingles(texts: pa.Array, config: SignatureConfig) -> pa.LargeBinaryArray:
    tables, by_word = character_tables(), config.unit == "words"
    # White space is no part of a word, so words may be cut before it is collapsed.
    offsets, data = string_buffers(compose(texts)) if by_word else normalise(texts)
    offsets, shingles = collect_shingles(offsets, data, by_word, config.shingle_size, tables.kinds, tables.lower)
    buffers = [None, pa.py_buffer(8 * offsets), pa.py_buffer(shingles)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(texts), buffers)


def verify_pairs(
    candidates: pa.Table, crowds: pa.Table, shingles: pa.Table, config: DedupConfig
) -> tuple[pa.Table, pa.Table]:
    """(PAIRS, CROWD_MEMBERS) of one group, from its CANDIDATES, CROWDS and SHINGLES.

    Raises DatasetError when SHINGLES lack a document that the others name.
    """
    places = numbers(shingles.column("place"), np.int64)
    order = np.argsort(places, kind="stable")
    places = places[order]
    sets = _sets(shingles.column("shingles"), order)
    ends = [numbers(candidates.column(name), np.int64) for name in ("a_place", "b_place")]
    candidates = candidates_table(ends[0], ends[1], num_groups=1)
    first, second = (_find_places(places, candidates.column(name)) for name in ("a_place", "b_place"))
    similarities = measure_pairs(*sets, first, second)
    enough = similarities >= config.threshold
    members = _find_places(places, crowds.column("place"))
    doc_ids = whole(shingles.column("doc_id")).take(pa.array(order))
    stars = _follow_leaders(crowds, members, doc_ids, sets, config)
    pairs = pairs_table(
        doc_ids,
        places,
        np.concatenate([first[enough], stars[0]]),
        np.concatenate([second[enough], stars[1]]),
        np.concatenate([similarities[enough], stars[2]]),
    )
    return pairs, _crowd_members(crowds, members, doc_ids)


def merge_pairs(tables: list[pa.Table]) -> pa.Table:
    """PAIRS of several groups as one table, each pair once, by doc_ids. Memory: 120 bytes a pair."""
    pairs = pa.concat_tables([PAIRS.empty_table(), *tables])
    doc_ids = pa.concat_arrays([whole(pairs.column(name)) for name in ("a_doc_id", "b_doc_id")])
    places = np.concatenate([numbers(pairs.column(name), np.int64) for name in ("a_place", "b_place")])
    first = np.arange(len(pairs))
    return pairs_table(doc_ids, places, first, first + len(pairs), numbers(pairs.column("similarity"), np.float64))


def pairs_table(
    doc_ids: pa.Array, places: Integers, first: Integers, second: Integers, similarities: npt.NDArray[np.float64]
) -> pa.Table:
    """PAIRS of pairs of rows of `doc_ids` and their `places`, in any order, each once."""
    high, low = identifier_halves(doc_ids)
    swap = (high[first] > high[second]) | ((high[first] == high[second]) & (low[first] > low[second]))
    a, b = np.where(swap, second, first), np.where(swap, first, second)
    order = np.lexsort((low[b], high[b], low[a], high[a]))
    a, b = a[order], b[order]
    new = np.ones(len(order), np.bool_)
    for half, rows in ((high, a), (low, a), (high, b), (low, b)):
        new[1:] &= half[rows[1:]] == half[rows[:-1]]
    new[1:] = ~new[1:]
    a, b = a[new], b[new]
    ends = [doc_ids.take(pa.array(a)), doc_ids.take(pa.array(b))]
    columns = [*ends, pa.array(similarities[order][new]), pa.array(places[a]), pa.array(places[b])]
    return pa.table(columns, schema=PAIRS)


def _sets(shingles: pa.ChunkedArray, order: Integers) -> Sets:
    """The sets of the rows in that order, gathered once from the buffers that they came in."""
    sizes, values = [np.zeros(1, np.int64)], [np.zeros(0, np.uint64)]
    for packed in shingles.chunks:
        offsets = np.frombuffer(packed.buffers()[1], np.int64)[packed.offset : packed.offset + len(packed) + 1] // 8
        sizes.append(np.diff(offsets))
        values.append(np.frombuffer(packed.buffers()[2], np.uint64)[offsets[0] : offsets[-1]])
    bounds = np.cumsum(np.concatenate(sizes))
    return read_only(bounds[:-1][order]), read_only(bounds[1:][order]), read_only(np.concatenate(values))


def _find_places(places: Integers, asked: pa.ChunkedArray) -> Integers:
    """int64[n]: the rows of the asked places in `places`, which ascend."""
    wanted = numbers(asked, np.int64)
    rows = np.searchsorted(places, wanted)
    found = places[np.minimum(rows, len(places) - 1)] == wanted if len(places) else np.zeros(len(wanted), np.bool_)
    if not found.all():
        raise DatasetError(
            f"the shingles of {len(np.unique(wanted[~found]))} documents that are to be verified are missing",
            hint="run deduplication again",
        )
    return read_only(rows)


def _follow_leaders(
    crowds: pa.Table, members: Integers, doc_ids: pa.Array, sets: Sets, config: DedupConfig
) -> tuple[Integers, Integers, npt.NDArray[np.float64]]:
    bucket, cut = numbers(crowds.column("bucket"), np.uint64), numbers(crowds.column("slice"), np.uint32)
    high, low = identifier_halves(doc_ids)
    order = np.lexsort((low[members], high[members], cut, bucket))
    bucket, cut = bucket[order], cut[order]
    new = np.concatenate([[True], (bucket[1:] != bucket[:-1]) | (cut[1:] != cut[:-1])])[: len(order)]
    starts = np.append(np.flatnonzero(new), len(order))
    return follow_leaders(starts, members[order], *sets, config.threshold, config.leader_limit)


def _crowd_members(crowds: pa.Table, members: Integers, doc_ids: pa.Array) -> pa.Table:
    columns = [crowds.column("bucket"), doc_ids.take(pa.array(members)), crowds.column("place")]
    return pa.table(columns, schema=CROWD_MEMBERS)
