"""Real captures against brute force: Clough-Stevenson's revisions, Chinese articles in two dumps, Chinese web texts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pipelines.dedup.canaries import measure_recall
from pipelines.dedup.deduplicate import find_duplicates
from pipelines.dedup.parameters import DedupConfig, near_duplicates
from tests.pipelines.dedup.dedup_corpora import brute_force_pairs, corpus, exhaustive, near_pairs


def read_rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt") as lines:
        return [json.loads(line) for line in lines]


def test_clough_stevenson_pairs_are_those_of_brute_force(shared_data: Path) -> None:
    texts = [row["text"] for row in read_rows(shared_data / "neardup" / "clough-stevenson.jsonl.gz")]
    config = exhaustive(0.4)
    found = near_pairs(find_duplicates([corpus(texts)], config).pairs, range(len(texts)))
    truth = brute_force_pairs(texts, config)
    assert len(truth) >= 5
    assert found == truth


@pytest.mark.parametrize("preset", ["default", "datatrove", "cci4"])
def test_chinese_article_versions_are_found(shared_data: Path, preset: str) -> None:
    rows = read_rows(shared_data / "neardup" / "zh-wikipedia-versions.jsonl.gz")
    texts = [row[version][:6000] for version in "ab" for row in rows]
    config = near_duplicates(preset=preset)
    found = near_pairs(find_duplicates([corpus(texts)], config).pairs, range(len(texts)))
    truth = brute_force_pairs(texts, config)
    assert found.items() <= truth.items()
    assert len(truth) >= 5 and len(truth) - len(found) <= 1


def test_canaries_in_real_chinese_texts(shared_data: Path) -> None:
    texts = [row["text"] for row in read_rows(shared_data / "text" / "zh-web.jsonl.gz")]
    report = measure_recall(DedupConfig(), texts, seed=1, num_pairs=200)
    assert report.precision == 1.0
    assert report.recall is not None and report.recall >= 0.97
