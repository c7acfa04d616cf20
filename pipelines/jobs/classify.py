"""The classifying job: all scorers over one pass of the texts that pass the policy's gate, then values and buckets.

What a model said is kept by the model's identity, so a scorer more, another name, scale, clip or class that counts
reads no text that was read before. Bucket thresholds are fitted once for a model and the sources whose text they rank,
on a sample of a million documents at most; later documents are put into these buckets and do not move them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from classifiers.encoders.calibration import Calibration
from classifiers.quality.buckets import (
    BucketThresholds,
    fit_buckets,
    read_thresholds,
    share_buckets,
    write_thresholds,
)
from classifiers.scorers.stage import OUTPUTS, measure_together, outputs_of, read_calibration_of
from classifiers.scorers.told import ranked_values, tell
from pipelines.jobs.driver import PartTask, run_parts
from pipelines.jobs.gated import GatedStage, measure_gated, run_gated
from pipelines.jobs.job import Job
from pipelines.jobs.score import THRESHOLD_ROWS, thresholds_file
from pipelines.run_folder import RunFolder
from pipelines.scorers import Scorer, scorers_of
from storage.identity import fingerprint
from storage.manifests import Manifest, align, open_dataset, write_manifest
from storage.parts import Part, commit_table, find_part, part_from_json, part_to_json
from storage.schema import IDENTIFIER

COLUMN, SCORES = "scorer", "scores"
ROWS_AT_A_TIME = 16_384
"""Enough to sort by length and to keep a GPU busy; 50 MB of text at 3 KB a document."""
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Identified:
    """A scorer with what only its model's files tell, read once for all parts."""

    scorer: Scorer
    stage: str
    labels: tuple[str, ...]
    calibration: Calibration

    def thresholds(self, folder: RunFolder, ranked: Sequence[str]) -> Path:
        """Where the thresholds of its buckets lie for the sources that they rank."""
        return folder.artifact(SCORES, self.scorer.value_identity(self.stage)) / thresholds_file(ranked)


def run(job: Job) -> dict[str, Any]:
    """Publish a dataset of outputs a model, and `attributes/scores` with what every scorer tells."""
    scorers = identify(job.spec["score"])
    measured = run_gated(job, _gated(job.run_folder, scorers), classify_part, {"scorers": scorers})
    told = {"root": str(job.run_folder), "scorers": scorers, "ranked": job.spec["bucket_sources"]}
    fitted = _fit(job, {**told, "refit": job.spec["refit"], "read": [one["identity"] for one in measured]})
    published = _publish(job, {**told, "fitted": fitted}, fitted)
    return {**measured[0], **published}


def identify(asked: Sequence[str]) -> tuple[Identified, ...]:
    return tuple(
        Identified(
            scorer=scorer,
            stage=scorer.stage().identity(),
            labels=scorer.labels(),
            calibration=read_calibration_of(scorer.model),
        )
        for scorer in scorers_of(asked)
    )


def _gated(root: Path, scorers: Sequence[Identified]) -> list[GatedStage]:
    """The stages of the scorers, each model once."""
    return [
        GatedStage(
            stage=scorer.stage(),
            column=COLUMN,
            folder=RunFolder(root).classified(identity),
            rows=ROWS_AT_A_TIME,
            measured=OUTPUTS,
            together=measure_together,
        )
        for identity, scorer in {one.stage: one.scorer for one in scorers}.items()
    ]


def classify_part(arguments: dict[str, Any]) -> dict[str, Any]:
    """The outputs of all models for one documents part."""
    return measure_gated(_gated(Path(arguments["root"]), arguments["scorers"]), arguments)


