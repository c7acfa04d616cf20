"""The synthesis job: draw a sample, have a language model write from it, screen the drafts, publish what is left.

A batch (64 documents) commits its errors and then its drafts, so that a killed run pays again for a batch and what was
in flight. Bytes of a document that have a draft are never asked about again; what failed is, when the command is given
again. Screening sees all drafts of the author, those of earlier and larger samples too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from classifiers.llm.asking import Failed, Talk
from classifiers.synthesis.passages import Passage, Span, cut_passages, trim
from classifiers.synthesis.samples import (
    DRAFTS,
    ERRORS,
    SYNTHETIC,
    Author,
    Parent,
    count_tokens,
    draft_rows,
    error_row,
    error_rows,
)
from classifiers.synthesis.writing import Outcome, write
from mixtures.strata import Sample, SampleConfig, describe_strata, draw_sample
from pipelines.jobs.driver import PartTask, run_parts
from pipelines.jobs.job import Job
from pipelines.language_models import open_model, require_server, task_resources
from pipelines.run_folder import RunFolder
from pipelines.screening import Limits, screen
from pipelines.synthesis import author_from_json
from storage.errors import InputError, ResourceError, is_disk_full
from storage.identity import fingerprint
from storage.manifests import MANIFEST, Manifest, open_dataset, write_manifest
from storage.parts import Part, commit_table, find_part, part_from_json, part_to_json, read_batches
from storage.schema import DOCUMENTS

BATCH_ROWS = 64
"""Documents of one task, and of one part of the drafts."""
PART_BYTES = 64_000_000
"""Bytes of drafts (compressed) whose documents make one part."""
_DONE = ["parents", "parent_hash", "spans"]

Key = tuple[bytes, bytes]
"""A document and the hash of its text."""


def run(job: Job) -> dict[str, Any]:
    """Write what of the sample has no draft yet; publish `synthesis/<place>` and its `drafts` and `errors`."""
    folder, spec = RunFolder(job.run_folder), job.spec
    place = folder.synthesis(spec["place"])
    sample = draw_sample(folder.catalogue, folder.decisions(spec["policy"]), SampleConfig(**spec["sample"]))
    tasks = list(_tasks(job, folder, sample))
    failed: list[Part] = []
    try:
        report = run_parts(
            job, tasks, synthesize_batch, total=len(tasks), stage="synthesize",
            on_done=lambda _, result: failed.append(part_from_json(result["errors"])),
            **task_resources(spec["model"], cpus=job.cpus, gpus=job.gpus),
        )  # fmt: skip
    except ResourceError as error:
        if not is_disk_full(error):
            publish(folder, spec, sample, failed)
        raise
    report.require_all()
    result = publish(folder, spec, sample, failed)
    _require_documents(result, place)
    return result


def _tasks(job: Job, folder: RunFolder, sample: Sample) -> Iterator[PartTask]:
    """A task for every BATCH_ROWS documents, in the order in which their texts are read."""
    documents = {part.sha256: part for part in open_dataset(folder.documents).parts}
    catalogue = open_dataset(folder.catalogue).parts
    drafts = committed_drafts(folder.synthesis(job.spec["place"]))
    done = written_spans(folder.synthesis(job.spec["place"]) / "drafts", drafts)
    told = {name: job.spec[name] for name in ("place", "author", "model")}
    rows = sample.rows.to_pylist()
    for start in range(0, len(rows), BATCH_ROWS):
        chunk = rows[start : start + BATCH_ROWS]
        texts: dict[int, list[Any]] = defaultdict(list)
        for row in chunk:
            spans = [vars(span) for span in sorted(done.get((row["doc_id"], row["content_hash"]), ()))]
            texts[row["part"]].append([row["row"], row["language"], spans])
        asked = [[_documents_part(documents, catalogue, number), mine] for number, mine in texts.items()]
        # The number of drafts' parts makes a second try at what failed another batch than the first.
        identity = fingerprint({"synthesize": job.spec["identity"], "after": len(drafts), "texts": asked})
        yield PartTask(
            identity=identity, arguments={**told, "root": str(job.run_folder), "texts": asked, "batch": identity}
        )


def _documents_part(documents: Mapping[str, Part], catalogue: Sequence[Part], number: int) -> dict[str, Any]:
    if (part := documents.get(catalogue[number].of or "")) is None:
        raise ResourceError("the catalogue is of other documents", hint="run `gristmill run` on the run again")
    return part_to_json(part)


def committed_drafts(place: Path) -> list[Part]:
    """The whole parts of drafts, published or not, in an order of their own."""
    markers = (path.stem for path in (place / "drafts").glob("*.json") if path.name != MANIFEST)
    return [part for marker in sorted(markers) if (part := find_part(place / "drafts", marker))]


def written_spans(folder: Path, drafts: Sequence[Part]) -> dict[Key, list[Span]]:
    """The bytes of each document that have a draft."""
    found: dict[Key, list[Span]] = defaultdict(list)
    for part in drafts:
        for batch in read_batches(folder / part.file, _DONE):
            for row in batch.to_pylist():
                span = Span(row["spans"][0]["start"], row["spans"][-1]["end"])
                found[row["parents"][0], row["parent_hash"]].append(span)
    return found


def synthesize_batch(arguments: dict[str, Any]) -> dict[str, Any]:
    """Write from one task's documents; commits errors, then drafts."""
    folder, author = RunFolder(Path(arguments["root"])), author_from_json(arguments["author"])
    drafts, errors = (folder.synthesis(arguments["place"]) / name for name in ("drafts", "errors"))
    failed_identity = fingerprint({"errors": arguments["batch"]})
    committed, failed = find_part(drafts, arguments["batch"]), find_part(errors, failed_identity)
    outcomes: list[Outcome] = []
    if committed is None or failed is None:
        found = list(_write(arguments, list(_parents(folder, arguments["texts"])), author))
        outcomes = [outcome for _, outcome in found]
        failed = commit_table(errors, failed_identity, error_rows(found), schema=ERRORS)
        facts = {"tokens": count_tokens(outcomes)}
        if outcomes:
            commit_table(drafts, arguments["batch"], draft_rows(found, author), schema=DRAFTS, facts=facts)
    require_server([outcome.result for outcome in outcomes], arguments["model"])
    documents = sum(len(rows) for _, rows in arguments["texts"])
    return {"documents": documents, "errors": part_to_json(failed)}


