"""The deduplication job: the search over files (`pipelines.dedup.search`) with its tasks on the cluster.

The driver holds counts and paths; a killed job goes on where it was, and a run whose inputs grew searches only what is
new, among itself and against what is there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.dedup.canaries import measure_recall
from pipelines.dedup.search.candidates import sign_part
from pipelines.dedup.search.generations import Growth, Search, dedup_config, open_search, read_record
from pipelines.dedup.search.run import Run, Task, search_duplicates
from pipelines.dedup.search.texts import PartTexts
from pipelines.jobs.driver import PartTask, run_parts
from pipelines.jobs.job import Job
from pipelines.run_folder import RunFolder
from storage.commit import write_atomically
from storage.errors import DatasetError
from storage.identity import fingerprint
from storage.manifests import Dataset, find_manifest, open_dataset
from storage.parts import read_batches

SIGNING_GPUS = 0.25
"""Of a GPU, for a process that signs: its one core reads, composes and hashes texts, which is slower than the GPU."""
CANARY_TEXTS, CANARY_PAIRS, CANARY_SEED = 1000, 200, 1
CANARY_PARTS = 32
"""Parts that canaries are made of: all sources of most runs, where each costs a row group to read."""


def run(job: Job) -> dict[str, Any]:
    """Find every verified pair and every exact copy of the run's documents; publish `pairs`, `copies`, `crowds`."""
    folder = RunFolder(job.run_folder)
    documents = open_dataset(folder.documents)
    settings = job.spec["settings"]
    checksums = [part.sha256 for part in documents.parts]

    def texts(growth: Growth) -> PartTexts:
        return list_texts(folder, documents, growth.checksums, growth.generations[-1].base)

    found = search_duplicates(folder.duplicates, settings, checksums, texts, run_on_cluster(job, "deduplicate"))
    (canaries,) = run_on_cluster(job, "deduplicate")(
        measure_canaries, [{"settings": settings, "texts": documents.paths()}]
    )
    return {**found, **canaries}


def run_on_cluster(job: Job, stage: str) -> Run:
    """Tasks of a search as parts of a job."""

    def run_tasks(task: Task, arguments: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        on_gpu = task is sign_part and job.gpus > 0
        device = {"device": "cuda"} if on_gpu else {}
        tasks = [
            PartTask(identity=f"{task.__name__} {i}", arguments={**each, **device}) for i, each in enumerate(arguments)
        ]
        gpus = SIGNING_GPUS if on_gpu else 0.0
        report = run_parts(job, tasks, task, total=len(tasks), stage=stage, gpus=gpus)
        report.require_all()
        return [result for result in report.results if result is not None]

    return run_tasks


def list_texts(folder: RunFolder, documents: Dataset, checksums: Sequence[str], base: str) -> PartTexts:
    """The documents by their numbers in the search of that base; the list is a file that the tasks read."""
    names = {part.sha256: part.file for part in documents.parts}
    listing = folder.duplicates / "work" / f"parts-{base}.json"
    write_atomically(listing, json.dumps([names[checksum] for checksum in checksums]).encode())
    return PartTexts(documents.folder, listing, _list_vectors(folder, checksums, listing))


def _list_vectors(folder: RunFolder, checksums: Sequence[str], listing: Path) -> tuple[Path, Path] | None:
    """The embeddings of those parts, where all have some."""
    embedded = find_manifest(folder.embeddings)
    names = {part.of: part.file for part in embedded.parts} if embedded else {}
    if not set(checksums) <= set(names):
        return None
    vectors = listing.with_name(listing.name.replace("parts-", "vectors-"))
    write_atomically(vectors, json.dumps([names[checksum] for checksum in checksums]).encode())
    return folder.embeddings, vectors


def finished_search(folder: RunFolder) -> Search:
    """The search that was finished here, able to read its texts again. Raises DatasetError where there is none."""
    checksums = read_record(folder.duplicates).get("parts", [])
    try:
        texts = list_texts(folder, open_dataset(folder.documents), checksums, fingerprint(checksums))
        return open_search(folder.duplicates, texts)
    except KeyError as error:
        raise DatasetError(
            "duplicates were searched among other documents than these",
            at=str(folder.duplicates),
            hint="run the step `deduplicate` again",
        ) from error


def measure_canaries(arguments: dict[str, Any]) -> dict[str, Any]:
    """Recall and precision of this run's own search on pairs planted in memory, made of its own documents."""
    paths = arguments["texts"]
    chosen = paths[:: -(-len(paths) // CANARY_PARTS) or 1]
    texts = [text for path in chosen for text in _first_texts(Path(path), -(-CANARY_TEXTS // len(chosen)))]
    config = dedup_config(arguments["settings"])
    report = measure_recall(config, texts, CANARY_SEED, num_pairs=CANARY_PAIRS)
    bands = [
        {
            "band": f"{b.lowest:.2f}–{b.highest:.2f}",
            "recall": b.found / b.planted,
            "pairs": b.planted,
            "on_paper": b.expected,
        }
        for b in report.bands[1:]
        if b.planted
    ]
    return {"canaries": bands, "canary_precision": report.precision}


def _first_texts(path: Path, count: int) -> list[str]:
    texts: list[str] = []
    for batch in read_batches(path, ["text"]):
        texts += batch.column("text").slice(0, count - len(texts)).to_pylist()
        if len(texts) == count:
            break
    return texts