def _fit(job: Job, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    task = PartTask(identity=fingerprint({"phase": "thresholds", "of": job.spec["identity"]}), arguments=arguments)
    report = run_parts(job, [task], fit_thresholds, total=1, stage=job.name)
    report.require_all()
    (found,) = report.results
    assert found is not None
    fitted: list[dict[str, Any]] = found["fitted"]
    return fitted


def fit_thresholds(arguments: dict[str, Any]) -> dict[str, Any]:
    """Bucket thresholds of every scorer that gives a value, those that are there first; and what they make of the
    sample: bytes by bucket."""
    folder, ranked = RunFolder(Path(arguments["root"])), arguments["ranked"]
    fitted = [_fit_one(folder, one, ranked, refit=arguments["refit"]) for one in arguments["scorers"]]
    return {"documents": 0, "fitted": fitted}


def _fit_one(folder: RunFolder, one: Identified, ranked: Sequence[str], *, refit: bool) -> dict[str, Any]:
    """What the report says of a scorer; `thresholds` is None where it has no buckets."""
    described = {"name": one.scorer.name, "model": one.scorer.model, "stage": one.stage, "classes": len(one.labels)}
    if not one.scorer.has_buckets():
        return {**described, "thresholds": None}
    path = one.thresholds(folder, ranked)
    values, sizes = _sample(folder, one, ranked)
    if np.isfinite(values).any() and (refit or not path.is_file()):
        write_thresholds(path, fit_buckets(values, sizes))
    if not path.is_file():
        return {**described, "thresholds": None}
    thresholds = read_thresholds(path)
    shares = share_buckets(values, sizes, thresholds)
    return {**described, "thresholds": thresholds.identity, "sample": len(values), "shares": shares}


def _sample(folder: RunFolder, one: Identified, ranked: Sequence[str]) -> tuple[Floats, Counts]:
    """Values and bytes of at most THRESHOLD_ROWS documents of the sources (none named: of all), evenly from all parts,
    the least doc_ids."""
    documents = open_dataset(folder.documents)
    share = max(1, THRESHOLD_ROWS // max(1, len(documents.parts)))
    values, sizes = [np.empty(0)], [np.empty(0, np.int64)]
    for ids, here, sources, size in _scored(folder, one):
        named = np.asarray(pc.is_in(sources, value_set=pa.array(sorted(ranked), pa.string()))) | (not ranked)
        rows = np.flatnonzero(named & np.isfinite(here))
        rows = rows[np.asarray(pc.sort_indices(ids.take(pa.array(rows))))[:share]]
        values.append(here[rows].astype(np.float64))
        sizes.append(size[rows])
    return np.concatenate(values), np.concatenate(sizes)


def _scored(folder: RunFolder, one: Identified) -> Iterator[tuple[pa.Array, npt.NDArray[np.float32], pa.Array, Counts]]:
    """Of each part: ids, values (NaN: none), sources and UTF-8 bytes."""
    documents, outputs = open_dataset(folder.documents), open_dataset(folder.classified(one.stage))
    measured = open_dataset(folder.measured)
    for (ours, theirs), (_, facts) in zip(align(documents, outputs), align(documents, measured), strict=True):
        rows = documents.read(ours, ["doc_id", "source"]).combine_chunks()
        size = pc.struct_field(measured.read(facts, ["rules"])["rules"].combine_chunks(), "num_bytes")
        column = pc.struct_field(outputs.read(theirs, [COLUMN])[COLUMN].combine_chunks(), OUTPUTS)
        values = ranked_values(outputs_of(column), one.labels, one.scorer.telling, one.calibration)
        ids, sources = (rows[name].combine_chunks() for name in ("doc_id", "source"))
        yield ids, values, sources, np.asarray(size, np.int64)


def _publish(job: Job, arguments: dict[str, Any], fitted: list[dict[str, Any]]) -> dict[str, Any]:
    folder, scorers = RunFolder(job.run_folder), arguments["scorers"]
    documents = open_dataset(folder.documents)
    sides = [align(documents, open_dataset(folder.classified(one.stage))) for one in scorers]
    described = {
        one.scorer.name: {
            "stage": one.stage,
            "telling": fingerprint(one.scorer.telling),
            "buckets": found["thresholds"],
        }
        for one, found in zip(scorers, fitted, strict=True)
    }
    tasks = [
        PartTask(
            identity=fingerprint({"scores": described, "parts": [pairs[i][1].sha256 for pairs in sides]}),
            arguments={
                **arguments,
                "described": described,
                "part": part_to_json(ours),
                "outputs": [part_to_json(pairs[i][1]) for pairs in sides],
            },
        )
        for i, ours in enumerate(documents.parts)
    ]
    report = run_parts(job, tasks, tell_part, total=len(tasks), stage=job.name)
    report.require_all()
    parts = tuple(part_from_json(result["part"]) for result in report.results if result)
    identity = fingerprint({"scores": described, "parts": [part.sha256 for part in parts]})
    write_manifest(folder.scores, Manifest(kind=SCORES, identity=identity, stage=described, parts=parts))
    return {"identity": identity, "scorers": fitted}


def tell_part(arguments: dict[str, Any]) -> dict[str, Any]:
    """What all scorers tell of one documents part."""
    folder, part = RunFolder(Path(arguments["root"])), part_from_json(arguments["part"])
    outputs = [part_from_json(found) for found in arguments["outputs"]]
    identity = fingerprint({"scores": arguments["described"], "parts": [found.sha256 for found in outputs]})
    done = find_part(folder.scores, identity)
    if done is None:
        table = _tell(folder, part, outputs, arguments)
        done = commit_table(folder.scores, identity, table, schema=table.schema, of=part.sha256)
    return {"documents": done.rows, "part": part_to_json(done)}


def _tell(folder: RunFolder, part: Part, outputs: Sequence[Part], arguments: dict[str, Any]) -> pa.Table:
    columns = []
    for one, found, fitted in zip(arguments["scorers"], outputs, arguments["fitted"], strict=True):
        table = open_dataset(folder.classified(one.stage)).read(found, [COLUMN])
        column = pc.struct_field(table[COLUMN].combine_chunks(), OUTPUTS)
        thresholds = _thresholds(one.thresholds(folder, arguments["ranked"]), fitted)
        columns.append(tell(outputs_of(column), one.labels, one.scorer.telling, thresholds, one.calibration))
    fields = [pa.field(one.scorer.name, column.type) for one, column in zip(arguments["scorers"], columns, strict=True)]
    doc_ids = open_dataset(folder.documents).read(part, ["doc_id"])["doc_id"].combine_chunks()
    scores = pa.StructArray.from_arrays(columns, fields=fields)
    return pa.table([doc_ids, scores], schema=pa.schema([("doc_id", IDENTIFIER), (SCORES, scores.type)]))


def _thresholds(path: Path, fitted: dict[str, Any]) -> BucketThresholds | None:
    return read_thresholds(path) if fitted["thresholds"] else None
