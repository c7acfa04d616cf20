"""The ingest job: raw inputs in, documents parts and rows of failures out; every record is accounted for.

One task reads one raw input and commits its parts as they fill; a receipt, written last, lists them with the counts. An
input whose receipt is there is not read again. Records that stand in two inputs (the same WARC given twice) keep their
first place, and what was removed from the run is removed again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from pipelines.jobs.driver import PartTask, run_parts
from pipelines.jobs.job import Job
from pipelines.removal import read_removals, strip_part, strip_rows
from pipelines.run_folder import RunFolder
from sources.apart import ingest_apart
from sources.ingest import Batch, IngestConfig, config_from_json, ingest, ingest_identity
from sources.inputs import RawInput, identity_of
from sources.watch import Watch
from storage.commit import write_atomically
from storage.errors import InputError
from storage.identity import fingerprint
from storage.manifests import Manifest, write_manifest
from storage.parts import Part, commit_table, find_part, part_from_json, part_to_json, read_batches
from storage.schema import DOCUMENTS, FAILURES

STAGE = "ingest"
ROWS_A_RANGE = 50_000_000
"""Rows whose ids are compared at a time: 800 MB of ids."""


def run(job: Job) -> dict[str, Any]:
    """Read every input; publish `documents` and `failures/ingest`."""
    folder = RunFolder(job.run_folder)
    tasks = [
        PartTask(
            identity=fingerprint(raw),
            arguments={"root": str(job.run_folder), "raw": raw, "config": job.spec["config"]},
        )
        for raw in job.spec["inputs"]
    ]
    report = run_parts(job, tasks, ingest_input, total=len(tasks), stage=STAGE)
    report.require_all()
    receipts = [result["receipt"] for result in report.results if result]
    removals = read_removals(folder)
    parts = [part_from_json(part) for receipt in receipts for part in receipt["documents"]]
    stripped = [strip_part(folder.ingested, part, removals) for part in parts]
    unique = _first_of_each(folder.ingested, [part for part in stripped if part.rows])
    return _publish(folder, job, receipts, [part for part in unique if part.rows])


def ingest_input(arguments: dict[str, Any]) -> dict[str, Any]:
    """Read one raw input into parts, or find its receipt."""
    folder, raw = RunFolder(Path(arguments["root"])), RawInput(**arguments["raw"])
    config = config_from_json(arguments["config"])
    base = fingerprint({"stage": ingest_identity(raw.kind, config), "raw": identity_of(raw)})
    path = folder.ingested / "inputs" / f"{base}.json"
    receipt = _find_receipt(path, folder)
    if receipt is None:
        receipt = _read(folder, raw, config, base)
        write_atomically(path, (json.dumps(receipt, indent=1, sort_keys=True) + "\n").encode())
    rows = sum(part["rows"] for part in receipt["documents"])
    size = sum(part["facts"]["text_bytes"] for part in receipt["documents"])
    return {"documents": rows, "bytes": size, "failures": sum(receipt["failures"].values()), "receipt": receipt}


def _find_receipt(path: Path, folder: RunFolder) -> dict[str, Any] | None:
    try:
        receipt: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    whole = all(find_part(folder.ingested, part["identity"]) for part in receipt["documents"])
    whole = whole and all(find_part(folder.failures(STAGE), part["identity"]) for part in receipt["failed"])
    return receipt if whole else None


def _read(folder: RunFolder, raw: RawInput, config: IngestConfig, base: str) -> dict[str, Any]:
    documents, failed = [], []
    skipped: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for batch in _batches(folder, raw, config, base):
        identity = fingerprint({"input": base, "ordinal": batch.ordinal})
        size = pc.sum(pc.binary_length(batch.documents["text"])).as_py() or 0
        facts = {"text_bytes": int(size), "source": raw.source}
        documents.append(commit_table(folder.ingested, identity, batch.documents, schema=DOCUMENTS, facts=facts))
        if len(batch.failures):
            failed.append(commit_table(folder.failures(STAGE), identity, batch.failures, schema=FAILURES))
        skipped.update(batch.skipped)
        reasons.update(batch.failures["reason"].to_pylist())
    return {
        "name": raw.name,
        "documents": [part_to_json(part) for part in documents],
        "failed": [part_to_json(part) for part in failed],
        "skipped": dict(sorted(skipped.items())),
        "failures": dict(sorted(reasons.items())),
    }


def _batches(folder: RunFolder, raw: RawInput, config: IngestConfig, base: str) -> Iterator[Batch]:
    """The input's batches; where a worker has died over it, by a process of its own that may die again."""
    begun = folder.ingested / "inputs" / f"{base}.begun"
    has_died = begun.exists()
    begun.parent.mkdir(parents=True, exist_ok=True)
    begun.touch()
    try:
        yield from ingest_apart(raw, config) if has_died else ingest(raw, config, watch=Watch())
    finally:
        begun.unlink(missing_ok=True)


