"""Keepers of crowds over files: ranges ask for the pairs that they lack, and end where the search in memory ends."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pyarrow as pa
import pytest

from mixtures.binding import bind_policy
from mixtures.licences import load_judging
from pipelines.dedup.deduplicate import find_duplicates, settle_keepers
from pipelines.dedup.range_files import RangeFiles, read_range
from pipelines.dedup.search.generations import open_search
from pipelines.dedup.search.run import search_duplicates
from pipelines.dedup.search.texts import PartTexts
from pipelines.duplicates import SETTLED, count_settle_ranges, find_members, rank_members, read_members
from pipelines.jobs.deduplicate import list_texts
from pipelines.jobs.settle import Settling, settle_ranges
from pipelines.run_folder import RunFolder
from tests.mixtures.tiny_run import Doc, Run
from tests.pipelines.dedup.dedup_corpora import edited, exhaustive, standings
from tests.pipelines.dedup.searching import one_by_one, small_ranges

POLICY = """\
format_version: 1
name: crowds
rules:
  - {rule: near_duplicate, duplicates: near, LEASTkeep: {best: [rules.num_words desc]}}
"""
CONFIG = exhaustive(bucket_limit=8, leader_limit=2)


def crowds() -> list[Doc]:
    """Two kinds that share half of their words: each band is a crowd of both, and the leaders are few."""
    chance = random.Random(12)
    shared, *halves = ([f"{kind}{i}" for i in range(120)] for kind in "sab")
    texts = [edited(shared + half, 1, chance) for half in halves for _ in range(60)]
    order = chance.sample(range(len(texts)), len(texts))
    return [Doc(f"d{i}", words=order[i], text=text) for i, text in enumerate(texts)]


@pytest.mark.parametrize(("groups", "least"), [(1, "min_similarity: 0.8, "), (5, "min_similarity: 0.8, "), (1, "")])
def test_what_the_order_asks_for_is_verified_and_settled_as_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: int, least: str
) -> None:
    """Also where the policy names no similarity: then all that the search recorded counts."""
    small_ranges(monkeypatch, nodes=2, groups=groups)
    docs = crowds()
    run, folder = Run(tmp_path, docs, 50), RunFolder(tmp_path)
    checksums = [part.sha256 for part in run.documents.parts]
    settings = dataclasses.asdict(CONFIG)
    texts = list_texts(folder, run.documents, checksums, "test")
    search_duplicates(folder.duplicates, settings, checksums, lambda _: texts, one_by_one)
    settled = pa.concat_tables(
        [
            read_range([Path(file) for file in settle(folder, run, texts, least)], number, SETTLED)
            for number in range(len(checksums))
        ]
    )
    expected = in_memory(run, docs)
    assert settled["duplicate_of"].null_count == expected["duplicate_of"].null_count == 2
    columns = ["doc_id", "duplicate_of", "similarity", "cluster_id"]
    assert settled.select(columns).sort_by("doc_id").equals(expected.select(columns).sort_by("doc_id"))


def settle(folder: RunFolder, run: Run, texts: PartTexts, least: str) -> list[str]:
    path = folder.root / "policy.yaml"
    path.write_text(POLICY.replace("LEAST", least))
    files = RangeFiles(folder.root / "settled", "test")
    policy = bind_policy(
        load_judging({"policy": str(path), "allow_licences": None}), run.catalogue.schema(run.catalogue.parts[0])
    )
    for i, part in enumerate(run.catalogue.parts):
        members = read_members(folder, find_members(folder, part))
        files.commit("ranks", i, rank_members(run.catalogue.read(part), policy, members))
    search = open_search(folder.duplicates, texts)
    settling = Settling(
        root=folder.root,
        judging={"policy": str(path), "allow_licences": None},
        fitted={},
        files=files,
        ranked=tuple(files.paths("ranks", range(len(run.catalogue.parts)))),
        groups=-(-search.now.groups // search.now.nodes),
        search=search,
    )
    return settle_ranges(settling, one_by_one, count_settle_ranges(folder))


def in_memory(run: Run, docs: list[Doc]) -> pa.Table:
    parts = [run.documents.read(part).select(["doc_id", "text"]) for part in run.documents.parts]
    best_first = sorted(range(len(docs)), key=lambda i: -(docs[i].words or 0))
    ranks = [best_first.index(i) for i in range(len(docs))]
    named = pa.array([doc.doc_id for doc in docs], pa.binary(16))
    order = standings(range(len(docs)), ranks).set_column(0, pa.field("doc_id", pa.binary(16), nullable=False), named)
    return settle_keepers(parts, order, find_duplicates(parts, CONFIG), CONFIG)
