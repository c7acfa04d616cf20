"""Exact copies: documents whose normalised texts have the same 128-bit hash collapse to one node.

The representative is the member with the least doc_id, whatever the order of parts; who of them is *kept* is decided
later, by the policy. Copies are left out of the near-duplicate search, so a page that stands a million times costs
it no more than one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dedup.columns import identifier_halves, numbers
from pipelines.dedup.shuffle import PLACE, parts_of, places, ranges_of, shuffled_schema
from storage.schema import IDENTIFIER

HASHES = shuffled_schema(("content_hash", IDENTIFIER), ("doc_id", IDENTIFIER), ("place", PLACE))
"""`range`: of the content hash."""

COPIES = shuffled_schema(
    ("place", PLACE), ("doc_id", IDENTIFIER), ("representative", IDENTIFIER), ("representative_place", PLACE)
)
"""One row a copy that is not its group's representative. `range`: the copy's part."""


def scatter_hashes(signatures: pa.Table, part: int, num_ranges: int) -> pa.Table:
    """HASHES of one part, from its SIGNATURES."""
    rows = np.flatnonzero(signatures.column("content_hash").is_valid().to_numpy())
    signed = signatures.select(["content_hash", "doc_id"]).take(pa.array(rows))
    high, _ = identifier_halves(signed.column("content_hash"))
    ranges = ranges_of(high, num_ranges)
    table = pa.table([pa.array(ranges), *signed.columns, pa.array(places(part, rows))], schema=HASHES)
    return table.take(pa.array(np.argsort(ranges, kind="stable")))


def group_copies(hashes: pa.Table, fresh_from: int = 0) -> pa.Table:
    """COPIES of one range of HASHES. A document below the place `fresh_from` is its group's representative already."""
    hashes = hashes.take(pa.array(_rows_that_share(identifier_halves(hashes.column("content_hash"))[0])))
    hash_high, hash_low = identifier_halves(hashes.column("content_hash"))
    doc_high, doc_low = identifier_halves(hashes.column("doc_id"))
    places = numbers(hashes.column("place"), np.int64)
    order = np.lexsort((places, doc_low, doc_high, places >= fresh_from, hash_low, hash_high))
    hash_high, hash_low = hash_high[order], hash_low[order]
    starts = np.ones(len(order), np.bool_)
    starts[1:] = (hash_high[1:] != hash_high[:-1]) | (hash_low[1:] != hash_low[:-1])
    representatives = order[np.flatnonzero(starts)][np.cumsum(starts) - 1]
    return _copies_table(hashes, order[~starts], representatives[~starts])


def _rows_that_share(high: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Rows whose value is not the only one of its kind: most are, and need no full sort."""
    order = np.argsort(high)
    same = high[order][1:] == high[order][:-1]
    shares = np.zeros(len(high), np.bool_)
    shares[order[1:][same]] = True
    shares[order[:-1][same]] = True
    return np.flatnonzero(shares)


def _copies_table(hashes: pa.Table, copies: npt.NDArray[np.int64], representatives: npt.NDArray[np.int64]) -> pa.Table:
    places = numbers(hashes.column("place"), np.int64)
    columns = [
        pa.array(parts_of(places[copies]).astype(np.uint32)),
        pa.array(places[copies]),
        hashes.column("doc_id").take(pa.array(copies)),
        hashes.column("doc_id").take(pa.array(representatives)),
        pa.array(places[representatives]),
    ]
    table = pa.table(columns, schema=COPIES)
    return table.take(pc.sort_indices(table, [("range", "ascending"), ("place", "ascending")]))
