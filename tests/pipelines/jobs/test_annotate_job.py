"""Labels of a tiny run: whatever happens on the way, each document is paid for once and labelled once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from mixtures.policy import load_policy
from pipelines.annotated import head_config, identify_labels, is_annotation, read_labelled
from pipelines.annotation import AnnotationRequest, find_finished, plan_annotation
from pipelines.jobs import annotate as job
from pipelines.run_folder import RunFolder, StepRecord, write_step
from storage.errors import InputError, ResourceError
from storage.manifests import MANIFEST, open_dataset
from tests.mixtures.tiny_run import KEEP_ALL, Doc, Run
from tests.rating_server import MODEL, RatingServer, rating_server

KEY = "sk-very-secret-0123456789"
VARIABLE = "TOY_RATER_KEY"
DOCS = [Doc(f"d{i}", text=f"text {i}, grade={i % 6}", source="web" if i % 3 else "wiki") for i in range(40)]


@pytest.fixture(autouse=True)
def _small_batches_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setattr(job, "BATCH_ROWS", 4)
    monkeypatch.setattr(job, "CHUNK_ROWS", 12)
    monkeypatch.setattr(job, "run_parts", run_here)


def run_here(_: Any, tasks: list[Any], function: Any, **options: Any) -> Any:
    """The driver's contract, in this process."""
    for task in tasks:
        options["on_done"](task, function(json.loads(json.dumps(task.arguments))))
    return SimpleNamespace(require_all=lambda: None)


@pytest.fixture
def server() -> Iterator[RatingServer]:
    with rating_server() as running:
        yield running


def curated(root: Path, docs: list[Doc]) -> RunFolder:
    root.mkdir(exist_ok=True)
    (root / "policy.yaml").write_text(KEEP_ALL)
    run = Run(root, docs, 7)
    policy = load_policy(str(root / "policy.yaml"))
    run.judge(policy)
    folder = RunFolder(root)
    write_step(folder, StepRecord(step="judge", identity="j", result={"policy": policy.identity()}, costs={}))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return curated(tmp_path / "run", DOCS)


def annotate(folder: RunFolder, server: RatingServer, **request: Any) -> dict[str, Any]:
    asked = AnnotationRequest(server=server.url, timeout_seconds=1.0, **{"sample": 40, "concurrency": 4, **request})
    plan = plan_annotation(asked, folder)
    plan.spec["model"]["server"]["backoff_seconds"] = 0.001
    return job.run(SimpleNamespace(run_folder=folder.root, spec=plan.spec, cpus=1.0, gpus=0.0))  # type: ignore[arg-type]


def labels(folder: RunFolder, result: dict[str, Any]) -> pa.Table:
    dataset = open_dataset(folder.annotations(result["place"]))
    dataset.check()
    return pa.concat_tables([dataset.read(part) for part in dataset.parts])


def errors(folder: RunFolder, result: dict[str, Any]) -> list[dict[str, Any]]:
    dataset = open_dataset(folder.annotations(result["place"]) / "errors")
    return [row for part in dataset.parts for row in dataset.read(part).to_pylist()]


def test_every_document_of_the_sample_has_its_label(folder: RunFolder, server: RatingServer) -> None:
    result = annotate(folder, server)
    table = labels(folder, result)
    assert result["labelled"] == result["documents"] == 40 and not errors(folder, result)
    grades = dict(zip(table["doc_id"].to_pylist(), table["argmax"].to_pylist(), strict=True))
    assert grades == {doc.doc_id: i % 6 for i, doc in enumerate(DOCS)}
    (row, *_) = table.to_pylist()
    assert (row["model"], row["rubric"], row["seed"]) == (MODEL, "educational_direct_en", 0)
    assert result["prompt_tokens"] == 4000 and {row["source"] for row in result["strata"]} == {"web", "wiki"}


def test_the_same_command_again_asks_nothing(folder: RunFolder, server: RatingServer) -> None:
    first = annotate(folder, server)
    again = annotate(folder, server)
    assert server.asked.total() == 40 and again["identity"] == first["identity"]


def test_a_finished_request_is_known_without_a_job(folder: RunFolder, server: RatingServer) -> None:
    asked = AnnotationRequest(server=server.url, sample=40, timeout_seconds=1.0, concurrency=4)
    assert find_finished(folder, plan_annotation(asked, folder)) is None
    annotate(folder, server)
    found = find_finished(folder, plan_annotation(asked, folder))
    assert found and found["labelled"] == 40
    larger = AnnotationRequest(server=server.url, sample=41, timeout_seconds=1.0)
    assert find_finished(folder, plan_annotation(larger, folder)) is None


def test_a_larger_sample_pays_for_what_it_adds(folder: RunFolder, server: RatingServer) -> None:
    annotate(folder, server, sample=10)
    assert server.asked.total() == 10
    result = annotate(folder, server)
    assert set(server.asked.values()) == {1} and server.asked.total() == 40
    assert len(labels(folder, result)) == 40


