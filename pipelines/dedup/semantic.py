"""Semantic duplicates: documents whose vectors point the same way, found cluster by cluster.

The corpus is cut by k-means on a sample. Every document lives in the cluster of its nearest centroid and visits the
next few; within a cluster residents are compared with residents and visitors. A pair counts by the exact cosine of the
two vectors as they are stored, whatever product found it, so the same pair has the same similarity on any device and in
any cluster. In a crowd a document keeps its most alike `neighbour_limit` only.

Trade-off: sqrt(n) clusters balance finding the cluster (n x clusters) and comparing in it (n x n / clusters). Pairs
whose ends live apart and visit past one another are missed: of 1,499 pairs of real documents with a cosine of 0.9 or
more 2.1 % with one cluster a document, none with two or three; of 8,081 with 0.8 or more 20 %, 4 % and 1 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.dedup.columns import identifier_halves, numbers, read_only, whole
from pipelines.dedup.pairs import pair_with_hubs
from pipelines.dedup.parameters import SemanticConfig
from pipelines.dedup.shuffle import PLACE, shuffled_schema
from pipelines.dedup.verify import pairs_table
from storage.schema import IDENTIFIER

Vectors = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]
Integers = npt.NDArray[np.int64]
Cosines = npt.NDArray[np.float64]

ROUNDS = 12
NUM_HUBS = 4
MOST_SAMPLED = 200_000
BLOCK = 2048
"""Rows of a product at a time: 16 MB of cosines."""
SLACK = 1e-3
"""How far below the threshold a product in single precision (or TensorFloat32) is still looked at exactly."""


def vectors_schema(width: int) -> pa.Schema:
    """VECTORS: documents on their way to a cluster. `range`: the range of the cluster; `lives`: it is the nearest."""
    vector = pa.list_(pa.float16(), width)
    return shuffled_schema(
        ("cluster", pa.uint32()), ("lives", pa.bool_()), ("place", PLACE), ("doc_id", IDENTIFIER), ("vector", vector)
    )


def choose_num_clusters(num_documents: int) -> int:
    return max(1, round(math.sqrt(num_documents)))


def fit_centroids(sample: Vectors, num_clusters: int) -> Vectors:
    """float32[k, width] of length 1: spherical k-means from the first k rows; the order of the sample decides."""
    centroids = sample[:num_clusters].copy()
    for _ in range(ROUNDS):
        nearest = find_nearest(sample, centroids, 1)[:, 0]
        order = np.argsort(nearest, kind="stable")
        found, starts = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(sample[order], starts, axis=0)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centroids[found] = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centroids[found])
    return centroids


def find_nearest(vectors: Vectors, centroids: Vectors, count: int) -> Integers:
    """int64[n, min(count, k)]: the nearest centroids of each vector, the nearest first."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    turned = torch.from_numpy(centroids).to(device).T
    found = np.empty((len(vectors), min(count, len(centroids))), np.int64)
    for start in range(0, len(vectors), BLOCK):
        cosines = torch.from_numpy(vectors[start : start + BLOCK]).to(device) @ turned
        found[start : start + BLOCK] = torch.topk(cosines, found.shape[1], dim=1).indices.cpu().numpy()
    return found


def scatter_vectors(
    doc_ids: pa.Array, places: Integers, vectors: Halves, centroids: Vectors, num_ranges: int, visits: int
) -> pa.Table:
    """VECTORS of one part, a row for each cluster that a document lives in or visits, by range."""
    nearest = find_nearest(unit(vectors), centroids, visits)
    rows = np.repeat(np.arange(len(vectors)), nearest.shape[1])
    lives = np.tile(np.arange(nearest.shape[1]) == 0, len(vectors))
    clusters = nearest.reshape(-1)
    ranges = clusters * num_ranges // len(centroids)
    order = np.lexsort((rows, clusters))
    rows = rows[order]
    columns = [
        pa.array(ranges[order].astype(np.uint32)),
        pa.array(clusters[order].astype(np.uint32)),
        pa.array(lives[order]),
        pa.array(places[rows]),
        doc_ids.take(pa.array(rows)),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors[rows].reshape(-1)), vectors.shape[1]),
    ]
    return pa.table(columns, schema=vectors_schema(vectors.shape[1]))


def find_semantic_pairs(table: pa.Table, config: SemanticConfig) -> pa.Table:
    """PAIRS of one range of VECTORS; `similarity` is the cosine."""
    high, low = identifier_halves(table.column("doc_id"))
    clusters = numbers(table.column("cluster"), np.uint32)
    order = np.lexsort((low, high, clusters))
    vectors, lives = stored_vectors(table.column("vector")), numbers(table.column("lives"), np.bool_)
    cuts = np.append(np.flatnonzero(np.diff(clusters[order], prepend=-1)), len(order))
    found = [_EMPTY]
    for start, end in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        members = order[start:end]
        first, second, cosines = _pairs_of(vectors[members], lives[members], config)
        found.append((members[first], members[second], cosines))
    first, second, cosines = (np.concatenate(column) for column in zip(*found, strict=True))
    places = numbers(table.column("place"), np.int64)
    return pairs_table(whole(table.column("doc_id")), places, first, second, cosines)


_EMPTY = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))


