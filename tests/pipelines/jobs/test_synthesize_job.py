"""Synthesis of a tiny run: whatever happens on the way, each text is paid for once, traceable, and has its reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from pipelines.jobs import synthesize as job
from pipelines.removal import strip_written
from pipelines.run_folder import RunFolder
from pipelines.synthesis import SynthesisRequest, find_finished, plan_synthesis
from sources.ingest import IngestConfig, ingest
from sources.inputs import expand_inputs
from storage.errors import InputError, ResourceError
from storage.manifests import open_dataset
from tests.mixtures.tiny_run import Doc
from tests.pipelines.jobs.test_annotate_job import curated, run_here
from tests.rating_server import MODEL, RatingServer, rating_server
from tests.writer import COMPLETION_TOKENS, PROMPT_TOKENS, write_answer


def prose(number: int, sentences: int = 8) -> str:
    """Sentences of words that stand in no other text."""
    return " ".join(" ".join(f"w{number}n{i}p{j}" for j in range(8)) + "." for i in range(sentences))


DOCS = [
    Doc(f"d{i:02}", text=prose(i), bucket=19 if i % 3 else 18, label="zh" if i % 5 == 0 else "en") for i in range(12)
]


@pytest.fixture(autouse=True)
def _small_batches_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setattr(job, "BATCH_ROWS", 4)
    monkeypatch.setattr(job, "run_parts", run_here)


@pytest.fixture
def server() -> Iterator[RatingServer]:
    with rating_server() as running:
        running.say = write_answer
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return curated(tmp_path / "run", DOCS)


def synthesize(folder: RunFolder, server: RatingServer, brief: str = "distill", **request: Any) -> dict[str, Any]:
    plan = plan_synthesis(asked(server, brief=brief, **request), folder)
    plan.spec["model"]["server"]["backoff_seconds"] = 0.001
    return job.run(SimpleNamespace(run_folder=folder.root, spec=plan.spec, cpus=1.0, gpus=0.0))  # type: ignore[arg-type]


def asked(server: RatingServer, **request: Any) -> SynthesisRequest:
    return SynthesisRequest(**{"server": server.url, "timeout_seconds": 1.0, "concurrency": 4, **request})


def rows(folder: Path) -> list[dict[str, Any]]:
    dataset = open_dataset(folder)
    dataset.check()
    return [row for part in dataset.parts for row in dataset.read(part).to_pylist()]


def documents(folder: RunFolder, result: dict[str, Any]) -> list[dict[str, Any]]:
    return rows(folder.synthesis(result["place"]))


def errors(folder: RunFolder, result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["reason"]: row for row in rows(folder.synthesis(result["place"]) / "errors")}


@pytest.mark.parametrize("brief", ["distill", "knowledge_list", "diverse_qa", "chain_of_thought"])
def test_every_document_is_traceable_to_its_bytes(folder: RunFolder, server: RatingServer, brief: str) -> None:
    result = synthesize(folder, server, brief)
    found = documents(folder, result)
    assert result["documents"] == len(found) == 12 and not errors(folder, result)
    texts = {doc.doc_id: doc.text for doc in DOCS}
    for row in found:
        (parent,) = row["parents"]
        made_of = "".join(texts[parent].encode()[s["start"] : s["end"]].decode() + " " for s in row["spans"]).strip()
        assert made_of == texts[parent]
        assert (row["source"], row["brief"], row["model"]) == (f"synthetic/{brief}", brief, MODEL)
        assert (texts[parent] in row["text"]) == (brief in ("diverse_qa", "chain_of_thought"))


def test_a_chain_is_a_query_its_steps_and_the_document(folder: RunFolder, server: RatingServer) -> None:
    result = synthesize(folder, server, "chain_of_thought")
    row = documents(folder, result)[0]
    text = next(doc.text for doc in DOCS if doc.doc_id == row["parents"][0])
    assert row["query"].startswith("Why ") and row["chain"].startswith("1. First ") and "\n2. So" in row["chain"]
    assert row["text"] == f"{row['query']}\n\n{row['chain']}\n\n{text}"
    assert len(row["spans"]) == 4  # eight sentences, two a segment


def test_tokens_are_counted_by_step(folder: RunFolder, server: RatingServer) -> None:
    result = synthesize(folder, server, "chain_of_thought")
    steps = {"segment": 12, "abstract": 48, "question": 12}
    assert result["tokens"] == {
        step: {"requests": n, "prompt": n * PROMPT_TOKENS, "completion": n * COMPLETION_TOKENS}
        for step, n in steps.items()
    }
    assert result["written_tokens"] == 12 * COMPLETION_TOKENS
    assert result["tokens_per_written_token"] == {"prompt": 15.0, "completion": 6.0}
    assert server.asked.total() == 72


def test_requests_that_were_refused_count_too(tmp_path: Path, server: RatingServer) -> None:
    folder = curated(tmp_path / "run", [Doc("busy", text=f"BUSY {prose(1)}", bucket=19)])
    result = synthesize(folder, server)
    assert result["tokens"]["write"] == {"requests": 3, "prompt": PROMPT_TOKENS, "completion": COMPLETION_TOKENS}
    assert documents(folder, result)[0]["attempts"] == 3


def test_texts_are_asked_about_in_their_language(folder: RunFolder, server: RatingServer) -> None:
    synthesize(folder, server)
    chinese = [payload for payload in server.payloads if "请" in payload["messages"][-1]["content"]]
    assert len(chinese) == sum(doc.label == "zh" for doc in DOCS) == 3


def test_the_same_command_again_asks_nothing(folder: RunFolder, server: RatingServer) -> None:
    plan = plan_synthesis(asked(server, brief="distill"), folder)
    assert find_finished(folder, plan) is None
    first = synthesize(folder, server)
    found = find_finished(folder, plan)
    assert found and found["documents"] == 12
    again = synthesize(folder, server)
    assert server.asked.total() == 12 and again["identity"] == first["identity"]


def test_only_the_top_buckets_are_written_from(tmp_path: Path, server: RatingServer) -> None:
    folder = curated(tmp_path / "run", [Doc("low", text=prose(1), bucket=17), Doc("top", text=prose(2), bucket=18)])
    result = synthesize(folder, server)
    assert [row["parents"] for row in documents(folder, result)] == [[Doc("top").doc_id]]
    assert synthesize(folder, server, where="quality.bucket < 18", brief="distill")["sampled"] == 1


def test_a_larger_sample_pays_for_what_it_adds(folder: RunFolder, server: RatingServer) -> None:
    synthesize(folder, server, sample=5)
    assert server.asked.total() == 5
    result = synthesize(folder, server)
    assert set(server.asked.values()) == {1} and len(documents(folder, result)) == 12


def test_a_killed_run_goes_on(folder: RunFolder, server: RatingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after its second batch, before any manifest: what is drafted is not paid for again."""
    commit, count = job.commit_table, [0]

    def dying(*arguments: Any, **options: Any) -> Any:
        count[0] += 1
        if count[0] == 5:
            raise KeyboardInterrupt
        return commit(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(job, "commit_table", dying)
        with pytest.raises(KeyboardInterrupt):
            synthesize(folder, server)
    before = server.asked.total()
    result = synthesize(folder, server)
    assert server.asked.total() - before == 4
    assert len({row["doc_id"] for row in documents(folder, result)}) == result["documents"] == 12


BAD = {
    "NONE": "empty_text", "too short": "too_short", "CHATTER": "nonsense", "HALFJSON": "cut_off", "BLANK": "nonsense",
    "GARBAGE": "no_answer", "STALL": "timeout", "CUT": "no_connection", "BROKEN": "status_500", "COPYING": "copied",
}  # fmt: skip


@pytest.mark.parametrize(("word", "reason"), BAD.items())
def test_what_goes_wrong_is_a_row_with_its_reason(tmp_path: Path, server: RatingServer, word: str, reason: str) -> None:
    text = {"NONE": " \n ", "too short": "Few words."}.get(word, f"{word} {prose(99)}")
    folder = curated(tmp_path / "run", [*DOCS[:3], Doc("bad", text=text, bucket=19)])
    result = synthesize(folder, server, timeout_seconds=0.3)
    (found,) = rows(folder.synthesis(result["place"]) / "errors")
    assert found["reason"] == reason and found["doc_id"] == Doc("bad").doc_id
    assert result["documents"] == 3 and {**result["failed"], **result["rejected"]} == {reason: 1}


@pytest.mark.parametrize(("word", "said"), [("OVERLAP", "overlap or are out of order"), ("BEYOND", "no such sentence")])
def test_segments_that_are_none(tmp_path: Path, server: RatingServer, word: str, said: str) -> None:
    folder = curated(tmp_path / "run", [DOCS[0], Doc("bad", text=f"{word} {prose(99)}", bucket=19)])
    result = synthesize(folder, server, "chain_of_thought")
    found = errors(folder, result)["bad_segments"]
    assert said in found["said"] and (found["step"], found["attempts"]) == ("segment", 2)
    assert result["tokens"]["segment"]["requests"] == 3


def test_json_is_found_behind_thoughts_and_in_a_fence(tmp_path: Path, server: RatingServer) -> None:
    folder = curated(tmp_path / "run", [Doc("d", text=f"FENCED {prose(1)}", bucket=19)])
    assert synthesize(folder, server)["documents"] == 1


def test_a_text_above_the_context_is_cut_in_two(tmp_path: Path, server: RatingServer) -> None:
    text = "\n".join(f"LONG {prose(n, 3)}" for n in range(8))
    folder = curated(tmp_path / "run", [Doc("d", text=text, bucket=19)])
    result = synthesize(folder, server)
    spans = sorted((row["spans"][0]["start"], row["spans"][0]["end"]) for row in documents(folder, result))
    assert len(spans) > 2 and spans[0][0] == 0 and spans[-1][1] == len(text)
    assert all(end + 1 == start for (_, end), (start, _) in zip(spans, spans[1:], strict=False))
    before = server.asked.total()
    assert synthesize(folder, server)["documents"] == len(spans) and server.asked.total() == before


def test_equal_texts_stay_once_and_near_ones_too(tmp_path: Path, server: RatingServer) -> None:
    bad = [Doc(name, text=f"{word} {prose(n)}", bucket=19) for n, (name, word) in enumerate(
        [("a", "SAME"), ("b", "SAME"), ("c", "ALMOST")])]  # fmt: skip
    folder = curated(tmp_path / "run", [*DOCS[4:6], *bad])
    result = synthesize(folder, server)
    assert result["documents"] == 3 and result["drafts"] == 5
    assert result["rejected"] == {"exact_duplicate": 1, "near_duplicate": 1}


def test_items_of_benchmarks_are_left_out(tmp_path: Path, server: RatingServer) -> None:
    """The same drafts are screened again: nothing is paid for."""
    item = " ".join(reversed(prose(3).split()[:30]))
    bench = tmp_path / "quiz.jsonl"
    bench.write_text(json.dumps({"question": item, "answer": "yes"}) + "\n")
    folder = curated(tmp_path / "run", DOCS)
    assert synthesize(folder, server)["documents"] == 12
    before = server.asked.total()
    result = synthesize(folder, server, benchmarks=(f"quiz={bench}",))
    assert result["rejected"] == {"contaminated": 1} and server.asked.total() == before
    found = errors(folder, result)["contaminated"]
    assert found["doc_id"] == DOCS[3].doc_id and "of quiz" in found["said"]


def test_failures_are_asked_again_and_only_they(tmp_path: Path, server: RatingServer) -> None:
    folder = curated(tmp_path / "run", [*DOCS[:5], Doc("bad", text=f"CHATTER {prose(50)}", bucket=19)])
    assert synthesize(folder, server)["failed"] == {"nonsense": 1}
    before = server.asked.total()
    server.say = lambda payload, text: write_answer(payload, text.replace("CHATTER", "quiet"))
    result = synthesize(folder, server)
    assert server.asked.total() - before == 1 and result["documents"] == 6 and not result["failed"]
    assert result["tokens"]["write"]["requests"] == 5 + 2 + 1


def test_a_server_that_dies_leaves_what_it_wrote(folder: RunFolder, server: RatingServer) -> None:
    server.dead_after = 8
    with pytest.raises(ResourceError, match="does not answer any more"):
        synthesize(folder, server)
    (place,) = (folder.root / "synthesis").iterdir()
    assert open_dataset(place).manifest.rows == 8
    server.dead_after = None
    result = synthesize(folder, server)
    assert result["documents"] == 12 and sum(server.asked.values()) == 12


def test_nothing_written_is_an_error_that_names_the_reasons(tmp_path: Path, server: RatingServer) -> None:
    folder = curated(tmp_path / "run", [Doc("bad", text=f"CHATTER {prose(1)}", bucket=19)])
    with pytest.raises(InputError, match="nonsense 1"):
        synthesize(folder, server)


def test_what_is_written_is_a_source_of_another_run(folder: RunFolder, server: RatingServer) -> None:
    result = synthesize(folder, server, "diverse_qa")
    place = folder.synthesis(result["place"])
    inputs = expand_inputs("", [str(place)], kind="documents")
    batches = [batch for raw in inputs for batch in ingest(raw, IngestConfig())]
    read = pa.concat_tables([batch.documents for batch in batches])
    written = {row["doc_id"]: row for row in documents(folder, result)}
    assert set(read["doc_id"].to_pylist()) == set(written) and set(read["source"].to_pylist()) == {
        "synthetic/diverse_qa"
    }
    assert all(row["text"] == written[row["doc_id"]]["text"] for row in read.to_pylist())


def test_the_licence_is_the_one_of_the_source(folder: RunFolder, server: RatingServer, monkeypatch: Any) -> None:
    found = job._rows
    monkeypatch.setattr(
        job, "_rows", lambda path, numbers: ({**row, "licence": "CC-BY-4.0"} for row in found(path, numbers))
    )
    assert {row["licence"] for row in documents(folder, synthesize(folder, server))} == {"CC-BY-4.0"}


def test_what_was_written_of_a_removed_document_goes_with_it(tmp_path: Path, server: RatingServer) -> None:
    folder = curated(tmp_path / "run", [*DOCS[:5], Doc("bad", text=f"CHATTER {prose(50)}", bucket=19)])
    result = synthesize(folder, server)
    gone = frozenset({DOCS[0].doc_id, Doc("bad").doc_id})
    assert strip_written(folder, gone) == 1 and strip_written(folder, gone) == 0
    for kind in (".", "drafts"):
        left = [row["parents"][0] for row in rows(folder.synthesis(result["place"]) / kind)]
        assert sorted(left) == sorted(doc.doc_id for doc in DOCS[1:5])
    assert not errors(folder, result)