def test_a_killed_run_goes_on(folder: RunFolder, server: RatingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after its fifth part, before any manifest: the parts that are whole are not paid for again."""
    commit, count = job.commit_table, [0]

    def dying(*arguments: Any, **options: Any) -> Any:
        count[0] += 1
        if count[0] == 6:
            raise KeyboardInterrupt
        return commit(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(job, "commit_table", dying)
        with pytest.raises(KeyboardInterrupt):
            annotate(folder, server)
    asked = server.asked.total()
    result = annotate(folder, server)
    assert server.asked.total() - asked == 40 - 5 * 4
    table = labels(folder, result)
    assert len(table) == 40 == len(set(table["doc_id"].to_pylist()))


def test_failures_are_recorded_and_tried_again(tmp_path: Path, server: RatingServer) -> None:
    docs = [*DOCS[:10], Doc("bad", text="NONSENSE"), Doc("cut", text="GARBAGE"), Doc("empty", text=" ")]
    folder = curated(tmp_path / "run", docs)
    result = annotate(folder, server)
    assert result["failed"] == {"empty_text": 1, "no_answer": 1, "nonsense": 1} and result["labelled"] == 10
    found = {row["reason"]: row for row in errors(folder, result)}
    assert found["nonsense"]["said"] == "I would rather not grade this." and found["nonsense"]["attempts"] == 2
    before = server.asked.total()
    again = annotate(folder, server)
    assert server.asked.total() - before == 4  # two texts, twice each
    assert again["labelled"] == 10 and len(errors(folder, again)) == 3 and again["identity"] == result["identity"]


def test_a_server_that_dies_leaves_what_it_said(folder: RunFolder, server: RatingServer) -> None:
    server.dead_after = 20
    with pytest.raises(ResourceError, match="does not answer any more"):
        annotate(folder, server, concurrency=2)
    (place,) = (folder.root / "annotations").iterdir()
    assert open_dataset(place).manifest.rows == 20
    server.dead_after = None
    asked = dict(server.asked)
    result = annotate(folder, server, concurrency=2)
    assert result["labelled"] == 40 and len(labels(folder, result)) == 40
    assert sum(server.asked[text] - asked.get(text, 0) for text in server.asked) == 40 - 20


def test_another_wording_model_or_seed_is_another_dataset(folder: RunFolder, server: RatingServer) -> None:
    places = {
        annotate(folder, server, sample=2, **change)["place"]
        for change in (
            {},
            {"rubric": "educational_additive_en"},
            {"seed": 1},
            {"temperature": 0.7},
            {"template_options": ("enable_thinking=false",)},
        )
    }
    assert len(places) == 5


def test_the_key_is_in_no_file(folder: RunFolder, server: RatingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.key = KEY
    with pytest.raises(InputError, match=VARIABLE):
        annotate(folder, server, key_variable=VARIABLE)
    monkeypatch.setenv(VARIABLE, KEY)
    result = annotate(folder, server, key_variable=VARIABLE)
    assert result["labelled"] == 40 and server.keys == {f"Bearer {KEY}"}
    assert KEY not in repr(result)
    assert not [path for path in folder.root.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_labels_teach_the_head(folder: RunFolder, server: RatingServer) -> None:
    """The expected value on 0-1, beside the text that was rated; 3 of 5 is where figures are cut."""
    result = annotate(folder, server)
    place = folder.annotations(result["place"])
    assert is_annotation(place) and identify_labels(place) == result["identity"]
    assert head_config(place).threshold == pytest.approx(0.6)
    found = read_labelled(place)
    texts = dict(zip(found.table["text"].to_pylist(), found.table["label"].to_pylist(), strict=True))
    assert set(texts) == {doc.text for doc in DOCS}
    assert texts["text 4, grade=4"] == pytest.approx((0.6 * 4 + 0.2 * 5 + 0.1 * 3) / 0.9 / 5)
    assert "educational_direct_en" in found.meaning.sentence() and MODEL in found.meaning.sentence()


def test_ratings_of_texts_that_are_gone_or_new_are_left_out(
    folder: RunFolder, server: RatingServer, tmp_path: Path
) -> None:
    result = annotate(folder, server)
    place = folder.annotations(result["place"])
    other = curated(tmp_path / "other", [DOCS[0], Doc("d1", text="rewritten since")])
    moved = other.annotations(result["place"])
    moved.parent.mkdir()
    place.rename(moved)
    assert read_labelled(moved).table["text"].to_pylist() == [DOCS[0].text]


def test_what_is_no_run_or_no_model_is_said(folder: RunFolder, server: RatingServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no language model"):
        AnnotationRequest()
    with pytest.raises(Exception, match="no model folder"):
        plan_annotation(AnnotationRequest(model=str(tmp_path)), folder)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(Exception, match="pickles"):
        plan_annotation(AnnotationRequest(model=str(tmp_path)), folder)
    assert not (folder.root / "annotations" / MANIFEST).exists()
