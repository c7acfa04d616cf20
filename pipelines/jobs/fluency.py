"""The fluency job: the loss of every document that passes the policy's gate, and the third of its source it is in.

The limits of the thirds are fitted over all parts at once and then kept: new parts are sorted by the limits that are
there, a new source gets its own, and `--refit` makes all of them anew. Beside them stands the distribution of the loss,
a source at a time, for the report.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from classifiers.fluency.thirds import PERCENTS, WITH_THIRD, assign_thirds
from mixtures.percentiles import Fitted, Rows, fit_percentiles, read_fitted, write_fitted
from pipelines.jobs.driver import PartTask, run_parts
from pipelines.jobs.gated import GatedStage, measure_gated, run_gated
from pipelines.jobs.job import Job
from pipelines.run_folder import RunFolder
from pipelines.stages import losses_stage
from storage.commit import write_atomically
from storage.identity import fingerprint
from storage.manifests import Manifest, align, open_dataset, write_manifest
from storage.parts import commit_table, find_part, part_from_json, part_to_json
from storage.schema import IDENTIFIER

COLUMN = "fluency"
ROWS_AT_A_TIME = 16_384
"""Enough to sort by length and to keep a GPU busy; 50 MB of text at 3 KB a document."""
STATISTICS = (99.5, 99.0, 95.0, 90.0, 80.0, 70.0)
"""The percentiles that CCI4.0 writes beside each file, and the one of its rule."""


def run(job: Job) -> dict[str, Any]:
    """Publish `attributes/losses` and, with the thirds, `attributes/fluency`."""
    told = {name: job.spec[name] for name in ("model", "tokenizer")}
    gated = _gated(job.run_folder, told)
    (measured,) = run_gated(job, [gated], loss_part, told)
    stage = gated.stage.identity()
    fit = PartTask(
        identity=fingerprint({"thirds": measured["identity"], "refit": job.spec["refit"]}),
        arguments={"root": str(job.run_folder), "stage": stage, "refit": job.spec["refit"]},
    )
    report = run_parts(job, [fit], fit_thirds, total=1, stage="fluency")
    report.require_all()
    (fitted,) = report.results
    assert fitted is not None
    return {**measured, **fitted, **_publish_thirds(job, stage, fitted["limits"])}


def loss_part(arguments: dict[str, Any]) -> dict[str, Any]:
    """The losses of one documents part."""
    return measure_gated([_gated(Path(arguments["root"]), arguments)], arguments)


def _gated(root: Path, told: dict[str, Any]) -> GatedStage:
    stage = losses_stage(told["model"], told["tokenizer"])
    return GatedStage(stage=stage, column=COLUMN, folder=RunFolder(root).losses, rows=ROWS_AT_A_TIME)


def fit_thirds(arguments: dict[str, Any]) -> dict[str, Any]:
    """Limits of the thirds of every source, those that stand there first; and the loss's distribution as it is now."""
    folder = RunFolder(Path(arguments["root"]))
    place = folder.artifact("fluency", arguments["stage"])
    known = {} if arguments["refit"] else read_fitted(place / "thirds.json")
    thirds = fit_percentiles(lambda: _losses(folder), PERCENTS, known=known)
    write_fitted(place / "thirds.json", thirds)
    distribution = _statistics(fit_percentiles(lambda: _losses(folder), STATISTICS))
    write_atomically(place / "stat.json", (json.dumps(distribution, indent=1) + "\n").encode())
    limits = {source: [fitted.values[percent] for percent in PERCENTS] for source, fitted in thirds.items()}
    return {"limits": limits, "distribution": distribution, "documents": 0}


def _losses(folder: RunFolder) -> Iterator[Rows]:
    """Source and loss of every document, part by part."""
    documents, losses = open_dataset(folder.documents), open_dataset(folder.losses)
    for ours, theirs in align(documents, losses):
        sources = documents.read(ours, ["source"])["source"].combine_chunks()
        yield sources, _as_numbers(losses.read(theirs, [COLUMN])[COLUMN].combine_chunks())


def _as_numbers(rows: pa.StructArray) -> Any:
    return pc.struct_field(rows, "loss").cast(pa.float64()).to_numpy(zero_copy_only=False)


def _statistics(fitted: dict[str, Fitted]) -> dict[str, dict[str, float]]:
    """As CCI4.0 writes them: `loss_99.5`, …, `count`."""
    return {
        source: {**{f"loss_{percent:g}": f.values[percent] for percent in STATISTICS}, "count": f.documents}
        for source, f in fitted.items()
    }


def _publish_thirds(job: Job, stage: str, limits: dict[str, list[float]]) -> dict[str, Any]:
    folder = RunFolder(job.run_folder)
    pairs = align(open_dataset(folder.documents), open_dataset(folder.losses))
    tasks = [
        PartTask(
            identity=fingerprint({"thirds": limits, "part": theirs.sha256}),
            arguments={
                "root": str(job.run_folder),
                "limits": limits,
                "documents": part_to_json(ours),
                "losses": part_to_json(theirs),
            },
        )
        for ours, theirs in pairs
    ]
    report = run_parts(job, tasks, third_part, total=len(tasks), stage="fluency")
    report.require_all()
    parts = tuple(part_from_json(result["part"]) for result in report.results if result)
    identity = fingerprint({"thirds": limits, "parts": [part.sha256 for part in parts]})
    manifest = Manifest(kind="fluency", identity=identity, stage={COLUMN: stage}, parts=parts, facts={"limits": limits})
    write_manifest(folder.fluency, manifest)
    scored = sum(part.facts["scored"] for part in parts)
    return {"identity": identity, "documents": sum(part.rows for part in parts), "scored": scored}


def third_part(arguments: dict[str, Any]) -> dict[str, Any]:
    """The losses of one part with their thirds."""
    folder, part = RunFolder(Path(arguments["root"])), part_from_json(arguments["documents"])
    losses, limits = part_from_json(arguments["losses"]), arguments["limits"]
    identity = fingerprint({"thirds": limits, "part": losses.sha256})
    done = find_part(folder.fluency, identity)
    if done is None:
        table = _with_thirds(open_dataset(folder.losses).read(losses), _sources(folder, part), limits)
        scored = len(table) - pc.struct_field(table[COLUMN].combine_chunks(), "loss").null_count
        done = commit_table(
            folder.fluency, identity, table, schema=table.schema, of=part.sha256, facts={"scored": scored}
        )
    return {"documents": done.rows, "part": part_to_json(done)}


def _sources(folder: RunFolder, part: Any) -> list[str]:
    sources: list[str] = open_dataset(folder.documents).read(part, ["source"])["source"].to_pylist()
    return sources


def _with_thirds(losses: pa.Table, sources: list[str], limits: dict[str, list[float]]) -> pa.Table:
    rows = losses[COLUMN].combine_chunks()
    edges = {source: (low, high) for source, (low, high) in limits.items()}
    thirds = assign_thirds(sources, np.asarray(_as_numbers(rows)), edges)
    column = pa.StructArray.from_arrays([*rows.flatten(), thirds], fields=list(WITH_THIRD))
    return pa.table(
        [losses["doc_id"].combine_chunks(), column],
        schema=pa.schema([("doc_id", IDENTIFIER), (COLUMN, column.type)]),
    )
