"""Repeated passages in a gigabyte within a memory that is set: MB a core-second, peak memory, and brute force's word.

Invariant: every method runs in a process of its own, phase after phase from documents in Parquet to the spans of each,
as the job runs them; its figures are that process's CPU time and peak memory. The peer is bare `pydivsufsort` over a
sample that fits: suffix array and longest common prefixes, in memory, without a word of what stands where.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.corpora import FOLDER
from benchmarks.planted_documents import PlantedCorpus, Sentences, make_part, read_sentences
from benchmarks.table import Row, publish
from pipelines.dedup.search.run import Run, Task
from storage.identity import fingerprint
from storage.manifests import Manifest, open_dataset, write_manifest
from storage.parts import Part, commit_table
from storage.schema import DOCUMENTS

DOCUMENTS_A_PART = 20_000
"""48 MB of text."""
DOCUMENTS_CHECKED = 200
MEAN_BYTES = 2400
PEER_MEGABYTES = 100
PEER = "pydivsufsort, array and LCP alone"


def main(arguments: list[str]) -> int:
    """Measure, print the table and write it to `benchmarks/results`."""
    options = argparse.ArgumentParser(prog="make bench-substring", description=__doc__)
    options.add_argument("--data", type=Path, default=FOLDER, help="the folder of real documents")
    options.add_argument("--megabytes", type=int, default=1000, help="text to search")
    options.add_argument("--memory", type=int, default=1000, help="what a task may hold, in MB")
    options.add_argument("--length", type=int, default=400, help="the shortest passage, in bytes")
    options.add_argument("--near-duplicates", type=float, default=0.3, help="share of documents that resemble another")
    options.add_argument("--scratch", type=Path, default=None, help="where the corpus and the work files lie")
    options.add_argument("--phases", action="store_true", help="print the CPU time of each phase")
    chosen = options.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=chosen.scratch) as folder:
        rows, notes = _measure(Path(folder), chosen)
    publish("substring", rows, packages=("pydivsufsort", "numba", "pyarrow"), notes=notes)
    return 0


def _measure(root: Path, chosen: argparse.Namespace) -> tuple[list[Row], list[str]]:
    corpus = PlantedCorpus(documents_per_part=DOCUMENTS_A_PART, near_duplicates=chosen.near_duplicates)
    size = _make_run(root / "whole", read_sentences(chosen.data), corpus, chosen.megabytes * 1_000_000)
    asked = f"substring:{chosen.length},memory={chosen.memory}"
    whole = _apart(_search, root / "whole", asked)
    step = max(1, round(size / MEAN_BYTES / DOCUMENTS_CHECKED))
    wrong, checked = _apart(_check, root / "whole", chosen.length, step)
    sample = min(PEER_MEGABYTES, chosen.megabytes)
    _copy_parts(root, sample * 1_000_000)
    ours = _apart(_search, root / "sample", f"substring:{chosen.length},memory={chosen.memory}")
    peer = _apart(_bare_arrays, root / "sample")
    array = _apart(_search, root / "array", f"substring:{chosen.length},memory=8000")
    equal = _apart(_are_equal, root / "sample", root / "array")
    rows = [
        _speed(f"substring: {size / 1e6:,.0f} MB, cut into ranges", whole),
        Row(what="peak memory of its largest task", figure=whole["peak"], unit="MB"),
        Row(what="text in passages that stand elsewhere too", figure=whole["bytes"] / size, unit="share"),
        Row(what="what of it can go", figure=whole["surplus_bytes"] / size, unit="share"),
        Row(what=f"documents of {checked:,} whose spans differ from brute force's", figure=wrong, unit="documents"),
        _speed(f"substring: {ours['size'] / 1e6:,.0f} MB, cut into ranges", ours, peer),
        Row(what="peak memory", figure=ours["peak"], unit="MB", peer=PEER, peer_figure=peer["peak"]),
        _speed(f"substring: {ours['size'] / 1e6:,.0f} MB, one array", array, peer),
        Row(what="documents whose spans differ between the two methods", figure=equal, unit="documents"),
    ]
    notes = [
        f"passages of {chosen.length} bytes or more; memory asked for: {chosen.memory} MB a task",
        f"documents from benchmarks/planted_documents.py, {chosen.near_duplicates:.0%} of them near-duplicates",
    ]
    if chosen.phases:
        notes += [f"{phase}: {seconds:.1f} s" for phase, seconds in whole["phases"].items()]
    return rows, notes


def _speed(what: str, ours: dict[str, Any], peer: dict[str, Any] | None = None) -> Row:
    figure = ours["size"] / ours["cpu"] / 1e6
    if peer is None:
        return Row(what=what, figure=figure, unit="MB/s a core")
    return Row(what=what, figure=figure, unit="MB/s a core", peer=PEER, peer_figure=ours["size"] / peer["cpu"] / 1e6)


def _apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result, called in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _make_run(root: Path, sentences: Sentences, corpus: PlantedCorpus, size: int) -> int:
    """A run folder with documents of about `size` bytes of text; the bytes that there are."""
    parts: list[Part] = []
    made = 0
    while made < size:
        table = _as_documents(make_part(sentences, corpus, len(parts)))
        text = table["text"].nbytes
        facts = {"text_bytes": sum(len(chunk.buffers()[2] or b"") for chunk in table["text"].chunks) or text}
        identity = fingerprint([len(parts), corpus.seed])
        parts.append(commit_table(root / "documents", identity, table, schema=DOCUMENTS, facts=facts))
        made += facts["text_bytes"]
    _publish(root, parts)
    return made


def _publish(root: Path, parts: list[Part]) -> None:
    stage = {"name": "planted"}
    write_manifest(root / "documents", Manifest(kind="documents", identity="planted", stage=stage, parts=tuple(parts)))


def _as_documents(table: pa.Table) -> pa.Table:
    count = len(table)
    constant = {"content_hash": table["doc_id"], "source": pa.array(["planted"] * count)}
    record = pa.array([{"file": "planted", "offset": None, "length": None, "page": None}] * count)
    columns = {**constant, "record": record, **{name: table[name] for name in ("doc_id", "text")}}
    made = [columns.get(field.name, pa.nulls(count, field.type)).cast(field.type) for field in DOCUMENTS]
    return pa.table(made, schema=DOCUMENTS).combine_chunks()


def _copy_parts(root: Path, size: int) -> None:
    """Two run folders with the first parts of the whole."""
    documents = open_dataset(root / "whole" / "documents")
    taken: list[Part] = []
    for part in documents.parts:
        if sum(part.facts["text_bytes"] for part in taken) < size:
            taken.append(part)
    for name in ("sample", "array"):
        (root / name / "documents").mkdir(parents=True)
        for part in taken:
            shutil.copy(documents.path(part), root / name / "documents")
        _publish(root / name, taken)


def _search(root: Path, asked: str) -> dict[str, Any]:
    """The whole search as the job does it; `peak` is of the task that took most, all tasks in this one process."""
    from pipelines.jobs.spans import find_spans

    phases: dict[str, float] = defaultdict(float)

    def call(task: Task, arguments: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        start = time.process_time()
        results = [task(each) for each in arguments]
        phases[task.__name__] += time.process_time() - start
        return results

    _warm_up(root.parent / f"warm-{root.name}", call)
    phases.clear()
    start = time.process_time()
    found = find_spans(root, {"repeated_spans": asked, "repeated_lines": None}, cut=False, run=call)
    seconds = time.process_time() - start
    size = sum(part.facts["text_bytes"] for part in open_dataset(root / "documents").parts)
    return {"cpu": seconds, "peak": _peak(), "size": size, "phases": dict(phases), **found["found"]["repeated"]}


def _warm_up(root: Path, call: Run) -> None:
    """Compile the kernels, or read them from their cache."""
    from pipelines.jobs.spans import find_spans

    table = pa.table({"doc_id": pa.array([bytes(16)], pa.binary(16)), "text": ["one two three " * 40]})
    facts = {"text_bytes": 560}
    _publish(root, [commit_table(root / "documents", "w", _as_documents(table), schema=DOCUMENTS, facts=facts)])
    for memory in (16, 1000):
        asked = {"repeated_spans": f"substring:100,memory={memory}", "repeated_lines": None}
        find_spans(root, asked, cut=False, run=call)


def _peak() -> float:
    """The most memory that this process has held, in MB."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else float("nan")


