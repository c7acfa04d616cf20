"""The annotation job: draw a stratified sample, have a language model rate it, and publish labels and errors.

Labels are committed a batch at a time, while the next batches are being asked about, so that a killed run pays again
for a batch (128 documents) and what was in flight. What has a label is never asked about again; what failed is, when
the command is given again. Texts are read part by part, and only those of the sample are held, a window at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from classifiers.annotation.asking import Answer, Question, rate_texts
from classifiers.annotation.labels import ERRORS, KIND, LABELS, Asked, Origin, error_rows, label_rows
from classifiers.llm.asking import Failed
from mixtures.strata import Sample, SampleConfig, describe_strata, draw_sample
from pipelines.annotation import origin_from_json
from pipelines.jobs.driver import PartTask, run_parts
from pipelines.jobs.job import Job
from pipelines.language_models import open_model, require_server, task_resources
from pipelines.run_folder import RunFolder
from storage.errors import InputError, ResourceError, is_disk_full
from storage.identity import fingerprint
from storage.manifests import MANIFEST, Manifest, open_dataset, write_manifest
from storage.parts import Part, commit_table, find_part, part_from_json, part_to_json, read_batches

CHUNK_ROWS = 1024
"""Documents of one task."""
BATCH_ROWS = 128
"""Documents of one part of the labels."""


def run(job: Job) -> dict[str, Any]:
    """Rate what of the sample has no label yet; publish `annotations/<place>` and its `errors`."""
    folder, spec = RunFolder(job.run_folder), job.spec
    place, origin = folder.annotations(spec["place"]), origin_from_json(spec["origin"])
    sample = draw_sample(folder.catalogue, folder.decisions(spec["policy"]), SampleConfig(**spec["sample"]))
    done = labelled_documents(place)
    missing = [(part, row, asked) for part, row, asked in _rows(sample) if asked not in done]
    tasks = list(_tasks(job, folder, missing))
    errors: list[Part] = []
    try:
        report = run_parts(
            job, tasks, annotate_chunk, total=len(tasks), stage="annotate",
            **task_resources(job.spec["model"], cpus=job.cpus, gpus=job.gpus),
            on_done=lambda _, result: errors.extend(_errors_of(result)),
        )  # fmt: skip
    except ResourceError as error:
        if not is_disk_full(error):
            publish(folder, spec, origin, sample, errors)
        raise
    report.require_all()
    result = publish(folder, spec, origin, sample, errors)
    _require_labels(result, place)
    return result


def _errors_of(result: dict[str, Any]) -> list[Part]:
    return [part_from_json(result["errors"])] if result["errors"] else []


def _rows(sample: Sample) -> Iterator[tuple[int, int, Asked]]:
    columns = (sample.rows[name].to_pylist() for name in ("part", "row", "doc_id", "content_hash"))
    for part, row, doc_id, content_hash in zip(*columns, strict=True):
        yield part, row, Asked(doc_id=doc_id, content_hash=content_hash)


def _tasks(job: Job, folder: RunFolder, missing: Sequence[tuple[int, int, Asked]]) -> Iterator[PartTask]:
    """A task for every CHUNK_ROWS documents, in the order in which their texts are read."""
    documents = {part.sha256: part for part in open_dataset(folder.documents).parts}
    catalogue = open_dataset(folder.catalogue).parts
    for start in range(0, len(missing), CHUNK_ROWS):
        chunk = missing[start : start + CHUNK_ROWS]
        texts = []
        for number in sorted({part for part, _, _ in chunk}):
            if (part := documents.get(catalogue[number].of or "")) is None:
                raise ResourceError("the catalogue is of other documents", hint="run `gristmill run` on the run again")
            mine = [(row, asked.doc_id.hex(), asked.content_hash.hex()) for n, row, asked in chunk if n == number]
            texts.append({"part": part_to_json(part), "rows": mine})
        identity = fingerprint({"annotate": job.spec["identity"], "documents": [a.doc_id for _, _, a in chunk]})
        told = {name: job.spec[name] for name in ("place", "origin", "model")}
        yield PartTask(identity=identity, arguments={**told, "root": str(job.run_folder), "texts": texts})


def committed_labels(place: Path) -> list[Part]:
    """The whole parts of a folder of labels, published or not: a run that was killed had not published its last."""
    markers = (path.stem for path in place.glob("*.json") if path.name != MANIFEST)
    return [part for marker in sorted(markers) if (part := find_part(place, marker))]


def labelled_documents(place: Path) -> set[Asked]:
    """The documents that have a label here, each with the text that was rated."""
    return {
        Asked(doc_id=doc_id, content_hash=content_hash)
        for part in committed_labels(place)
        for batch in read_batches(place / part.file, ["doc_id", "content_hash"])
        for doc_id, content_hash in zip(batch["doc_id"].to_pylist(), batch["content_hash"].to_pylist(), strict=True)
    }


@dataclass
class _Batch:
    """Documents whose labels make one part, and the answers so far."""

    identity: str
    keys: range
    answers: list[Answer] = field(default_factory=list)
    part: Part | None = None


def annotate_chunk(arguments: dict[str, Any]) -> dict[str, Any]:
    """Ask about one task's documents; commits each batch of labels when it is whole, and the errors at the end."""
    folder, origin = RunFolder(Path(arguments["root"])), origin_from_json(arguments["origin"])
    place = folder.annotations(arguments["place"])
    asked = [_asked(row) for text in arguments["texts"] for row in text["rows"]]
    batches = [_batch(place, origin, asked, start) for start in range(0, len(asked), BATCH_ROWS)]
    model, questions = open_model(arguments["model"]), _questions(folder, arguments, batches)
    for answer in rate_texts(model, origin.rubric, origin.sampling, questions):
        batch = batches[answer.key // BATCH_ROWS]
        batch.answers.append(answer)
        if len(batch.answers) == len(batch.keys):
            _commit(place, origin, asked, batch)
    answers = [answer for batch in batches for answer in batch.answers]
    errors = _commit_errors(place / "errors", origin, asked, answers + list(_unrecorded(place, asked, batches)))
    require_server([answer.outcome for answer in answers], arguments["model"])
    return {"documents": len(asked), "errors": errors and part_to_json(errors)}


def _asked(row: Sequence[Any]) -> Asked:
    return Asked(doc_id=bytes.fromhex(row[1]), content_hash=bytes.fromhex(row[2]))


def _batch(place: Path, origin: Origin, asked: Sequence[Asked], start: int) -> _Batch:
    keys = range(start, min(start + BATCH_ROWS, len(asked)))
    documents = [[asked[key].doc_id, asked[key].content_hash] for key in keys]
    identity = fingerprint({"labels": origin.identity(), "documents": documents})
    return _Batch(identity, keys, part=find_part(place, identity))


def _questions(folder: RunFolder, arguments: dict[str, Any], batches: Sequence[_Batch]) -> Iterator[Question]:
    """Those of the batches that no earlier attempt at this task has committed."""
    key = 0
    for text in arguments["texts"]:
        rows = [int(row[0]) for row in text["rows"]]
        for found in _texts(folder.documents / part_from_json(text["part"]).file, rows):
            if batches[key // BATCH_ROWS].part is None:
                yield Question(key=key, text=found)
            key += 1


def _texts(path: Path, rows: Sequence[int]) -> Iterator[str]:
    """The texts of these rows, ascending, of a documents part."""
    start, waiting = 0, list(reversed(rows))
    for batch in read_batches(path, ["text"]):
        while waiting and waiting[-1] < start + batch.num_rows:
            yield batch["text"][waiting.pop() - start].as_py()
        if not waiting:
            return
        start += batch.num_rows


def _commit(place: Path, origin: Origin, asked: Sequence[Asked], batch: _Batch) -> None:
    table = label_rows(asked, batch.answers, origin)
    if table.num_rows:
        batch.part = commit_table(place, batch.identity, table, schema=LABELS)


def _unrecorded(place: Path, asked: Sequence[Asked], batches: Sequence[_Batch]) -> Iterator[Answer]:
    """Of batches that an attempt committed before its worker died: what has no label; the reason died with it."""
    for batch in batches:
        if batch.part is not None and not batch.answers:
            known = set(pa.Table.from_batches(read_batches(place / batch.part.file, ["doc_id"]))["doc_id"].to_pylist())
            for key in batch.keys:
                if asked[key].doc_id not in known:
                    yield Answer(key=key, outcome=Failed(reason="worker_died", said=""), attempts=1)


def _commit_errors(folder: Path, origin: Origin, asked: Sequence[Asked], answers: Sequence[Answer]) -> Part | None:
    table = error_rows(asked, answers)
    if not table.num_rows:
        return None
    identity = fingerprint({"errors": origin.identity(), "rows": table.to_pylist()})
    return commit_table(folder, identity, table, schema=ERRORS)


def publish(
    folder: RunFolder, spec: dict[str, Any], origin: Origin, sample: Sample, errors: Sequence[Part]
) -> dict[str, Any]:
    """Write both manifests, and count."""
    place = folder.annotations(spec["place"])
    parts = committed_labels(place)
    stage = {"name": "annotate", **spec["origin"]}
    identity = fingerprint({"annotations": origin.identity(), "parts": [part.sha256 for part in parts]})
    drawn = {asked for _, _, asked in _rows(sample)}
    facts = {
        "asked": spec["identity"],
        "documents": len(drawn),
        "labelled": len(drawn & labelled_documents(place)),
        "failed": _reasons(place / "errors", errors),
        "sample": spec["sample"],
        "strata": describe_strata(sample.strata),
        **_tokens(place, parts),
    }
    digest = fingerprint([part.sha256 for part in errors])
    write_manifest(place / "errors", Manifest(kind="errors", identity=digest, stage=stage, parts=tuple(errors)))
    write_manifest(place, Manifest(kind=KIND, identity=identity, stage=stage, parts=tuple(parts), facts=facts))
    return {"identity": identity, "place": spec["place"], **facts}


def _reasons(folder: Path, errors: Sequence[Part]) -> dict[str, int]:
    counted = Counter(
        reason
        for part in errors
        for batch in read_batches(folder / part.file, ["reason"])
        for reason in batch["reason"].to_pylist()
    )
    return dict(sorted(counted.items()))


def _tokens(place: Path, parts: Sequence[Part]) -> dict[str, int]:
    """What all labels here took."""
    counted: Counter[str] = Counter(prompt_tokens=0, completion_tokens=0)
    for part in parts:
        for batch in read_batches(place / part.file, list(counted)):
            counted.update({name: sum(batch[name].to_pylist()) for name in batch.schema.names})
    return dict(counted)


def _require_labels(result: dict[str, Any], place: Path) -> None:
    """Raises InputError where not one document of the sample has a label."""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in result["failed"].items())
    if not result["labelled"]:
        raise InputError(
            f"not one of {result['documents']:,} documents could be rated ({reasons})",
            at=str(place / "errors"),
            hint="the column `said` there holds what came instead",
        )
