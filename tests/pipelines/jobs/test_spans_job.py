"""The job's phases in one process: the same bytes for any memory, cut and number of attempts, and what they publish."""

from __future__ import annotations

import json
import multiprocessing
import random
import resource
import string
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.commands.gc import find_garbage
from pipelines.dedup.search.run import Task
from pipelines.jobs.rewrite import rewrite_part
from pipelines.jobs.spans import find_spans
from pipelines.request import REQUEST_FILE, RunRequest
from pipelines.run_folder import RunFolder, forget_spans
from storage.identity import content_hash
from storage.manifests import Manifest, align, open_dataset, write_manifest
from storage.parts import commit_table, part_from_json, part_to_json
from storage.schema import DOCUMENTS, Document, documents_table

PASSAGE = "The mill by the river ground its last sack of rye in the autumn of that year, as the parish book tells. "
MENU = "Home | News | Contact"


def text(number: int) -> str:
    rng = random.Random(number)
    words = " ".join(rng.choice("alpha beta gamma delta epsilon zeta eta theta".split()) for _ in range(60))
    middle = PASSAGE if number % 3 == 0 else ""
    return f"{MENU}\nPage {number} {words}\n{middle}{number}"


def document(number: int) -> Document:
    return Document(
        doc_id=content_hash(str(number).encode()), text=text(number), title=None, source="web",
        url=f"https://h{number % 2}.example.org/{number}", file="a", offset=number, length=1, page=None,
        collected_at=None, licence=None,
    )  # fmt: skip


def make_run(root: Path, parts: Iterable[Iterable[int]]) -> RunFolder:
    folder, committed = RunFolder(root), []
    for number, members in enumerate(parts):
        rows = documents_table([document(member) for member in members])
        facts = {"text_bytes": sum(len(value.encode()) for value in rows["text"].to_pylist())}
        committed.append(commit_table(folder.ingested, f"{number:032x}", rows, schema=DOCUMENTS, facts=facts))
    stage = {"name": "ingest", "version": 1}
    write_manifest(folder.ingested, Manifest(kind="documents", identity="d", stage=stage, parts=tuple(committed)))
    return folder


