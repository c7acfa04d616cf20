"""Deduplication of more documents than fit in memory: cost, peak memory, disk, recall, and what a tenth adds.

Documents come from `planted_documents.py` as a stream, made when they are read and again when some are verified; no
text is stored. The search is the job's own (`pipelines.dedup.search`), its tasks in a pool of processes and its files
in a scratch folder, which is removed. Then a policy that keeps the least number settles every range.

Invariant: CPU is that of all processes; what the generator took is measured where it runs and stands apart. Memory is
the sum of PSS over all processes (shared pages once), sampled four times a second, and its CPU left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.corpora import FOLDER
from benchmarks.planted_documents import (
    PlantedCorpus,
    Sentences,
    list_pairs,
    make_documents,
    make_part,
    read_sentences,
)
from benchmarks.table import Row, publish
from pipelines.dedup.columns import identifier_halves
from pipelines.dedup.keepers import STANDINGS, choose_keepers
from pipelines.dedup.parameters import DedupConfig
from pipelines.dedup.reference import jaccard, make_shingles
from pipelines.dedup.search.generations import Growth
from pipelines.dedup.search.run import Task, search_duplicates
from storage.identity import fingerprint
from storage.manifests import Dataset, open_dataset

Integers = npt.NDArray[np.int64]

PROCESSES = 2
BASE_DOCUMENTS = 1_000_000
DOCUMENTS_PER_PART = 100_000
ROWS_AT_A_TIME = 4096
SAMPLE_SECONDS = 0.25
RECALL_BANDS = {"[0.85, 1]": (0.85, 1.01), "[0.80, 0.85)": (0.8, 0.85)}
SAMPLED_PAIRS = 6000


def main(arguments: list[str]) -> int:
    """Measure, print the table and write it to `benchmarks/results`."""
    options = argparse.ArgumentParser(prog="make bench-dedup-scale", description=__doc__)
    options.add_argument("--data", type=Path, default=FOLDER, help="where sentences are taken from")
    options.add_argument("--documents", type=int, default=20_000_000)
    options.add_argument("--base", type=int, default=BASE_DOCUMENTS, help="documents of the corpus compared with")
    options.add_argument("--near-duplicates", type=float, default=0.01, help="their share")
    options.add_argument("--increment", type=float, default=0.1, help="share of documents that a second crawl adds")
    options.add_argument("--processes", type=int, default=PROCESSES)
    options.add_argument("--scratch", type=Path, help="a folder on a disk with 1 KB a document free")
    chosen = options.parse_args(arguments)
    corpus = PlantedCorpus(
        documents_per_part=DOCUMENTS_PER_PART, near_duplicates=chosen.near_duplicates, pairs=0.0, copies=0.005
    )
    texts = PlantedTexts(chosen.data, dataclasses.replace(corpus, pairs=0.004))
    measure = partial(_measure, texts, chosen)
    warm = measure(DOCUMENTS_PER_PART, 0.0)
    small, large = measure(chosen.base, 0.0), measure(chosen.documents, chosen.increment)
    publish(_name(chosen), list(_rows(small, large)), packages=("numba", "pyarrow"), notes=_notes(chosen, warm, large))
    return 0


def _name(chosen: argparse.Namespace) -> str:
    return "dedup_scale" if chosen.documents >= 20_000_000 else f"dedup_scale_{chosen.documents}"


@dataclass(frozen=True)
class PlantedTexts:
    """Parts of a planted corpus, made whenever they are read."""

    data: Path
    corpus: PlantedCorpus

    def batches(self, part: int) -> Iterator[pa.RecordBatch]:
        start = time.process_time()
        table = make_part(_sentences(self.data), self.corpus, part)
        _GENERATED[0] += time.process_time() - start
        yield from table.to_batches(max_chunksize=ROWS_AT_A_TIME)

    def urls(self, part: int) -> pa.Table:
        """None of them has one."""
        return pa.table({"doc_id": pa.array([], pa.binary(16)), "url": pa.array([], pa.string())})

    def vectors(self, part: int) -> pa.Table:
        """None of them has one."""
        return pa.table({"doc_id": pa.array([], pa.binary(16)), "vector": pa.array([], pa.list_(pa.float16(), 1))})

    def take(self, part: int, rows: Any) -> pa.Table:
        start = time.process_time()
        table = make_documents(_sentences(self.data), self.corpus, part * self.corpus.documents_per_part + rows)
        _GENERATED[0] += time.process_time() - start
        return table


_GENERATED = [0.0]
"""CPU seconds that this process spent on making documents, which stand for reading them."""


@lru_cache(maxsize=1)
def _sentences(data: Path) -> Sentences:
    return read_sentences(data)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one corpus took. CPU seconds are without the generator's."""

    documents: int
    cpu_seconds: float
    generator_seconds: float
    wall_seconds: float
    added_seconds: float | None
    peak_bytes: int
    disk_bytes: int
    recall: dict[str, tuple[int, int]]
    kept: int
    found: dict[str, Any]
    phases: dict[str, float]

    @property
    def microseconds(self) -> float:
        return self.cpu_seconds / self.documents * 1e6


