"""The section on duplicates: who lost how much, the alarm, the pairs, and examples whose words are shown as text."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from mixtures.judge import DUPLICATES
from mixtures.policy import load_policy
from pipelines.dedup.verify import PAIRS
from pipelines.losses import alarms, source_losses
from pipelines.report.findings import gather
from pipelines.report.page import render
from pipelines.run_folder import RunFolder, StepRecord, write_step
from storage.manifests import Manifest, write_manifest
from storage.parts import commit_table
from tests.mixtures.tiny_run import Doc, Run, doc_id

COSTS = dict.fromkeys(("wall_seconds", "core_seconds", "gpu_seconds", "peak_rss_bytes"), 1)
POLICY = """
format_version: 1
name: p
rules:
  - {rule: short, measure: rules.num_words, min: 3}
  - {rule: same, duplicates: exact}
  - {rule: page, duplicates: url}
  - {rule: alike, duplicates: near, min_similarity: 0.7}
"""
DOCS = [
    Doc("a", text="one <b>bold</b> two three", cluster="a", cluster_size=4),
    Doc("b", text="one <i>thin</i> two three", label="fr", cluster="a", cluster_size=4),
    Doc("c", cluster="a", cluster_size=4),
    Doc("d", cluster="a", cluster_size=4),
    Doc("e", words=1),
    Doc("f", source="books"),
    Doc("g", source="books"),
]
FOUND = [("b", "a", 0.75, "near"), ("c", "a", None, "url"), ("d", "a", 1.0, "exact")]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Of `web` e is short, b, c and d are duplicates of a; `books` loses nothing."""
    run, folder = Run(tmp_path, DOCS, 3), RunFolder(tmp_path)
    (tmp_path / "policy.yaml").write_text(POLICY.lstrip())
    policy = load_policy(str(tmp_path / "policy.yaml"))
    columns = [[doc_id(row[0]) for row in FOUND], [doc_id(row[1]) for row in FOUND], *zip(*FOUND, strict=True)]
    run.judge(policy, pa.table([columns[0], columns[1], columns[4], columns[5]], schema=DUPLICATES))
    pair = {"a_doc_id": doc_id("a"), "b_doc_id": doc_id("b"), "similarity": 0.75, "a_place": 0, "b_place": 1}
    part = commit_table(folder.duplicates / "pairs", "pairs", pa.Table.from_pylist([pair], PAIRS), schema=PAIRS)
    stage = {"name": "deduplicate", "config": {"threshold": 0.7}}
    write_manifest(folder.duplicates / "pairs", Manifest(kind="pairs", identity="pairs", stage=stage, parts=(part,)))
    result = {"policy": policy.identity(), "documents": len(DOCS), "kept": 3, "fitted": {}}
    write_step(folder, StepRecord(step="judge", identity="i", result=result, costs=COSTS))
    return folder


def test_a_source_loses_what_no_other_rule_dropped(folder: RunFolder) -> None:
    web, books = source_losses(folder)
    assert (web.source, web.kept, web.lost, web.share) == ("web", 1, {"exact": 1, "url": 1, "near": 1}, 0.75)
    assert (books.source, books.passed, books.share) == ("books", 2, 0)


def test_the_alarm_is_given_above_the_share(folder: RunFolder) -> None:
    losses = source_losses(folder)
    assert alarms(losses, 0.75) == []
    (alarm,) = alarms(losses, 0.74)
    assert "`web` lost 75% of 4 documents" in alarm and "1 exact, 1 url, 1 near" in alarm and "at 74%" in alarm


def test_the_report_gives_the_alarm_of_the_request(folder: RunFolder) -> None:
    for share, is_given in ((0.5, True), (0.8, False)):
        (folder.root / "run.json").write_text(json.dumps({"request": {"duplicate_alarm": share}}))
        assert ('role="alert"' in render(gather(folder.root))) is is_given


def test_counts_by_language_size_and_similarity(folder: RunFolder) -> None:
    found = gather(folder.root)["duplicates"]
    english, french = found["languages"]
    assert english == {"name": "en", "kept": 3, "exact": 1, "url": 1, "near": 0, "share": 0.4}
    assert (french["name"], french["kept"], french["near"], french["share"]) == ("fr", 0, 1, 1.0)
    assert found["sizes"] == [{"step": 2, "least": 4, "most": 4, "clusters": 1, "documents": 4}]
    counted = {round(row["from"], 3): row["pairs"] for row in found["similarities"] if row["pairs"]}
    assert counted == {0.745: 1}


def test_examples_stand_side_by_side_with_their_texts_escaped(folder: RunFolder) -> None:
    found = gather(folder.root)
    examples = {row["kind"]: row for row in found["duplicates"]["examples"]}
    assert set(examples) == {"near", "url"} and examples["url"]["similarity"] is None
    kept, dropped = examples["near"]["sides"]
    assert (kept["doc_id"], dropped["doc_id"]) == (doc_id("a"), doc_id("b"))
    page = render(found)
    assert "<mark>&lt;b&gt;bold&lt;/b&gt; </mark>" in page and "<mark>&lt;i&gt;thin&lt;/i&gt; </mark>" in page
    assert "<b>bold" not in page and "<i>thin" not in page
