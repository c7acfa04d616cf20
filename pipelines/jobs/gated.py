"""Costly stages over the documents that pass the policy's gate, and only over those that each has not measured before.

Invariant: a part's rows depend on its documents, the stage and the gate's mask, never on what was measured earlier. A
gate that widens computes the newly admitted rows and copies the others; one that narrows copies.
Trade-off: several stages share one pass over a part's text, and all but the first hold their results of that part in
memory meanwhile: 4 bytes a class and document for classifiers, 30 MB where 256 MB of text are sorted into 26 classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from operator import itemgetter
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
from storage.stage import BatchFunction, Stage


def _each(functions: Sequence[BatchFunction], batches: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
    return [function(batch) for function, batch in zip(functions, batches, strict=True)]


@dataclass(frozen=True, kw_only=True)
class GatedStage:
    """A costly stage's struct column and dataset folder, and how many texts it is given at a time.

    `measured` names the field that is null exactly where a row was not measured. `together` calls the functions of all
    stages of a pass on their batches: each by itself, unless they can share something.
    """

    stage: Stage
    column: str
    folder: Path
    rows: int
    measured: str = "num_tokens"
    together: Callable[[Sequence[Any], Sequence[pa.RecordBatch]], list[pa.RecordBatch]] = _each

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([("doc_id", IDENTIFIER), (self.column, pa.struct(list(self.stage.writes)))])


@dataclass(frozen=True, kw_only=True)
class _Todo:
    """What one stage still owes of a part: the identity of that part, and what an earlier gate admitted of it."""

    gated: GatedStage
    stage: str
    identity: str
    known: pa.Table | None


def run_gated(
    job: Job,
    gated: Sequence[GatedStage],
    function: Callable[[dict[str, Any]], dict[str, Any]],
    arguments: dict[str, Any],
) -> tuple[dict[str, Any], ...]:
    """Measure the admitted rows of every part by `function` (which calls `measure_gated`); publish a dataset a stage.

    Returns of each stage its dataset's identity and how many documents were admitted.
    """
    documents = open_dataset(RunFolder(job.run_folder).documents)
    stages = [one.stage.identity() for one in gated]
    told = {"root": str(job.run_folder), "policy": job.spec["policy"], "stages": stages, **arguments}
    tasks = [
        PartTask(
            identity=fingerprint({"stages": stages, "part": part.sha256}),
            arguments={**told, "part": part_to_json(part)},
        )
        for part in documents.parts
    ]
    report = run_parts(job, tasks, function, total=len(tasks), stage=job.name)
    report.require_all()
    rows = [result["parts"] for result in report.results if result]
    return tuple(
        _publish(one, stage, tuple(part_from_json(parts[i]) for parts in rows))
        for i, (one, stage) in enumerate(zip(gated, stages, strict=True))
    )


def _publish(gated: GatedStage, stage: str, parts: tuple[Part, ...]) -> dict[str, Any]:
    identity = fingerprint({"stage": stage, "parts": [part.sha256 for part in parts]})
    manifest = Manifest(kind=gated.stage.name, identity=identity, stage={gated.column: stage}, parts=parts)
    write_manifest(gated.folder, manifest)
    admitted = sum(part.facts["admitted"] for part in parts)
    return {"identity": identity, "documents": sum(part.rows for part in parts), "admitted": admitted}


def measure_gated(gated: Sequence[GatedStage], arguments: dict[str, Any]) -> dict[str, Any]:
    """Measure one documents part by all stages that have not; its text is read once."""
    folder, part = RunFolder(Path(arguments["root"])), part_from_json(arguments["part"])
    admitted = _admitted(folder, part, arguments["policy"])
    mask = hash_bytes(np.packbits(admitted).tobytes())
    stages = dict(zip(arguments["stages"], gated, strict=True))
    identities = {
        stage: fingerprint({"stage": stage, "part": part.sha256, "admitted": mask}) for stage in arguments["stages"]
    }
    todo = [
        _Todo(gated=one, stage=stage, identity=identities[stage], known=_earlier(one, part, stage))
        for stage, one in stages.items()
        if find_part(one.folder, identities[stage]) is None
    ]
    if todo:
        _commit(folder, part, todo, admitted)
    done = [_require_part(stages[stage].folder, identities[stage]) for stage in arguments["stages"]]
    number = int(admitted.sum())
    return {"documents": part.rows, "dropped": part.rows - number, "parts": [part_to_json(one) for one in done]}


def _admitted(folder: RunFolder, part: Part, policy: str) -> npt.NDArray[np.bool_]:
    attributes = [open_dataset(place) for place in (folder.measured, *folder.of_texts())]
    rows = catalogue_part(open_dataset(folder.documents), part, attributes)
    admitted: npt.NDArray[np.bool_] = admit(rows, bind_gate(load_policy(policy), rows.schema))["admitted"].to_numpy()
    return admitted


def _commit(folder: RunFolder, part: Part, todo: Sequence[_Todo], admitted: npt.NDArray[np.bool_]) -> None:
    batches = open_dataset(folder.documents).batches(part, ["doc_id", "text"], rows=todo[0].gated.rows)
    streams = tee(_measure(todo, batches, admitted), len(todo))
    for i, (one, stream) in enumerate(zip(todo, streams, strict=True)):
        commit_table(
            one.gated.folder,
            one.identity,
            map(itemgetter(i), stream),
            schema=one.gated.schema,
            of=part.sha256,
            facts={"admitted": int(admitted.sum()), "stage": one.stage},
        )


def _require_part(folder: Path, identity: str) -> Part:
    part = find_part(folder, identity)
    assert part is not None, "committed above"
    return part


def _earlier(gated: GatedStage, part: Part, stage: str) -> pa.Table | None:
    """What an earlier gate admitted of the same part, measured by the same stage."""
    manifest = find_manifest(gated.folder)
    for found in manifest.parts if manifest else ():
        if found.of == part.sha256 and found.facts["stage"] == stage and (gated.folder / found.file).exists():
            return Dataset(gated.folder, manifest).read(found, [gated.column])  # type: ignore[arg-type]
    return None


def _measure(
    todo: Sequence[_Todo], batches: Iterator[pa.RecordBatch], admitted: npt.NDArray[np.bool_]
) -> Iterator[tuple[pa.RecordBatch, ...]]:
    """Of each batch of texts the rows of every stage."""
    from pipelines.jobs.worker import worker_function

    functions = [worker_function(one.gated.stage) for one in todo]
    start = 0
    for batch in batches:
        wanted = admitted[start : start + batch.num_rows]
        known = [_Known.of(one, start, batch.num_rows, wanted) for one in todo]
        texts = [pa.record_batch({"text": rows.mask(batch.column("text"))}) for rows in known]
        fresh = todo[0].gated.together(functions, texts)
        yield tuple(
            pa.record_batch({"doc_id": batch.column("doc_id"), one.gated.column: rows.merge(measured)})
            for one, rows, measured in zip(todo, known, fresh, strict=True)
        )
        start += batch.num_rows


@dataclass(frozen=True)
class _Known:
    """What an earlier gate admitted of a batch's rows, and which of them are wanted now."""

    before: pa.StructArray | None
    there: npt.NDArray[np.bool_]
    wanted: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, one: _Todo, start: int, rows: int, wanted: npt.NDArray[np.bool_]) -> _Known:
        before = one.known[one.gated.column].slice(start, rows).combine_chunks() if one.known is not None else None
        return cls(before, _known_rows(before, one.gated.measured, rows), wanted)

    def mask(self, texts: pa.StringArray) -> pa.StringArray:
        """The texts that must be read; null for the others."""
        return pc.if_else(pa.array(self.wanted & ~self.there), texts, pa.scalar(None, pa.string()))

    def merge(self, measured: pa.RecordBatch) -> pa.StructArray:
        made = pa.StructArray.from_arrays(measured.columns, fields=list(measured.schema))
        return made if self.before is None else pc.if_else(pa.array(self.there & self.wanted), self.before, made)


def _known_rows(before: pa.StructArray | None, field: str, rows: int) -> npt.NDArray[np.bool_]:
    if before is None:
        return np.zeros(rows, np.bool_)
    return np.asarray(pc.struct_field(before, field).is_valid(), dtype=bool)