@dataclass
class _Clock:
    """Runs tasks in a pool, and adds up what they took."""

    pool: ProcessPoolExecutor
    cpu: float = 0.0
    generated: float = 0.0
    phases: dict[str, float] = dataclasses.field(default_factory=dict)

    def run(self, task: Task, arguments: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        results = []
        for result, cpu, generated in self.pool.map(partial(_timed, task), arguments):
            self.cpu, self.generated = self.cpu + cpu, self.generated + generated
            self.phases[task.__name__] = self.phases.get(task.__name__, 0.0) + cpu
            results.append(result)
        return results


def _timed(task: Task, arguments: dict[str, Any]) -> tuple[dict[str, Any], float, float]:
    """(result, CPU seconds without the generator's, the generator's)."""
    start, made = time.process_time(), _GENERATED[0]
    result = task(arguments)
    generated = _GENERATED[0] - made
    return result, time.process_time() - start - generated, generated


def _measure(texts: PlantedTexts, chosen: argparse.Namespace, documents: int, increment: float) -> Figures:
    """Search so many documents, then, if there is an increment, as if its share of them had come later."""
    parts = -(-documents // texts.corpus.documents_per_part)
    more = round(parts * increment)
    root = Path(tempfile.mkdtemp(prefix="dedup-scale-", dir=chosen.scratch))
    start = time.monotonic()
    try:
        with ProcessPoolExecutor(chosen.processes, initializer=_start_worker, initargs=(texts.data,)) as pool:
            clock = _Clock(pool)
            with _Watch() as watch:
                before = _own_cpu()
                found = _search(root, texts, parts, clock)
                kept = sum(result["kept"] for result in clock.run(settle_least, _settling(root)))
            own = _own_cpu() - before - watch.cpu
            wall, cpu, generated = time.monotonic() - start, clock.cpu + own, clock.generated
            recall, disk, phases = _recall(root, texts, parts), _size(root), dict(clock.phases)
            added = _add(root, texts, parts, more, clock) if more else None
    finally:
        shutil.rmtree(root)
    return Figures(
        documents=parts * texts.corpus.documents_per_part,
        cpu_seconds=cpu,
        generator_seconds=generated,
        wall_seconds=wall,
        added_seconds=added,
        peak_bytes=watch.peak,
        disk_bytes=disk,
        recall=recall,
        kept=kept,
        found=found,
        phases=phases,
    )


def _add(root: Path, texts: PlantedTexts, parts: int, more: int, clock: _Clock) -> float:
    """CPU seconds of adding parts to what was searched, and of settling everything anew."""
    before, own = clock.cpu, _own_cpu()
    result = _search(root, texts, parts + more, clock)
    assert result["added"] == more * texts.corpus.documents_per_part
    clock.run(settle_least, _settling(root))
    return clock.cpu - before + _own_cpu() - own


def _search(root: Path, texts: PlantedTexts, parts: int, clock: _Clock) -> dict[str, Any]:
    checksums = [fingerprint([texts.corpus, part]) for part in range(parts)]

    def numbered(growth: Growth) -> PlantedTexts:
        assert list(growth.checksums) == checksums, "parts only come to the end"
        return texts

    return search_duplicates(root, dataclasses.asdict(DedupConfig()), checksums, numbered, clock.run)


def _settling(root: Path) -> list[dict[str, Any]]:
    return [{"root": root, "number": i} for i in range(len(open_dataset(root / "pairs").parts))]


def settle_least(arguments: dict[str, Any]) -> dict[str, Any]:
    """Keepers of one range by the least number: how many of its documents stay."""
    datasets = [open_dataset(arguments["root"] / kind) for kind in ("pairs", "copies")]
    pairs, copies = (dataset.read(dataset.parts[arguments["number"]]) for dataset in datasets)
    columns = [pairs["a_doc_id"], pairs["b_doc_id"], copies["doc_id"], copies["representative"]]
    doc_ids = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.binary(16)).unique()
    _, ranks = identifier_halves(doc_ids)
    standings = [doc_ids, pa.array(ranks.astype(np.int64)), pa.array(np.ones(len(ranks), np.bool_))]
    keepers = choose_keepers(pa.table(standings, schema=STANDINGS), pairs, copies)
    return {"kept": keepers["duplicate_of"].null_count}


def _recall(root: Path, texts: PlantedTexts, parts: int) -> dict[str, tuple[int, int]]:
    """(found, planted) by band of measured similarity, for a sample of the planted pairs of all parts."""
    found = _found_numbers(open_dataset(root / "pairs"))
    counts = {name: (0, 0) for name in RECALL_BANDS}
    for part in range(parts):
        pairs = _planted(texts, part)[: max(1, SAMPLED_PAIRS // parts)]
        similarities = _measure_similarities(texts, pairs)
        hits = np.isin(pairs[:, 0] << 32 | pairs[:, 1], found)
        for name, (low, high) in RECALL_BANDS.items():
            inside = (similarities >= low) & (similarities < high)
            counts[name] = (counts[name][0] + int(hits[inside].sum()), counts[name][1] + int(inside.sum()))
    return counts


def _planted(texts: PlantedTexts, part: int) -> Integers:
    """int64[n, 2]: the numbers of the planted pairs of a part that aim at 0.75 and more, the original's first."""
    first = part * texts.corpus.documents_per_part
    planted = list_pairs(texts.corpus, np.arange(first, first + texts.corpus.documents_per_part))
    near = planted.filter(pc.greater_equal(planted["aim"], 0.75))
    return np.stack([near[name].to_numpy() for name in ("original", "variant")], axis=1)


def _measure_similarities(texts: PlantedTexts, pairs: Integers) -> npt.NDArray[np.float64]:
    """By the plain implementation, on strings."""
    made = make_documents(_sentences(texts.data), texts.corpus, pairs.ravel())["text"].to_pylist()
    sets = [make_shingles(text, DedupConfig().signature) for text in made]
    return np.array([jaccard(a, b) for a, b in zip(sets[::2], sets[1::2], strict=True)])


def _found_numbers(pairs: Dataset) -> Integers:
    """The pairs as one number each: the lesser document's << 32 | the other's."""
    keys = []
    for part in pairs.parts:
        table = pairs.read(part, ["a_doc_id", "b_doc_id"])
        a, b = (identifier_halves(column)[1].astype(np.int64) for column in table.columns)
        keys.append(np.minimum(a, b) << 32 | np.maximum(a, b))
    return np.concatenate(keys)


def _rows(small: Figures, large: Figures) -> Iterator[Row]:
    named = f"{large.documents / 1e6:g} million documents"
    yield Row(
        what=f"{named}: CPU a document",
        figure=large.microseconds,
        unit="µs",
        peer=f"at {small.documents / 1e6:g} million",
        peer_figure=small.microseconds,
    )
    yield Row(what=f"{named}: documents a core-second", figure=1e6 / large.microseconds, unit="documents")
    yield Row(what=f"{named}: peak memory over all processes", figure=large.peak_bytes / 1e9, unit="GB")
    yield Row(what=f"{named}: on disk", figure=large.disk_bytes / 1e9, unit="GB")
    yield Row(what=f"{named}: time", figure=large.wall_seconds / 60, unit="minutes")
    for name, (found, planted) in large.recall.items():
        what = f"{named}: recall of pairs whose measured Jaccard is in {name} (of {planted:,})"
        yield Row(what=what, figure=found / max(1, planted), unit="share")
    if large.added_seconds is not None:
        yield Row(
            what="a tenth added to a finished corpus: CPU",
            figure=large.added_seconds,
            unit="s",
            peer="the whole",
            peer_figure=large.cpu_seconds,
        )


def _notes(chosen: argparse.Namespace, warm: Figures, large: Figures) -> list[str]:
    told = ("pairs", "copies", "crowds", "candidates", "rounds")
    counts = {name: large.found[name] for name in told}
    phases = {name: round(seconds / large.documents * 1e6, 2) for name, seconds in large.phases.items()}
    return [
        f"{chosen.processes} processes, after {warm.documents:,} documents to warm up; near-duplicates "
        f"{chosen.near_duplicates:.0%}, copies 0.5%, planted pairs 0.4%",
        f"making documents took {large.generator_seconds / large.documents * 1e6:.1f} µs each, which is not counted",
        f"found: {counts}; of the documents in pairs and copies {large.kept:,} stay",
        f"CPU by task, µs a document: {phases}",
    ]


def _start_worker(data: Path) -> None:
    pa.set_cpu_count(1)
    _sentences(data)


def _own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _size(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


class _Watch:
    """The peak of the memory of this process and its children while it is open, and what watching cost."""

    def __init__(self) -> None:
        self.peak, self.cpu = 0, 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, sum(map(_proportional_bytes, [os.getpid(), *_children()])))
        self.cpu = time.thread_time()


def _children() -> list[int]:
    path = Path(f"/proc/{os.getpid()}/task")
    return [int(pid) for task in path.glob("*/children") for pid in task.read_text().split()]


def _proportional_bytes(pid: int) -> int:
    """PSS; 0 for a process that is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (OSError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
