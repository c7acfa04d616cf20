"""What a finished run holds: everything accounted for, traceable, and read by others."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines.funnel import funnel_rows
from pipelines.run_folder import require_step
from storage.manifests import Dataset, align, open_dataset
from storage.megatron import IndexedReader
from tests.corpus import url_of
from tests.flows.conftest import ARTICLES, WEB_PAGES, FinishedRun, gristmill, run_options
from tokenizer.encode import Encoder
from tokenizer.vocabulary import read_vocabulary


def read(dataset: Dataset, columns: list[str] | None = None) -> pa.Table:
    return pa.concat_tables([dataset.read(part, columns) for part in dataset.parts])


def test_every_record_is_accounted_for(finished_run: FinishedRun) -> None:
    rows = funnel_rows(finished_run.folder)
    left = WEB_PAGES + ARTICLES
    assert rows[0]["left"] == left
    for row in rows:
        left -= row["lost"]
        assert row["left"] == left
    verdicts = read(open_dataset(_decisions(finished_run) / "verdicts"))
    assert rows[-1]["left"] == pc.sum(pc.equal(verdicts["verdict"], "kept")).as_py() > 0
    assert (
        len(verdicts) == len(pc.unique(verdicts["doc_id"])) == open_dataset(finished_run.folder.documents).manifest.rows
    )


def _decisions(run: FinishedRun) -> Path:
    return run.folder.decisions(require_step(run.folder, "judge").result["policy"])


def test_each_drop_is_decided_by_exactly_one_rule(finished_run: FinishedRun) -> None:
    decisions = _decisions(finished_run)
    verdicts, reasons = read(open_dataset(decisions / "verdicts")), read(open_dataset(decisions / "reasons"))
    dropped = verdicts.filter(pc.equal(verdicts["verdict"], "dropped"))
    decided = reasons.filter(reasons["decided"])
    assert sorted(decided["doc_id"].to_pylist()) == sorted(dropped["doc_id"].to_pylist())
    assert len(dropped) > 10


def test_planted_copies_are_dropped_for_a_kept_document(finished_run: FinishedRun) -> None:
    documents = read(open_dataset(finished_run.folder.documents), ["doc_id", "url"])
    ids = dict(zip(documents["url"].to_pylist(), documents["doc_id"].to_pylist(), strict=True))
    verdicts = read(open_dataset(_decisions(finished_run) / "verdicts"))
    verdict = dict(zip(verdicts["doc_id"].to_pylist(), verdicts["verdict"].to_pylist(), strict=True))
    copies = [(ids[url_of(n)], ids[url_of(n - 1)]) for n in range(11, WEB_PAGES, 11) if (n - 1) % 13]
    both_kept = [pair for pair in copies if verdict[pair[0]] == verdict[pair[1]] == "kept"]
    one_kept = [pair for pair in copies if {verdict[pair[0]], verdict[pair[1]]} == {"kept", "dropped"}]
    assert both_kept == [] and len(one_kept) >= len(copies) // 2


def test_every_dataset_matches_its_manifest(finished_run: FinishedRun) -> None:
    folder = finished_run.folder
    documents = open_dataset(folder.documents)
    assert len(documents.parts) > 3
    for place in (folder.documents, folder.measured, folder.embeddings, folder.quality, folder.catalogue):
        open_dataset(place).check()
    for place in (folder.measured, folder.embeddings, folder.quality, folder.catalogue):
        for ours, theirs in align(documents, open_dataset(place)):
            assert ours.rows == theirs.rows


def test_shards_hold_what_the_plan_says_and_decode_to_the_documents(finished_run: FinishedRun) -> None:
    folder = finished_run.folder
    mixture = folder.mixture(require_step(folder, "mix").result["mixture"])
    blend = json.loads((mixture / "blend.json").read_bytes())
    plan = json.loads((mixture / "plan.json").read_bytes())
    lengths = {entry["prefix"]: int(IndexedReader(mixture / entry["prefix"]).lengths.sum()) for entry in blend["train"]}
    assert sum(lengths.values()) == plan["tokens_given"] == blend["train_tokens"]
    selection = pq.read_table(mixture / "selection.parquet").to_pylist()
    texts = read(open_dataset(folder.documents), ["doc_id", "text"])
    by_id = dict(zip(texts["doc_id"].to_pylist(), texts["text"].to_pylist(), strict=True))
    encoder = Encoder(read_vocabulary(mixture))
    for row in selection[:: max(1, len(selection) // 25)]:
        tokens = IndexedReader(mixture / row["prefix"])[row["sequence"]]
        assert encoder.decode(tokens[:-1]) == by_id[row["doc_id"]]
    heldout = {row["doc_id"] for row in selection if row["split"] == "heldout"}
    assert heldout and not heldout & {row["doc_id"] for row in selection if row["split"] == "train"}


@pytest.mark.filterwarnings("ignore")
def test_megatron_core_reads_the_shards(finished_run: FinishedRun) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    folder = finished_run.folder
    mixture = folder.mixture(require_step(folder, "mix").result["mixture"])
    blend = json.loads((mixture / "blend.json").read_bytes())
    for entry in blend["train"]:
        theirs, ours = IndexedDataset(str(mixture / entry["prefix"])), IndexedReader(mixture / entry["prefix"])
        assert len(theirs) == len(ours) > 0
        for i in (0, len(ours) // 2, len(ours) - 1):
            np.testing.assert_array_equal(theirs[i], ours[i])


def test_a_second_run_is_recognised_before_anything_starts(finished_run: FinishedRun) -> None:
    started = time.monotonic()
    again = gristmill(*run_options(finished_run.inputs, finished_run.folder.root), home=finished_run.home)
    assert "finished" in again.stdout and "bits a byte" in again.stdout
    assert time.monotonic() - started < 30  # it is under 2 s; this only shows that Prefect and Ray did not start


def test_why_tells_the_story_of_a_kept_and_of_a_dropped_page(finished_run: FinishedRun) -> None:
    out = str(finished_run.folder.root)
    dropped = json.loads(gristmill("why", url_of(13), "--out", out, "--json", home=finished_run.home).stdout)
    assert dropped["verdict"]["verdict"] == "dropped" and dropped["reasons"] and not dropped["mixtures"]
    selection = finished_run.folder.root.glob("mixtures/*/selection.parquet")
    doc_id = pq.read_table(next(selection))["doc_id"][0].as_py().hex()
    shown = gristmill("why", doc_id, "--out", out, home=finished_run.home).stdout
    assert doc_id in shown and "Verdict: kept" in shown and re.search(r"mixture .* of source \w+", shown)
    assert re.search(r"num_words \d+", shown) and re.search(r"\d+ more are 0 or none", shown)


def test_why_of_an_unknown_page_says_so(finished_run: FinishedRun) -> None:
    out = str(finished_run.folder.root)
    asked = gristmill("why", "https://nowhere.example", "--out", out, home=finished_run.home, check=False)
    assert asked.returncode == 2
    assert asked.stderr.startswith("error: no document of this run") and "Traceback" not in asked.stderr


def test_the_report_is_one_self_contained_page(finished_run: FinishedRun) -> None:
    page = finished_run.folder.report.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=[\"'](?!data:)", page)
    for part in ("funnel", "hosts", "languages", "quality", "samples", "duplicates", "mixture", "training", "costs"):
        assert f'id="{part}"' in page
    assert "<polyline" in page and "{{" not in page


def test_the_plan_can_be_seen_again(finished_run: FinishedRun) -> None:
    recipe = str(finished_run.inputs.web / "recipe.yaml")
    shown = gristmill("plan", recipe, "--out", str(finished_run.folder.root), home=finished_run.home).stdout
    assert "encyclopedia" in shown and "epochs" in shown


@pytest.mark.parametrize("form", ["parquet", "dataset"])
def test_export_writes_the_kept_text_with_a_card(finished_run: FinishedRun, tmp_path: Path, form: str) -> None:
    target = tmp_path / "curated"
    gristmill("export", str(target), "--out", str(finished_run.folder.root), "--format", form, home=finished_run.home)
    if form == "parquet":
        rows = pq.read_table(target / "data")
    else:
        from datasets import load_from_disk

        rows = load_from_disk(str(target / "data")).data.table
    assert len(rows) == require_step(finished_run.folder, "judge").result["kept"]
    assert "rule that decided" in (target / "README.md").read_text()


def test_exported_shards_need_no_run_and_hold_the_mixture(finished_run: FinishedRun, tmp_path: Path) -> None:
    out, target = str(finished_run.folder.root), tmp_path / "shards"
    gristmill("export", str(target), "--out", out, "--format", "shards", home=finished_run.home)
    mixture = finished_run.folder.mixture(require_step(finished_run.folder, "mix").result["mixture"])
    assert not any(path.is_symlink() for path in target.rglob("*"))
    assert _sequences(target) == _sequences(mixture)
    assert json.loads((target / "plan.json").read_bytes()) == json.loads((mixture / "plan.json").read_bytes())
    assert "--train-data-path" in (target / "README.md").read_text()
    again = gristmill("export", str(target), "--out", out, "--format", "shards", home=finished_run.home, check=False)
    assert again.returncode == 2 and "not empty" in again.stderr


def _sequences(mixture: Path) -> list[bytes]:
    """Every sequence of every split, as bytes, sorted."""
    prefixes = [path.with_suffix("") for split in ("train", "heldout") for path in (mixture / split).glob("*.idx")]
    readers = [IndexedReader(prefix) for prefix in prefixes]
    return sorted(reader[i].tobytes() for reader in readers for i in range(len(reader)))


def test_canaries_are_measured_and_leave_no_trace(finished_run: FinishedRun) -> None:
    """What the search planted to measure itself is no document, and stands in nothing that the run wrote."""
    found = require_step(finished_run.folder, "deduplicate").result
    assert found["canaries"] and found["canary_precision"] == 1.0
    documents = set(read(open_dataset(finished_run.folder.documents), ["doc_id"])["doc_id"].to_pylist())
    named = 0
    folder = finished_run.folder.duplicates
    for file in (*folder.rglob("*.parquet"), *folder.rglob("*.arrow")):
        table = pq.read_table(file) if file.suffix == ".parquet" else pa.ipc.open_file(file).read_all()
        assert not [name for name in table.column_names if pa.types.is_string(table.schema.field(name).type)]
        for column in set(table.column_names) & {"doc_id", "representative", "a_doc_id", "b_doc_id"}:
            named += len(table)
            assert set(table[column].to_pylist()) <= documents
    assert named > 100