def _first_of_each(documents: Path, parts: list[Part]) -> list[Part]:
    """The parts without rows whose doc_id stands earlier: ids are compared range by range, each a share of all ids."""
    rows = sum(part.rows for part in parts)
    ranges = max(1, -(-rows // ROWS_A_RANGE))
    repeated: dict[int, list[npt.NDArray[np.int64]]] = {}
    for number in range(ranges):
        for index, found in _repeats(documents, parts, number, ranges):
            repeated.setdefault(index, []).append(found)
    return [
        strip_rows(documents, part, np.sort(np.concatenate(repeated[i]))) if i in repeated else part
        for i, part in enumerate(parts)
    ]


def _repeats(
    documents: Path, parts: list[Part], number: int, ranges: int
) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    ids, places, owners = [np.empty(0, "V16")], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for index, part in enumerate(parts):
        start = 0
        for batch in read_batches(documents / part.file, ["doc_id"], rows=65_536):
            values = np.frombuffer(b"".join(batch.column("doc_id").to_pylist()), "V16")
            mine = np.flatnonzero(
                np.frombuffer(values.tobytes(), np.uint8)[::16].astype(np.int64) * ranges >> 8 == number
            )
            ids.append(values[mine])
            places.append(mine + start)
            owners.append(np.full(len(mine), index))
            start += batch.num_rows
    together = np.concatenate(ids)
    _, first = np.unique(together, return_index=True)
    later = np.ones(len(together), np.bool_)
    later[first] = False
    place, owner = np.concatenate(places)[later], np.concatenate(owners)[later]
    for index in np.unique(owner).tolist():
        yield index, place[owner == index]


def _publish(folder: RunFolder, job: Job, receipts: list[Mapping[str, Any]], parts: list[Part]) -> dict[str, Any]:
    skipped: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for receipt in receipts:
        skipped.update(receipt["skipped"])
        failures.update(receipt["failures"])
    read = sum(part["rows"] for receipt in receipts for part in receipt["documents"])
    documents = sum(part.rows for part in parts)
    removed = sum(part.facts.get("removed", 0) for part in parts)
    skipped.update({"removed": removed, "repeated_record": read - documents - removed})
    if not documents:
        raise InputError(
            f"the inputs hold no document: {sum(skipped.values())} records were skipped, "
            f"{sum(failures.values())} failed",
            at=", ".join(receipt["name"] for receipt in receipts[:5]),
            hint=f"the reasons: {dict(skipped + failures)}",
        )
    identity = fingerprint([part.sha256 for part in parts])
    described = {"name": STAGE, "config": job.spec["config"]}
    failed = tuple(part_from_json(part) for receipt in receipts for part in receipt["failed"])
    failed_manifest = Manifest(
        kind="failures", identity=fingerprint([part.sha256 for part in failed]), stage=described, parts=failed
    )
    write_manifest(folder.failures(STAGE), failed_manifest)
    write_manifest(folder.ingested, Manifest(kind="documents", identity=identity, stage=described, parts=tuple(parts)))
    counted = {reason: count for reason, count in sorted(skipped.items()) if count}
    return {
        "identity": identity,
        "documents": documents,
        "bytes": sum(part.facts["text_bytes"] for part in parts),
        "records": documents + sum(counted.values()) + sum(failures.values()),
        "skipped": counted,
        "failures": dict(sorted(failures.items())),
        "parts": len(parts),
    }