def stored_vectors(column: pa.Array | pa.ChunkedArray) -> Halves:
    """float16[n, width] of a vector column without nulls."""
    array = whole(column)
    flat = array.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float16).reshape(len(array), array.type.list_size)


def unit(vectors: Halves) -> Vectors:
    """float32[n, width] of length 1; rounding to halves has moved the length by up to 0.001."""
    wide = vectors.astype(np.float32)
    wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.float32(1e-12))
    return wide


def _pairs_of(
    vectors: Halves, lives: npt.NDArray[np.bool_], config: SemanticConfig
) -> tuple[Integers, Integers, Cosines]:
    """(rows, rows, cosines) of a cluster: each pair with a resident once, capped by the more alike.

    Of equal vectors only the first is compared with others; it and the next three are tied to all of their equals.
    """
    firsts, first, second = _find_twins(vectors)
    resident = lives[first]
    first, second = first[resident], second[resident]
    found = [(first, second, exact_cosines(vectors, first, second))]
    for rows, here in _cut(vectors, firsts, lives, config):
        residents = np.flatnonzero(here)
        for start in range(0, len(residents), BLOCK):
            first, second = _candidates(vectors, rows, residents[start : start + BLOCK], here, config)
            found.append((rows[first], rows[second], exact_cosines(vectors, rows[first], rows[second])))
    first, second, cosines = (np.concatenate(column) for column in zip(*found, strict=True))
    enough = cosines >= config.threshold
    return first[enough], second[enough], cosines[enough]


def _find_twins(vectors: Halves) -> tuple[Integers, Integers, Integers]:
    """(the first row of each vector, and rows with equal vectors as pairs): a page that stands a million times costs
    four million pairs and one row of the products."""
    factors = np.random.default_rng(0).integers(1, 2**63, vectors.shape[1], np.uint64) * np.uint64(2) + np.uint64(1)
    codes = np.ascontiguousarray(vectors).view(np.uint16).astype(np.uint64) @ factors
    order = np.argsort(codes, kind="stable")
    hubs, twins = pair_with_hubs(read_only(codes[order]), NUM_HUBS)
    starts = np.flatnonzero(np.concatenate([[True], np.diff(codes[order]) != 0])[: len(order)])
    return np.sort(order[starts]), order[hubs], order[twins]


def _cut(
    vectors: Halves, rows: Integers, lives: npt.NDArray[np.bool_], config: SemanticConfig
) -> Iterator[tuple[Integers, npt.NDArray[np.bool_]]]:
    """(rows, whether they live there) of the cluster, or of its parts where it is too large for one product."""
    if len(rows) <= config.most_rows:
        yield rows, lives[rows]
        return
    wide = unit(vectors[rows])
    sample = wide[:: -(-len(rows) // MOST_SAMPLED)]
    centroids = fit_centroids(sample, -(-2 * len(rows) // config.most_rows))
    nearest = find_nearest(wide, centroids, config.visits)
    for cluster in range(len(centroids)):
        inside = np.flatnonzero((nearest == cluster).any(axis=1))
        yield rows[inside], lives[rows[inside]] & (nearest[inside, 0] == cluster)


def _candidates(
    vectors: Halves, rows: Integers, residents: Integers, lives: npt.NDArray[np.bool_], config: SemanticConfig
) -> tuple[Integers, Integers]:
    """Rows of `rows` that come near the threshold: a block of residents with all later residents and all visitors."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    block = torch.from_numpy(unit(vectors[rows[residents]])).to(device)
    first, second, products = _EMPTY[0], _EMPTY[0], np.empty(0, np.float32)
    for start in range(0, len(rows), BLOCK):
        others = np.arange(start, min(start + BLOCK, len(rows)))
        cosines = (block @ torch.from_numpy(unit(vectors[rows[others]])).to(device).T).cpu().numpy()
        a, b = np.nonzero(cosines >= config.threshold - SLACK)
        is_turn = (others[b] > residents[a]) | ~lives[others[b]]
        a, b = a[is_turn], b[is_turn]
        first, second, products = _most_alike(
            np.concatenate([first, residents[a]]),
            np.concatenate([second, others[b]]),
            np.concatenate([products, cosines[a, b]]),
            config.neighbour_limit,
        )
    return first, second


def _most_alike(first: Integers, second: Integers, products: Vectors, limit: int) -> tuple[Integers, Integers, Vectors]:
    """The `limit` pairs of greatest product of each first; equal ones by the second."""
    order = np.lexsort((second, -products, first))
    starts = np.searchsorted(first[order], first[order])
    order = order[np.arange(len(order)) - starts < limit]
    return first[order], second[order], products[order]


def exact_cosines(vectors: Halves, first: Integers, second: Integers) -> Cosines:
    """float64[n] of pairs of rows, from the stored vectors in double precision: no product's order of sums counts."""
    cosines = np.empty(len(first), np.float64)
    for start in range(0, len(first), BLOCK):
        a, b = (vectors[rows[start : start + BLOCK]].astype(np.float64) for rows in (first, second))
        lengths = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
        cosines[start : start + BLOCK] = (a * b).sum(axis=1) / np.maximum(lengths, 1e-12)
    return np.minimum(cosines, 1.0)
