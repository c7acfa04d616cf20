"""Canaries: the recall that they measure is the truth, a broken search is seen, and nothing of them stays."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pyarrow as pa
import pytest

from pipelines.dedup import canaries as canaries_module
from pipelines.dedup.canaries import measure_recall, plant_canaries
from pipelines.dedup.deduplicate import Duplicates, find_duplicates
from pipelines.dedup.parameters import DedupConfig, SignatureConfig, near_duplicates
from pipelines.dedup.reference import jaccard, make_shingles


@pytest.fixture(scope="module")
def texts() -> list[str]:
    chance = random.Random(1)
    return [" ".join(f"w{chance.randrange(5000)}" for _ in range(chance.randrange(80, 300))) for _ in range(220)]


def test_planted_pairs_have_the_similarity_that_is_claimed_and_spread_over_the_bands(texts: list[str]) -> None:
    config = DedupConfig()
    planted = plant_canaries(config, texts, random.Random(3), 200)
    for canary in planted:
        sets = [make_shingles(text, config.signature) for text in (canary.original, canary.variant)]
        assert canary.similarity == jaccard(*sets) < 1
    similarities = [canary.similarity for canary in planted]
    assert min(similarities) < 0.75 and sum(s >= 0.8 for s in similarities) > 120


def test_recall_is_near_what_bands_and_rows_promise_and_precision_is_one(texts: list[str]) -> None:
    report = measure_recall(DedupConfig(), texts, seed=3, num_pairs=200)
    assert report.precision == 1.0
    assert report.recall is not None and report.recall >= 0.97
    assert [band.found for band in report.bands[:1]] == [0]
    assert all(band.planted >= 15 for band in report.bands)


def test_a_search_with_too_few_bands_is_seen(texts: list[str]) -> None:
    poor = DedupConfig(signature=SignatureConfig(bands=2, rows=12))
    report = measure_recall(poor, texts, seed=3, num_pairs=200)
    lowest = report.bands[1]
    assert lowest.found / lowest.planted < 0.4
    assert lowest.found / lowest.planted == pytest.approx(lowest.expected, abs=0.15)


def test_false_pairs_are_seen(texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def reports_everything(parts: Sequence[pa.Table], config: DedupConfig) -> Duplicates:
        found = find_duplicates(parts, config)
        extra = found.pairs.slice(0, 1).set_column(1, found.pairs.schema.field(1), parts[0]["doc_id"].slice(7, 1))
        return Duplicates(pa.concat_tables([found.pairs, extra]), found.copies, found.crowds, 0)

    monkeypatch.setattr(canaries_module, "find_duplicates", reports_everything)
    precision = measure_recall(DedupConfig(), texts, seed=3, num_pairs=60).precision
    assert precision is not None and precision < 1.0


def test_the_same_seed_gives_the_same_report(texts: list[str]) -> None:
    assert measure_recall(DedupConfig(), texts, 5, 40) == measure_recall(DedupConfig(), texts, 5, 40)


def test_a_run_without_texts_that_can_carry_a_canary_says_so() -> None:
    report = measure_recall(DedupConfig(), ["too short", "also short"], seed=1)
    assert report.recall is None and report.precision is None


def test_texts_shorter_than_two_long_shingles_carry_no_canary(texts: list[str]) -> None:
    config = near_duplicates(shingle_size=40)
    short = [" ".join(text.split()[:70]) for text in texts]
    assert measure_recall(config, short, seed=1, num_pairs=40).recall is None
    assert measure_recall(config, [*short, *texts], seed=1, num_pairs=40).precision == 1.0


def test_chinese_texts_carry_canaries() -> None:
    chance = random.Random(2)
    texts = ["".join(chr(0x4E00 + chance.randrange(3000)) for _ in range(200)) for _ in range(60)]
    report = measure_recall(DedupConfig(), texts, seed=1, num_pairs=60)
    assert sum(band.planted for band in report.bands[1:]) >= 30
    assert report.recall is not None and report.recall >= 0.95
