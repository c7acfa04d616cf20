"""A corpus that grew is searched as if it had been there at once, at the cost of what is new."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from pipelines.dedup.deduplicate import Duplicates, settle_keepers
from pipelines.dedup.parameters import DedupConfig
from pipelines.dedup.search.run import Task
from tests.pipelines.dedup.dedup_corpora import as_set, corpus, edited, exhaustive, family_corpus, standings
from tests.pipelines.dedup.searching import TableTexts, published, search, small_ranges
from tests.pipelines.dedup.test_keepers import check_keepers

CONFIG = exhaustive(0.5, bucket_limit=1000)
GROWN_CROWDS = exhaustive(0.5, bucket_limit=4, leader_limit=2)


def family_texts(seed: int) -> list[str]:
    chance = random.Random(seed)
    texts = family_corpus(chance, families=8, size=8, words=100) + ["", "one", "one"]
    return chance.sample(texts, len(texts))


def cut(texts: Sequence[str], *ends: int) -> list[pa.Table]:
    table = corpus(list(texts))
    return [table.slice(start, end - start) for start, end in zip((0, *ends), (*ends, len(texts)), strict=True)]


def keepers_of(root: Path, parts: Sequence[pa.Table], texts: Sequence[str], config: DedupConfig) -> pa.Table:
    """KEEPERS by what the search in `root` published."""
    found = Duplicates(*(published(root, kind) for kind in ("pairs", "copies", "crowds")), 0)
    return settle_keepers(parts, standings(range(len(texts))), found, config)


@pytest.mark.parametrize("seed", range(3))
def test_three_crawls_one_after_another_leave_what_one_search_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    texts = family_texts(seed)
    parts = cut(texts, 30, 41, 48)
    for number in (1, 2, 3, 4):
        small_ranges(monkeypatch, ranges=2 * number, nodes=number, groups=1 + number)
        result = search(tmp_path / "grown", parts[:number], CONFIG)
        assert result["anew"] == "" and result["added"] == len(parts[number - 1])
    search(tmp_path / "whole", parts, CONFIG)
    grown, whole = (keepers_of(tmp_path / name, parts, texts, CONFIG) for name in ("grown", "whole"))
    assert grown.equals(whole) and grown["duplicate_of"].null_count < len(grown) - 10
    pairs = [as_set(published(tmp_path / name, "pairs")) for name in ("grown", "whole")]
    assert {row[2] for row in pairs[0]} == {row[2] for row in pairs[1]}
    clusters = [published(tmp_path / name, "members").select(["doc_id", "cluster_id"]) for name in ("grown", "whole")]
    assert as_set(clusters[0]) == as_set(clusters[1])


def test_only_new_parts_are_read_whole_and_old_ones_for_the_rows_that_new_ones_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = corpus([f"{text} {text}" for text in family_texts(7)], [f"old {i}" for i in range(67)])
    met = old["text"][5].as_py() + " more"
    new = corpus([met, "nothing like it is there"], ["near", "far"])
    search(tmp_path, [old], CONFIG)
    signed: list[int] = []
    taken: dict[int, list[int]] = {}
    monkeypatch.setattr(TableTexts, "batches", lambda self, part: signed.append(part) or self.parts[part].to_batches())
    take = TableTexts.take

    def watched(self: TableTexts, part: int, rows: npt.NDArray[np.int64]) -> pa.Table:
        taken[part] = rows.tolist()
        return take(self, part, rows)

    monkeypatch.setattr(TableTexts, "take", watched)
    search(tmp_path, [old, new], CONFIG)
    assert signed == [1] and taken[1] == [0]
    assert 5 in taken[0] and len(taken[0]) <= 8, "the family of that text, no other"


def test_a_crowd_that_grows_past_the_limit_drops_only_what_resembles_a_kept_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_ranges(monkeypatch)
    chance = random.Random(2)
    words = [f"w{i}" for i in range(150)]
    texts = [edited(words, 1, chance) for _ in range(40)] + family_texts(3)
    texts = list(dict.fromkeys(chance.sample(texts, len(texts))))
    parts = cut(texts, 50, 60, 70)
    for number in (1, 2, 3, 4):
        search(tmp_path, parts[:number], GROWN_CROWDS)
    keepers = keepers_of(tmp_path, parts, texts, GROWN_CROWDS)
    check_keepers(texts, standings(range(len(texts))), keepers, GROWN_CROWDS)


def test_a_part_that_is_gone_or_other_settings_start_anew_and_say_so(tmp_path: Path) -> None:
    texts = family_texts(4)
    parts = cut(texts, 30, 50)
    search(tmp_path, parts[:2], CONFIG)
    result = search(tmp_path, parts[1:], CONFIG)
    assert result["anew"] == "1 of 2 parts are gone or changed" and result["added"] == len(parts[1]) + len(parts[2])
    assert search(tmp_path, parts[1:], exhaustive(0.6))["anew"] == "the settings of the search changed"
    assert len({row[2] for row in as_set(published(tmp_path, "pairs")) if row[2] < 0.6}) == 0  # type: ignore[operator]


class Killed(Exception):
    pass


def test_a_growing_search_goes_on_from_wherever_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_ranges(monkeypatch, ranges=2, nodes=2, groups=2)
    parts = cut(family_texts(5), 40, 55)
    for name in ("whole", "killed"):
        search(tmp_path / name, parts[:1], CONFIG)
    expected = search(tmp_path / "whole", parts, CONFIG)
    left = 0

    def until_killed(task: Task, arguments: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        nonlocal left
        results = []
        for each in arguments:
            if left == 0:
                raise Killed
            left -= 1
            results.append(task(each))
        return results

    for turn in range(200):
        left = 1 + turn
        try:
            result = search(tmp_path / "killed", parts, CONFIG, until_killed)
            break
        except Killed:
            continue
    assert turn > 5 and result == expected
    assert as_set(published(tmp_path / "killed", "pairs")) == as_set(published(tmp_path / "whole", "pairs"))
