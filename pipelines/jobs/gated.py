"""A costly stage over the documents that pass the policy's gate, and only over those that it has not measured before.

Invariant: a part's rows depend on its documents, the stage and the gate's mask, never on what was measured earlier. A
gate that widens computes the newly admitted rows and copies the others; one that narrows copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mixtures.binding import bind_gate
from mixtures.catalogue import catalogue_part
from mixtures.judge import admit
from mixtures.policy import load_policy
from pipelines.jobs.driver import PartTask, run_parts
from pipelines.jobs.job import Job
from pipelines.run_folder import RunFolder
from storage.identity import fingerprint, hash_bytes
from storage.manifests import Dataset, Manifest, find_manifest, open_dataset, write_manifest
from storage.parts import Part, commit_table, find_part, part_from_json, part_to_json
from storage.schema import IDENTIFIER
from storage.stage import Stage

MEASURED = "num_tokens"
"""The field of a costly stage that is null exactly where a row was not measured."""


@dataclass(frozen=True, kw_only=True)
class GatedStage:
    """A costly stage's struct column and dataset folder, and how many texts it is given at a time."""

    stage: Stage
    column: str
    folder: Path
    rows: int

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([("doc_id", IDENTIFIER), (self.column, pa.struct(list(self.stage.writes)))])


def run_gated(
    job: Job, gated: GatedStage, function: Callable[[dict[str, Any]], dict[str, Any]], arguments: dict[str, Any]
) -> dict[str, Any]:
    """Measure the admitted rows of every part by `function` (which calls `measure_gated`); publish the dataset."""
    documents = open_dataset(RunFolder(job.run_folder).documents)
    stage = gated.stage.identity()
    told = {"root": str(job.run_folder), "policy": job.spec["policy"], "stage": stage, **arguments}
    tasks = [
        PartTask(
            identity=fingerprint({"stage": stage, "part": part.sha256}), arguments={**told, "part": part_to_json(part)}
        )
        for part in documents.parts
    ]
    report = run_parts(job, tasks, function, total=len(tasks), stage=job.name)
    report.require_all()
    parts = tuple(part_from_json(result["part"]) for result in report.results if result)
    identity = fingerprint({"stage": stage, "parts": [part.sha256 for part in parts]})
    manifest = Manifest(kind=gated.folder.name, identity=identity, stage={gated.column: stage}, parts=parts)
    write_manifest(gated.folder, manifest)
    admitted = sum(part.facts["admitted"] for part in parts)
    return {"identity": identity, "documents": sum(part.rows for part in parts), "admitted": admitted}


def measure_gated(gated: GatedStage, arguments: dict[str, Any]) -> dict[str, Any]:
    """Measure one documents part."""
    from pipelines.jobs.worker import worker_function

    folder, part = RunFolder(Path(arguments["root"])), part_from_json(arguments["part"])
    documents = open_dataset(folder.documents)
    attributes = [open_dataset(place) for place in (folder.measured, *folder.of_texts())]
    rows = catalogue_part(documents, part, attributes)
    gate = bind_gate(load_policy(arguments["policy"]), rows.schema)
    admitted = admit(rows, gate)["admitted"].to_numpy()
    mask = hash_bytes(np.packbits(admitted).tobytes())
    identity = fingerprint({"stage": arguments["stage"], "part": part.sha256, "admitted": mask})
    done = find_part(gated.folder, identity)
    if done is None:
        known = _earlier(gated, part, arguments["stage"])
        done = commit_table(
            gated.folder,
            identity,
            _measure(
                gated,
                worker_function(gated.stage),
                documents.batches(part, ["doc_id", "text"], rows=gated.rows),
                admitted,
                known,
            ),
            schema=gated.schema,
            of=part.sha256,
            facts={"admitted": int(admitted.sum()), "stage": arguments["stage"]},
        )
    return {"documents": done.rows, "dropped": done.rows - done.facts["admitted"], "part": part_to_json(done)}


def _earlier(gated: GatedStage, part: Part, stage: str) -> pa.Table | None:
    """What an earlier gate admitted of the same part, measured by the same stage."""
    manifest = find_manifest(gated.folder)
    for found in manifest.parts if manifest else ():
        if found.of == part.sha256 and found.facts["stage"] == stage and (gated.folder / found.file).exists():
            return Dataset(gated.folder, manifest).read(found, [gated.column])  # type: ignore[arg-type]
    return None


def _measure(
    gated: GatedStage,
    measure: Any,
    batches: Iterator[pa.RecordBatch],
    admitted: npt.NDArray[np.bool_],
    known: pa.Table | None,
) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in batches:
        wanted = admitted[start : start + batch.num_rows]
        before = known[gated.column].slice(start, batch.num_rows).combine_chunks() if known is not None else None
        there = _known_rows(before, batch.num_rows)
        texts = pc.if_else(pa.array(wanted & ~there), batch.column("text"), pa.scalar(None, pa.string()))
        fresh = measure(pa.record_batch({"text": texts}))
        made = pa.StructArray.from_arrays(fresh.columns, fields=list(fresh.schema))
        if before is not None:
            made = pc.if_else(pa.array(there & wanted), before, made)
        yield pa.record_batch({"doc_id": batch.column("doc_id"), gated.column: made})
        start += batch.num_rows


def _known_rows(before: pa.StructArray | None, rows: int) -> npt.NDArray[np.bool_]:
    if before is None:
        return np.zeros(rows, np.bool_)
    return np.asarray(pc.struct_field(before, MEASURED).is_valid(), dtype=bool)