def _batches(root: Path) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """(doc_ids, texts) of the documents, a stored batch at a time."""
    documents = open_dataset(root / "documents")
    for part in documents.parts:
        for batch in documents.batches(part, ["doc_id", "text"]):
            yield batch.column("doc_id").to_pylist(), batch.column("text").cast(pa.binary()).to_pylist()


def _check(root: Path, length: int, step: int) -> tuple[int, int]:
    """(wrong, checked): every `step`-th document's spans by the definition, its windows counted in all texts."""
    drawn = dict(islice(_pairs(root), 0, None, step))
    windows = {text[start : start + length] for text in drawn.values() for start in range(len(text) - length + 1)}
    counts = _count(root, windows, length)
    spans = _spans_of(root, set(drawn))
    wrong = sum(spans[doc_id] != _expected(text, counts, length) for doc_id, text in drawn.items())
    return wrong, len(drawn)


def _pairs(root: Path) -> Iterator[tuple[bytes, bytes]]:
    for doc_ids, texts in _batches(root):
        yield from zip(doc_ids, texts, strict=True)


def _expected(text: bytes, counts: dict[bytes, int], length: int) -> list[tuple[int, int]]:
    """What repeated windows cover, without halves of characters."""
    marks = np.zeros(len(text) + 1, np.int64)
    for start in range(len(text) - length + 1):
        if counts[text[start : start + length]] > 1:
            marks[start], marks[start + length] = marks[start] + 1, marks[start + length] - 1
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (np.cumsum(marks) > 0).astype(np.int64)])))
    found = []
    for start, end in edges.reshape(-1, 2).tolist():
        while start < end and text[start] & 0xC0 == 0x80:
            start += 1
        while start < end < len(text) and text[end] & 0xC0 == 0x80:
            end -= 1
        found += [(start, end)] if start < end else []
    return found


