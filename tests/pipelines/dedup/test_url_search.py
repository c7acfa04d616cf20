"""URL groups over files: the same as in memory, settled with all that they tie, and growing with the corpus."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.dedup.exact import HASHES, group_copies
from pipelines.dedup.parameters import DedupConfig
from pipelines.dedup.urls import scatter_urls
from storage.manifests import open_dataset
from storage.schema import IDENTIFIER
from tests.pipelines.dedup.dedup_corpora import doc_id, edited, shuffled_parts
from tests.pipelines.dedup.searching import published, search, small_ranges

CONFIG = DedupConfig(urls=True)


def pages(seed: int = 4, count: int = 90) -> pa.Table:
    """Pages of thirty addresses written in three ways; some resemble a page of another address."""
    chance = random.Random(seed)
    words = [f"w{i}" for i in range(120)]
    forms = ("http://x.org/{}", "https://www.x.org/{}/", "http://x.org/{}?utm_source=a#b")
    texts = [edited(words, 1 if i % 5 == 0 else 90, chance) for i in range(count)]
    urls = [chance.choice(forms).format(chance.randrange(30)) for _ in range(count)]
    ids = pa.array([doc_id(i) for i in range(count)], IDENTIFIER)
    return pa.table({"doc_id": ids, "text": texts, "url": urls})


def groups(table: pa.Table) -> set[frozenset[bytes]]:
    """What COPIES put together."""
    found: dict[bytes, set[bytes]] = {}
    for a, b in zip(table["doc_id"].to_pylist(), table["representative"].to_pylist(), strict=True):
        found.setdefault(b, {b}).add(a)
    return {frozenset(group) for group in found.values()}


def in_memory(table: pa.Table) -> set[frozenset[bytes]]:
    return groups(group_copies(scatter_urls(table, 0, 1).cast(HASHES)))


def test_files_hold_the_groups_of_memory_and_settle_them_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_ranges(monkeypatch)
    table = pages()
    found = search(tmp_path, shuffled_parts(table, random.Random(5), 3), CONFIG)
    assert groups(published(tmp_path, "urls")) == in_memory(table)
    assert found["urls"] == len(published(tmp_path, "urls")) > 40
    settled: dict[bytes, set[int]] = {}
    for kind, ends in (("pairs", ("a_doc_id", "b_doc_id")), ("urls", ("doc_id", "representative"))):
        dataset = open_dataset(tmp_path / kind)
        for number, part in enumerate(dataset.parts):
            for name in ends:
                for document in dataset.read(part)[name].to_pylist():
                    settled.setdefault(document, set()).add(number)
    assert all(len(numbers) == 1 for numbers in settled.values())
    members = published(tmp_path, "members")
    assert set(members["doc_id"].to_pylist()) == set(settled)


def test_new_pages_join_the_groups_that_are_there(tmp_path: Path) -> None:
    table = pages()
    parts = [table.slice(0, 50), table.slice(50, 25), table.slice(75)]
    search(tmp_path, parts[:1], CONFIG)
    found = search(tmp_path, parts, CONFIG)
    assert found["added"] == 40 and not found["anew"]
    assert groups(published(tmp_path, "urls")) == in_memory(table)


def test_without_a_rule_nobody_looks_at_urls(tmp_path: Path) -> None:
    found = search(tmp_path, [pages().drop_columns(["url"])], replace(CONFIG, urls=False))
    assert found["urls"] == len(published(tmp_path, "urls")) == 0