def backwards(task: Task, arguments: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tasks one after another, in reverse order."""
    return [task(each) for each in reversed(arguments)][::-1]


def search(folder: RunFolder, *, substrings: str | None = None, lines: str | None = None, cut: bool = False) -> Any:
    asked = {"repeated_spans": substrings, "repeated_lines": lines}
    return find_spans(folder.root, asked, cut=cut, run=backwards)


def attributes(folder: RunFolder) -> dict[str, Any]:
    dataset = open_dataset(folder.repeated)
    return {
        row["doc_id"]: row
        for _, part in align(open_dataset(folder.documents), dataset)
        for row in dataset.read(part).to_pylist()
    }


def texts(folder: RunFolder) -> dict[bytes, str]:
    documents = open_dataset(folder.documents)
    tables = [documents.read(part, ["doc_id", "text"]) for part in documents.parts]
    return {row["doc_id"]: row["text"] for row in pa.concat_tables(tables).to_pylist()}


ONE, MANY = [range(60)], [range(0, 7), range(7, 8), [], range(8, 60)]
ASKED = {"substrings": "substring:80", "lines": "host:3"}


def test_parts_and_memory_change_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    whole = make_run(tmp_path / "whole", ONE)
    search(whole, **ASKED, cut=True)
    parted = make_run(tmp_path / "parted", MANY)
    monkeypatch.setattr("pipelines.dedup.spans.search.MEGABYTE", 20)
    search(parted, **ASKED, cut=True)
    assert len(list((parted.spans / "repeats").glob("*.parquet"))) > 1 and not (whole.spans / "repeats").exists()
    assert attributes(whole) == attributes(parted)
    assert texts(whole) == texts(parted)


def test_what_is_found_and_cut(tmp_path: Path) -> None:
    folder = make_run(tmp_path, MANY)
    result = search(folder, **ASKED, cut=True)
    rows, left = attributes(folder), texts(folder)
    holders = sorted(document(number).doc_id for number in range(0, 60, 3))
    kept = [doc_id for doc_id in left if PASSAGE in left[doc_id]]
    assert holders[0] in kept and len(kept) < 5  # the others are the first with what stands beside the passage
    assert {row["repeated"]["occurrences"] for doc_id, row in rows.items() if doc_id in holders} == {20}
    assert rows[holders[3]]["repeated"]["example"] == holders[0]
    assert rows[holders[0]]["repeated"]["example"] == holders[1]
    assert all(MENU not in value for value in left.values())
    assert {row["repeated_lines"]["occurrences"] for row in rows.values()} == {30}
    assert all(row["remove_repeated_spans"]["is_changed"] for row in rows.values())
    before = sum(len(text(number).encode()) for number in range(60))
    assert before - result["removed_bytes"] == sum(len(value.encode()) for value in left.values())
    documents = open_dataset(folder.documents)
    for part in documents.parts:
        for row in documents.read(part).to_pylist():
            assert row["content_hash"] == content_hash(row["text"].encode())


def test_measuring_alone_changes_no_text(tmp_path: Path) -> None:
    folder = make_run(tmp_path, MANY)
    search(folder, **ASKED, cut=True)
    assert folder.documents == folder.cut
    result = search(folder, lines="corpus:3")
    assert folder.documents == folder.ingested and result["removed_bytes"] == 0
    assert set(next(iter(attributes(folder).values()))) == {"doc_id", "repeated_lines"}
    forget_spans(folder)
    assert not folder.of_texts()


def test_a_search_that_was_half_done_ends_the_same(tmp_path: Path) -> None:
    folder = make_run(tmp_path, MANY)
    search(folder, **ASKED, cut=True)
    before = attributes(folder), texts(folder)
    for place in (folder.repeated, folder.cut, folder.spans / "counted"):
        next(path for path in place.glob("*.json") if path.name != "manifest.json").unlink()
    search(folder, **ASKED, cut=True)
    assert (attributes(folder), texts(folder)) == before


def test_what_earlier_rewrites_did_stands_beside_cut_texts(tmp_path: Path) -> None:
    folder = make_run(tmp_path, ONE)
    (part,) = open_dataset(folder.ingested).parts
    asked = {"root": str(folder.root), "rewrite": ["clean_c4_lines"], "identity": "b" * 32, "part": part_to_json(part)}
    result = rewrite_part(asked)
    for place, kind, made in ((folder.rewritten, "documents", "part"), (folder.rewrites, "rewrites", "counts")):
        parts = (part_from_json(result[made]),)
        write_manifest(place, Manifest(kind=kind, identity=made, stage={}, parts=parts))
    search(folder, substrings="substring:80", cut=True)
    assert folder.of_texts() == [folder.repeated]
    assert set(next(iter(attributes(folder).values()))) == {
        "doc_id", "repeated", "remove_repeated_spans", "clean_c4_lines"
    }  # fmt: skip


def test_work_files_and_what_is_not_asked_any_more_are_garbage(tmp_path: Path) -> None:
    """Work files hold text, so a removal must find them."""
    folder = make_run(tmp_path, ONE)
    search(folder, **ASKED, cut=True)

    def garbage(**asked: Any) -> set[Path]:
        request = RunRequest(out=str(folder.root), **asked).to_json()
        (folder.root / REQUEST_FILE).write_text(json.dumps({"request": request}))
        return set(find_garbage(folder))

    asked = {"repeated_spans": ASKED["substrings"], "repeated_lines": ASKED["lines"]}
    assert garbage(**asked, rewrite=("remove_repeated_spans",)) == {folder.spans}
    assert {folder.spans, folder.cut, folder.repeated} <= garbage()


def peak_of_a_large_document(root: Path, memory: int) -> tuple[int, int, int]:
    """(bytes in spans, memory before, memory at its peak), in a process of its own."""
    rng = random.Random(1)
    passage = "".join(rng.choices(string.ascii_letters, k=1_000))
    block = rng.randbytes(25_000_000).hex()
    large = f"{block[:10_000_000]}{passage}{block[10_000_000:]}{passage}"
    folder, rows = RunFolder(root), documents_table([replace(document(0), text=large)])
    part = commit_table(folder.ingested, "a" * 32, rows, schema=DOCUMENTS, facts={"text_bytes": len(large)})
    write_manifest(folder.ingested, Manifest(kind="documents", identity="d", stage={}, parts=(part,)))
    del block, large, rows
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = search(folder, substrings=f"substring:200,memory={memory}")
    return found["found"]["repeated"]["bytes"], before << 10, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.slow
def test_a_document_of_fifty_megabytes_stays_within_the_memory(tmp_path: Path) -> None:
    """Beside the memory asked for there is the document itself: as text, as larger strings, and as it is read."""
    memory = 200
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        covered, before, peak = pool.submit(peak_of_a_large_document, tmp_path, memory).result()
    assert covered == 2_000
    assert peak - before < memory * 1_000_000 + 4 * 50_000_000
