"""The tasks that compare vectors: a sample for the clusters, each part's vectors to them, and the pairs of each range.

All parts are compared anew in every search, also those of earlier ones: comparing costs a two-thousandth of encoding.
Documents without a vector, which the policy's gate kept out, are left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.dedup.columns import identifier_halves, numbers, whole
from pipelines.dedup.components import TRAVELLING, edges_of
from pipelines.dedup.parameters import SemanticConfig
from pipelines.dedup.range_files import read_range
from pipelines.dedup.search.generations import Search
from pipelines.dedup.semantic import (
    MOST_SAMPLED,
    Vectors,
    choose_num_clusters,
    find_semantic_pairs,
    fit_centroids,
    scatter_vectors,
    stored_vectors,
    unit,
    vectors_schema,
)
from pipelines.dedup.shuffle import RANGE, groups_of, places, with_ranges
from pipelines.dedup.verify import CROWD_MEMBERS

Arguments = dict[str, Any]
Counts = dict[str, Any]


def _config(search: Search) -> SemanticConfig:
    config = search.config.semantic
    assert config is not None, "not asked for"
    return config


def sample_part_vectors(arguments: Arguments) -> Counts:
    """The vectors of a part's documents with the least doc_ids, a `share` of all; how many have one."""
    search, number = arguments["search"], arguments["number"]
    if done := search.files.facts("work/sampled-vectors", number):
        return dict(done)
    table = search.texts.vectors(number)
    table = table.filter(table["vector"].is_valid())
    high, _ = identifier_halves(table["doc_id"])
    chosen = table.filter(pa.array(high <= np.uint64(arguments["share"] * (2**64 - 2**12))))
    sampled = chosen.add_column(0, RANGE, pa.array(np.zeros(len(chosen), np.uint32)))
    return dict(search.files.commit("work/sampled-vectors", number, sampled, vectors=len(table)))


def fit_clusters(arguments: Arguments) -> Counts:
    """The centroids of as many clusters as `vectors` ask for, from all samples in the order of their doc_ids."""
    search = arguments["search"]
    if done := search.files.facts("work/centroids", 0):
        return dict(done)
    sampled = read_range(search.files.paths("work/sampled-vectors", range(search.now.end)), 0)
    high, low = identifier_halves(sampled["doc_id"])
    order = np.lexsort((low, high))[:MOST_SAMPLED]
    sample = unit(stored_vectors(sampled["vector"])[order])
    centroids = fit_centroids(sample, min(len(sample), choose_num_clusters(arguments["vectors"])))
    rows = pa.FixedSizeListArray.from_arrays(pa.array(centroids.reshape(-1)), sample.shape[1])
    table = pa.table({"range": pa.array(np.zeros(len(centroids), np.uint32)), "centroid": rows})
    return dict(search.files.commit("work/centroids", 0, table))


def _centroids(search: Search) -> Vectors:
    column = whole(read_range(search.files.paths("work/centroids", [0]), 0)["centroid"])
    flat: Vectors = column.flatten().to_numpy().copy()
    return flat.reshape(len(column), column.type.list_size)


def scatter_part_vectors(arguments: Arguments) -> Counts:
    """VECTORS of one part."""
    search, number = arguments["search"], arguments["number"]
    if done := search.files.facts("work/vectors", number):
        return dict(done)
    table = search.texts.vectors(number)
    rows = np.flatnonzero(table["vector"].is_valid().to_numpy())
    table = table.take(pa.array(rows))
    scattered = scatter_vectors(
        whole(table["doc_id"]),
        places(number, rows),
        stored_vectors(table["vector"]),
        _centroids(search),
        search.now.groups,
        _config(search).visits,
    )
    return dict(search.files.commit("work/vectors", number, scattered))


def find_range_semantic(arguments: Arguments) -> Counts:
    """Semantic PAIRS of one range of clusters by range of places, and how they tie documents together."""
    search, number = arguments["search"], arguments["number"]
    files, nodes = search.files, search.now.nodes
    if done := files.facts("kept/semantic", number):
        return dict(done)
    schema = vectors_schema(_centroids(search).shape[1])
    vectors = read_range(files.paths("work/vectors", range(search.now.end)), number, schema)
    pairs = find_semantic_pairs(vectors, _config(search))
    files.commit("kept/edges-semantic", number, edges_of(pairs, CROWD_MEMBERS.empty_table(), nodes))
    by_place = with_ranges(pairs, groups_of(numbers(pairs.column("a_place"), np.int64), nodes))
    return dict(files.commit("kept/semantic", number, by_place.cast(TRAVELLING["semantic"])))