def _parents(folder: RunFolder, texts: Sequence[Any]) -> Iterator[Parent]:
    for part, rows in texts:
        found = _rows(folder.documents / part_from_json(part).file, [int(row[0]) for row in rows])
        for row, (_, language, spans) in zip(found, rows, strict=True):
            yield Parent(row=row, language=language or None, done=[Span(**span) for span in spans])


def _rows(path: Path, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Rows of a documents part, ascending."""
    start, waiting = 0, list(reversed(numbers))
    for batch in read_batches(path, DOCUMENTS.names):
        while waiting and waiting[-1] < start + batch.num_rows:
            yield batch.slice(waiting.pop() - start, 1).to_pylist()[0]
        if not waiting:
            return
        start += batch.num_rows


def _write(arguments: Mapping[str, Any], parents: Sequence[Parent], author: Author) -> Iterator[tuple[Parent, Outcome]]:
    """What came of every passage that has no draft, with its document."""
    model = open_model(arguments["model"])
    for number, outcomes in model.hold(_talks(parents, author)):
        for outcome in outcomes:
            yield parents[number], outcome


def _talks(parents: Sequence[Parent], author: Author) -> Iterator[Talk[tuple[int, list[Outcome]]]]:
    for number, parent in enumerate(parents):
        passages = cut_passages(parent.row["text"], author.brief.passage_tokens)
        for passage in passages or [Passage(Span(0, 0), "")]:
            for left in leave_out(passage, parent.done):
                yield _talk(number, left, parent, author)


def _talk(number: int, passage: Passage, parent: Parent, author: Author) -> Talk[tuple[int, list[Outcome]]]:
    return number, (yield from write(passage, parent.language, author.brief, author.seed))


def leave_out(passage: Passage, done: Iterable[Span]) -> list[Passage]:
    """What of a passage lies outside the spans that are done (ascending); an empty one is never done."""
    data, left, first = passage.text.encode(), [], passage.span.start
    for span in [*done, Span(passage.span.end, passage.span.end)]:
        if passage.span.start <= span.start <= passage.span.end:
            piece = data[first - passage.span.start : max(span.start, first) - passage.span.start].decode()
            left.append(trim(piece, first))
            first = max(first, min(span.end, passage.span.end))
    return [piece for piece in left if piece.text or not passage.text]


def publish(folder: RunFolder, spec: dict[str, Any], sample: Sample, failed: Sequence[Part]) -> dict[str, Any]:
    """Screen all drafts, write those that are documents, and the manifests; count."""
    place, author = folder.synthesis(spec["place"]), author_from_json(spec["author"])
    drafts = committed_drafts(place)
    benchmarks = (folder.root, spec["benchmarks"]) if spec["benchmarks"] else None
    rejected = screen(place / "drafts", drafts, Limits(**spec["limits"], benchmarks=benchmarks))
    parts = [part for group in _groups(drafts) if (part := _commit_documents(place, group, rejected)).rows]
    errors = [part for part in (*failed, _commit_rejected(place, drafts, rejected)) if part.rows]
    stage = {"name": "synthesize", "source": author.source, **spec["author"]}
    facts = {
        "asked": spec["identity"],
        "source": author.source,
        "sampled": sample.rows.num_rows,
        "drafts": sum(part.rows for part in drafts),
        "documents": sum(part.rows for part in parts),
        "failed": _reasons(place / "errors", failed),
        "rejected": dict(sorted(Counter(why.reason for why in rejected.values()).items())),
        "limits": spec["limits"],
        **_costs(drafts, place, parts),
        "sample": spec["sample"],
        "strata": describe_strata(sample.strata),
    }
    _write_manifests(place, stage, {"drafts": drafts, "errors": errors})
    identity = fingerprint({"synthesis": author.identity(), "parts": [part.sha256 for part in parts]})
    write_manifest(place, Manifest(kind="documents", identity=identity, stage=stage, parts=tuple(parts), facts=facts))
    return {"identity": identity, "place": spec["place"], **facts}


def _write_manifests(place: Path, stage: Mapping[str, Any], datasets: Mapping[str, Sequence[Part]]) -> None:
    """Of the datasets beside the documents."""
    for kind, parts in datasets.items():
        identity = fingerprint([part.sha256 for part in parts])
        write_manifest(place / kind, Manifest(kind=kind, identity=identity, stage=stage, parts=tuple(parts)))


def _groups(drafts: Sequence[Part]) -> Iterator[list[Part]]:
    """Neighbouring parts of drafts that together make one part of documents."""
    group: list[Part] = []
    for part in drafts:
        group.append(part)
        if sum(held.bytes for held in group) >= PART_BYTES:
            yield group
            group = []
    if group:
        yield group


def _commit_documents(place: Path, drafts: Sequence[Part], rejected: Mapping[bytes, Failed]) -> Part:
    def left() -> Iterator[pa.RecordBatch]:
        for part in drafts:
            for batch in read_batches(place / "drafts" / part.file, SYNTHETIC.names):
                kept = [doc_id not in rejected for doc_id in batch.column("doc_id").to_pylist()]
                yield batch.filter(pa.array(kept, pa.bool_()))

    made_of = [[part.sha256 for part in drafts], sorted(doc_id.hex() for doc_id in rejected)]
    return commit_table(place, fingerprint({"documents": made_of}), left(), schema=SYNTHETIC)


def _commit_rejected(place: Path, drafts: Sequence[Part], rejected: Mapping[bytes, Failed]) -> Part:
    """ERRORS of the drafts that are no documents."""
    rows = []
    for part in drafts:
        for batch in read_batches(place / "drafts" / part.file, ["doc_id", "parents", "spans", "attempts"]):
            for row in batch.to_pylist():
                if why := rejected.get(row["doc_id"]):
                    span = Span(row["spans"][0]["start"], row["spans"][-1]["end"])
                    rows.append(error_row(row["parents"][0], span, "screen", why, row["attempts"]))
    rows.sort(key=lambda row: (row["doc_id"], row["start"]))
    table = pa.Table.from_pylist(rows, schema=ERRORS)
    return commit_table(place / "errors", fingerprint({"rejected": rows}), table, schema=ERRORS)


def _reasons(folder: Path, errors: Sequence[Part]) -> dict[str, int]:
    counted = Counter(
        reason
        for part in errors
        for batch in read_batches(folder / part.file, ["reason"])
        for reason in batch["reason"].to_pylist()
    )
    return dict(sorted(counted.items()))


def _costs(drafts: Sequence[Part], place: Path, parts: Sequence[Part]) -> dict[str, Any]:
    """What all drafts and failures took, by step; what of it stands in documents; and how much was paid for each
    token of those."""
    steps: dict[str, Counter[str]] = defaultdict(Counter)
    for part in drafts:
        for step, tokens in part.facts["tokens"].items():
            steps[step].update(tokens)
    written = sum(
        sum(batch["written_tokens"].to_pylist())
        for part in parts
        for batch in read_batches(place / part.file, ["written_tokens"])
    )
    spent = {kind: sum(tokens[kind] for tokens in steps.values()) for kind in ("prompt", "completion")}
    each = {kind: round(count / written, 3) for kind, count in spent.items()} if written else None
    by_step = {step: dict(sorted(tokens.items())) for step, tokens in sorted(steps.items())}
    return {"tokens": by_step, "written_tokens": written, "tokens_per_written_token": each}


def _require_documents(result: dict[str, Any], place: Path) -> None:
    """Raises InputError where not one text came of the sample."""
    if result["documents"]:
        return
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in {**result["failed"], **result["rejected"]}.items())
    raise InputError(
        f"nothing was written of {result['sampled']:,} documents that could be kept ({reasons})",
        at=str(place / "errors"),
        hint="the column `said` there holds what came instead",
    )