def _count(root: Path, windows: set[bytes], length: int) -> dict[bytes, int]:
    """How often each window stands in all texts: every place is looked at, by a hash first, then by its bytes."""
    hints = np.zeros(1 << _HINT_BITS, np.bool_)
    joined = np.frombuffer(b"".join(windows), np.uint8)
    hints[_hints(joined, length)[::length]] = True
    counts = dict.fromkeys(windows, 0)
    for _, texts in _batches(root):
        data = b"".join(texts)
        ends = np.repeat(np.cumsum([len(text) for text in texts]), [len(text) for text in texts])
        places = np.flatnonzero(hints[_hints(np.frombuffer(data, np.uint8), length)])
        for place in places[places + length <= ends[places]].tolist():
            window = data[place : place + length]
            if window in counts:
                counts[window] += 1
    return counts


_HINT_BITS = 26
_BASE = 0x9E3779B97F4A7C15


def _hints(data: npt.NDArray[np.uint8], length: int) -> npt.NDArray[np.uint64]:
    """uint64[n - length + 1], below 2 ** 26: of each window a hash, by prefix sums modulo 2^64."""
    powers = np.cumprod(np.full(len(data), _BASE, np.uint64)) if len(data) else np.zeros(0, np.uint64)
    inverse = np.cumprod(np.full(len(data), pow(_BASE, -1, 1 << 64), np.uint64))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum((data.astype(np.uint64) + np.uint64(1)) * inverse)])
    mixed: npt.NDArray[np.uint64] = (sums[length:] - sums[:-length]) * powers[: len(data) - length + 1]
    mixed >>= np.uint64(64 - _HINT_BITS)
    return mixed


def _spans_of(root: Path, wanted: set[bytes]) -> dict[bytes, list[tuple[int, int]]]:
    from pipelines.run_folder import RunFolder

    repeated = open_dataset(RunFolder(root).repeated)
    return {
        doc_id: [(span["start"], span["end"]) for span in found["spans"]]
        for part in repeated.parts
        for batch in repeated.batches(part)
        for doc_id, found in zip(batch.column(0).to_pylist(), batch.column(1), strict=True)
        if doc_id in wanted
        for found in [found.as_py()]
    }


def _bare_arrays(root: Path) -> dict[str, float]:
    """The peer: all texts in one buffer, its suffix array and longest common prefixes."""
    from pydivsufsort import divsufsort, kasai

    data = np.frombuffer(b"\xff".join(text for _, text in _pairs(root)), np.uint8).copy()
    start = time.process_time()
    kasai(data, divsufsort(data))
    return {"cpu": time.process_time() - start, "peak": _peak()}


def _are_equal(one: Path, other: Path) -> int:
    """How many documents have other attributes in one run than in the other."""
    from pipelines.run_folder import RunFolder

    left, right = (open_dataset(RunFolder(root).repeated) for root in (one, other))
    pairs = zip(left.parts, right.parts, strict=True)
    return sum(
        a != b
        for mine, theirs in pairs
        for batch, like in zip(left.batches(mine), right.batches(theirs), strict=True)
        if not batch.equals(like)
        for a, b in zip(batch.to_pylist(), like.to_pylist(), strict=True)
    )
