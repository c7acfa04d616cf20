"""Candidates: documents that share a band, found range by range of the band keys.

Up to `bucket_limit` documents that share a key are paired each with each, unless their sizes alone rule the threshold
out. More are a *crowd*: no pairs are made here, its members go to the verification as they are, where each is compared
with a few leaders, so a bucket of a million costs a million times a few comparisons. Crowds above 8,192 members are
cut into slices by a hash of the content, never by place, so the result does not depend on how parts were cut.

A row in the shuffle is 24 bytes; 16 bands are 384 bytes a document, a sixth of a text of 2.3 KB.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.dedup.columns import identifier_bytes, numbers, read_only, whole
from pipelines.dedup.pairs import pair_buckets
from pipelines.dedup.parameters import DedupConfig
from pipelines.dedup.shuffle import PLACE, groups_of, places, ranges_of, rows_of, shuffled_schema

BANDS = shuffled_schema(("key", pa.uint64()), ("place", PLACE), ("num_shingles", pa.uint32()), ("tag", pa.uint32()))
"""One row a band of a document. `range`: of the key; `tag`: 32 bits of the content hash."""

CANDIDATES = shuffled_schema(("a_place", PLACE), ("b_place", PLACE))
"""Pairs with a band in common, a_place < b_place. `range`: the group that verifies them."""

CROWDS = shuffled_schema(("bucket", pa.uint64()), ("slice", pa.uint32()), ("place", PLACE))
"""Members of buckets that are too large to be paired. `range`: the group that verifies the slice."""

SLICE_MEMBERS = 8192
"""About 23 MB of shingles, at 350 a document."""

Integers = npt.NDArray[np.int64]


def scatter_bands(signatures: pa.Table, copies: pa.Table, part: int, num_ranges: int) -> pa.Table:
    """BANDS of one part, from its SIGNATURES, without the part's COPIES."""
    searched = signatures.column("bands").is_valid().to_numpy().copy()
    searched[rows_of(numbers(copies.column("place"), np.int64))] = False
    rows = np.flatnonzero(searched)
    bands = whole(signatures.column("bands"))
    keys = numbers(bands.take(pa.array(rows)).flatten(), np.uint64)
    ranges = ranges_of(keys, num_ranges)
    # Sixteen bits are sorted by radix: 2 us a document less than by the whole key, which the reader sorts by anyhow.
    order = np.argsort(ranges.astype(np.uint16) if num_ranges <= 1 << 16 else ranges, kind="stable")
    row = rows[order // bands.type.list_size]
    tags = np.ascontiguousarray(identifier_bytes(signatures.column("content_hash"))[:, 8:12]).view("<u4").reshape(-1)
    columns = [
        ranges[order],
        keys[order],
        places(part, row),
        numbers(signatures.column("num_shingles"), np.uint32)[row],
        tags[row],
    ]
    return pa.table([pa.array(column) for column in columns], schema=BANDS)


def find_candidates(bands: pa.Table, config: DedupConfig, num_groups: int) -> tuple[pa.Table, pa.Table]:
    """(CANDIDATES, CROWDS) of one range of BANDS, each row once, in order."""
    keys = numbers(bands.column("key"), np.uint64)
    order = np.argsort(keys)
    keys = read_only(keys[order])
    places = numbers(bands.column("place"), np.int64)[order]
    num_shingles = read_only(numbers(bands.column("num_shingles"), np.uint32)[order])
    first, second = pair_buckets(keys, num_shingles, config.bucket_limit, config.threshold)
    tags = numbers(bands.column("tag"), np.uint32)[order]
    crowds = _list_crowds(keys, places, tags, config.bucket_limit, num_groups)
    return candidates_table(places[first], places[second], num_groups), crowds


def candidates_table(first: Integers, second: Integers, num_groups: int) -> pa.Table:
    """CANDIDATES of pairs of places in any order, each once."""
    a, b = np.minimum(first, second), np.maximum(first, second)
    groups = groups_of(a, num_groups)
    order = np.lexsort((b, a, groups))
    a, b, groups = a[order], b[order], groups[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    columns = [groups[new], a[new], b[new]]
    return pa.table([pa.array(column) for column in columns], schema=CANDIDATES)


def _list_crowds(
    keys: npt.NDArray[np.uint64],
    places: Integers,
    tags: npt.NDArray[np.uint32],
    limit: int,
    num_groups: int,
) -> pa.Table:
    crowded = np.unique(keys[:-limit][keys[:-limit] == keys[limit:]])
    starts = np.searchsorted(keys, crowded)
    sizes = np.searchsorted(keys, crowded, side="right") - starts
    rows = np.repeat(starts, sizes) + np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    num_slices = (-(-sizes // SLICE_MEMBERS)).astype(np.uint64)
    slices = (tags[rows].astype(np.uint64) * np.repeat(num_slices, sizes)) >> np.uint64(32)
    # The least place names the group, because a crowd shares most of its bands: its texts then go to few groups.
    least = np.minimum.reduceat(places[rows], np.cumsum(sizes) - sizes) if len(sizes) else np.zeros(0, np.int64)
    groups = groups_of(np.repeat(least, sizes) + slices.astype(np.int64), num_groups)
    order = np.lexsort((places[rows], slices, keys[rows], groups))
    columns = [groups[order], keys[rows][order], slices[order].astype(np.uint32), places[rows][order]]
    return pa.table([pa.array(column) for column in columns], schema=CROWDS)
