"""Semantic pairs: those of brute force, with the same cosine whatever the clusters, ranges and blocks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from pipelines.dedup import semantic
from pipelines.dedup.parameters import SemanticConfig
from pipelines.dedup.semantic import (
    choose_num_clusters,
    exact_cosines,
    find_nearest,
    find_semantic_pairs,
    fit_centroids,
    scatter_vectors,
    unit,
)
from pipelines.dedup.shuffle import gather_range
from storage.errors import RecipeError
from storage.schema import IDENTIFIER
from tests.pipelines.dedup.dedup_corpora import as_set, doc_id, near_pairs

WIDTH = 16


def families(count: int, size: int, spread: float, seed: int = 1) -> npt.NDArray[np.float16]:
    """Vectors round `count` directions, those of a family `spread` apart."""
    chance = np.random.default_rng(seed)
    centres = np.repeat(chance.normal(size=(count, WIDTH)), size, axis=0)
    vectors = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    vectors = vectors + spread * chance.normal(size=vectors.shape) / WIDTH**0.5
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(chance.permutation(vectors).astype(np.float16))


def search(
    vectors: npt.NDArray[np.float16], config: SemanticConfig, *, clusters: int = 1, num_ranges: int = 1, parts: int = 1
) -> pa.Table:
    """PAIRS of vectors named by their row, cut into parts and ranges."""
    names = pa.array([doc_id(i) for i in range(len(vectors))], IDENTIFIER)
    centroids = fit_centroids(unit(vectors), clusters)
    scattered = []
    for rows in np.array_split(np.arange(len(vectors)), parts):
        ids = names.take(pa.array(rows))
        scattered.append(scatter_vectors(ids, rows, vectors[rows], centroids, num_ranges, config.visits))
    schema = scattered[0].schema
    found = [find_semantic_pairs(gather_range(scattered, i, schema), config) for i in range(num_ranges)]
    return pa.concat_tables(found)


def brute_force(vectors: npt.NDArray[np.float16], threshold: float) -> dict[frozenset[object], float]:
    first, second = np.triu_indices(len(vectors), 1)
    cosines = exact_cosines(vectors, first, second)
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    assert np.allclose(cosines, (wide @ wide.T)[first, second], atol=1e-12)
    enough = cosines >= threshold
    pairs = zip(first[enough].tolist(), second[enough].tolist(), cosines[enough].tolist(), strict=True)
    return {frozenset((a, b)): cosine for a, b, cosine in pairs}


@pytest.mark.parametrize("threshold", [0.85, 0.95])
def test_one_cluster_finds_the_pairs_of_brute_force(threshold: float) -> None:
    vectors = families(30, 5, 0.3)
    truth = brute_force(vectors, threshold)
    found = search(vectors, SemanticConfig(threshold=threshold))
    assert len(truth) > 20
    assert near_pairs(found, range(len(vectors))) == truth


def test_blocks_parts_and_ranges_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, config = families(40, 5, 0.3), SemanticConfig(threshold=0.8)
    whole = as_set(search(vectors, config, clusters=6))
    cut = search(vectors, config, clusters=6, num_ranges=4, parts=3)
    assert as_set(cut) == whole
    monkeypatch.setattr(semantic, "BLOCK", 7)
    assert as_set(search(vectors, config, clusters=6)) == whole


def test_clusters_miss_few_pairs_and_report_none_that_is_not() -> None:
    vectors = families(120, 6, 0.35)
    truth = brute_force(vectors, 0.85)
    recall = {}
    for visits in (1, 3):
        found = near_pairs(search(vectors, SemanticConfig(threshold=0.85, visits=visits), clusters=27), range(720))
        assert found.items() <= truth.items()
        recall[visits] = len(found) / len(truth)
    assert recall[3] > 0.99 > recall[1]


def test_a_cluster_that_is_too_large_is_cut() -> None:
    vectors = families(60, 6, 0.3)
    truth = brute_force(vectors, 0.9)
    found = near_pairs(search(vectors, SemanticConfig(threshold=0.9, most_rows=100)), range(360))
    assert found.items() <= truth.items() and len(found) >= 0.98 * len(truth)


def test_in_a_crowd_each_document_keeps_its_most_alike() -> None:
    vectors = families(1, 300, 0.2)
    few = search(vectors, SemanticConfig(threshold=0.8, neighbour_limit=4))
    every = near_pairs(search(vectors, SemanticConfig(threshold=0.8, neighbour_limit=300)), range(300))
    found = near_pairs(few, range(300))
    assert len(found) <= 4 * 300 < len(every)
    assert set(found) < set(every)
    assert np.mean(list(found.values())) > np.mean(list(every.values()))


def test_equal_vectors_have_a_cosine_of_one_and_empty_ones_none() -> None:
    vectors = np.zeros((4, WIDTH), np.float16)
    vectors[:2, 3] = 1
    assert near_pairs(search(vectors, SemanticConfig(threshold=0.5)), range(4)) == {frozenset((0, 1)): 1.0}


def test_equal_vectors_cost_few_pairs_and_stay_together() -> None:
    vectors = np.concatenate([np.repeat(families(1, 1, 0.1), 500, axis=0), families(8, 2, 0.2, seed=3)])
    found = near_pairs(search(vectors, SemanticConfig(threshold=0.9)), range(len(vectors)))
    twins = [pair for pair in found if max(pair) < 500]  # type: ignore[type-var]
    assert 500 <= len(twins) <= 4 * 500
    assert {name for pair in twins for name in pair} == set(range(500))
    assert len(found) - len(twins) >= 4


def test_nearest_centroids_come_in_order() -> None:
    vectors = unit(families(5, 20, 0.5))
    centroids = fit_centroids(vectors, 5)
    nearest = find_nearest(vectors, centroids, 5)
    cosines = np.take_along_axis(vectors @ centroids.T, nearest, axis=1)
    assert (np.diff(cosines, axis=1) <= 1e-6).all()
    assert np.allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    assert choose_num_clusters(1_000_000) == 1000 and choose_num_clusters(0) == 1


@pytest.mark.parametrize("wrong", [{"threshold": 0.0}, {"threshold": 1.5}, {"visits": 0}, {"neighbour_limit": 0}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        SemanticConfig(**wrong)  # type: ignore[arg-type]
