"""The deduplication job's canaries: made of texts from all over the run, not of what happens to come first."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.dedup.parameters import DedupConfig
from pipelines.jobs.deduplicate import CANARY_PARTS, measure_canaries
from storage.parts import commit_table


def write_part(folder: Path, name: str, texts: list[str]) -> Path:
    table = pa.table({"text": pa.array(texts, pa.string())})
    return folder / commit_table(folder, name, table, schema=table.schema).file


def measured(paths: list[Path]) -> int:
    """How many canaries above the threshold there are."""
    settings = dataclasses.asdict(DedupConfig())
    found = measure_canaries({"settings": settings, "texts": [str(path) for path in paths]})
    return sum(band["pairs"] for band in found["canaries"])


@pytest.mark.parametrize("before", [1, 2 * CANARY_PARTS])
def test_a_source_of_short_texts_does_not_keep_canaries_out(tmp_path: Path, before: int) -> None:
    chance = random.Random(4)
    pages = [" ".join(f"w{chance.randrange(5000)}" for _ in range(120)) for _ in range(60)]
    short = write_part(tmp_path, "short", ["too short"] * 1100)
    long = write_part(tmp_path, "long", pages)
    assert measured([short] * before) == 0
    assert measured([short] * before + [long] * before) > 5


def test_a_run_without_a_document_has_no_canary(tmp_path: Path) -> None:
    assert measured([]) == measured([write_part(tmp_path, "none", [])]) == 0
