"""The scoring job: fit or find a quality head, score every embedded document with it, cut the scores into buckets 0-19.

The head learns from the labels that the run has: a user's file, else encyclopedia against web. What it learned from
is scored by a line that saw neither them nor their duplicates. Head and thresholds are artifacts: the same labelled
rows give the same head, and a head has one set of thresholds for the sources whose text they rank, fitted once;
documents that come later are put into its buckets and do not move them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from classifiers.quality.artifact import find_head, write_head
from classifiers.quality.buckets import BucketThresholds, fit_buckets, read_thresholds, write_thresholds
from classifiers.quality.head import FittedHead, HeadConfig, fit_head, head_identity, refuse_rows
from classifiers.quality.labels import label_sources, sources_meaning
from classifiers.quality.stage import QUALITY, score, vectors_of
from classifiers.quality.training import LabelledRows
from pipelines.annotated import head_config, read_labelled
from pipelines.jobs.driver import PartTask, run_parts
from pipelines.jobs.embed import COLUMN
from pipelines.jobs.job import Job
from pipelines.run_folder import RunFolder
from pipelines.search import encoder_stage
from storage.identity import content_hash, fingerprint
from storage.manifests import Dataset, Manifest, align, open_dataset, write_manifest
from storage.parts import Part, commit_table, find_part, part_from_json, part_to_json
from storage.schema import IDENTIFIER

LABELLED_ROWS = 40_000
"""Labelled rows that are held to fit a head, the same hashes of every run: 30 MB of vectors."""
THRESHOLD_ROWS = 1_000_000
"""Rows whose scores set the bucket thresholds."""
HEADS = "quality-head"
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
SCHEMA = pa.schema([pa.field("doc_id", IDENTIFIER), pa.field("quality", pa.struct(list(QUALITY)))])


def run(job: Job) -> dict[str, Any]:
    """Fit once, then score part by part; publish `attributes/quality`."""
    folder = RunFolder(job.run_folder)
    fit = PartTask(identity=job.spec["identity"], arguments={"root": str(job.run_folder), **job.spec})
    report = run_parts(job, [fit], fit_scores, total=1, stage="score")
    report.require_all()
    (fitted,) = report.results
    assert fitted is not None
    tasks = [
        PartTask(
            identity=fingerprint({"scores": fitted["scorer"], "part": theirs.sha256}),
            arguments={
                "root": str(job.run_folder),
                "fitted": fitted,
                "documents": part_to_json(ours),
                "embedded": part_to_json(theirs),
            },
        )
        for ours, theirs in align(open_dataset(folder.documents), open_dataset(folder.embeddings))
    ]
    scored = run_parts(job, tasks, score_part, total=len(tasks), stage="score")
    scored.require_all()
    parts = tuple(part_from_json(result["part"]) for result in scored.results if result)
    identity = fingerprint({"scores": fitted["scorer"], "parts": [part.sha256 for part in parts]})
    described = {"name": "quality", "scorer": fitted["scorer"], "head": fitted.get("head")}
    write_manifest(folder.quality, Manifest(kind="quality", identity=identity, stage=described, parts=parts))
    number = sum(part.facts["scored"] for part in parts)
    told = f", out-of-fold AUC {fitted['auc']:.3f}" if fitted.get("auc") is not None else ""
    summary = f"{number:,} documents scored{told}" if fitted.get("head") else fitted["meaning"]
    return {
        **fitted,
        "identity": identity,
        "documents": sum(p.rows for p in parts),
        "scored": number,
        "summary": summary,
    }


def fit_scores(arguments: dict[str, Any]) -> dict[str, Any]:
    """The head and the thresholds for this run's embeddings; without enough labels, the reason why there are none."""
    folder = RunFolder(Path(arguments["root"]))
    home, encoder = folder.root / "artifacts" / HEADS, encoder_stage(arguments["encoder"]).identity()
    rows = _labelled_rows(folder, arguments)
    config = head_config(Path(arguments["labels"])) if arguments["labels"] else HeadConfig()
    if reason := refuse_rows(rows, config):
        return {"scorer": fingerprint({"none": reason}), "meaning": f"No document was scored: {reason}."}
    identity = head_identity(rows, config, encoder=encoder)
    head = find_head(home, identity) or fit_head(rows, config, encoder=encoder)
    write_head(home, head)
    grouping = "texts" if arguments["labels"] else "clusters"
    card = head.card
    ranked, place = arguments["bucket_sources"], thresholds_file(arguments["bucket_sources"])
    thresholds = find_thresholds(home / identity / place, lambda: ranked_scores(folder, head, grouping, ranked))
    return {
        "grouping": grouping,
        "thresholds": place,
        "bucket_sources": ranked,
        "scorer": fingerprint({"head": identity, "thresholds": thresholds.identity, "grouping": grouping}),
        "head": identity,
        "meaning": _meaning(card, ranked),
        "auc": card["out_of_fold"]["auc"],
        "warnings": card["training"]["warnings"],
    }


def _meaning(card: Any, ranked: Sequence[str]) -> str:
    """What a score means, in a sentence or two for the report."""
    auc = card["out_of_fold"]["auc"]
    said = f"{card['score'][0].upper()}{card['score'][1:]}. {card['label']['meaning']}."
    figure = f" Out of fold, AUC {auc:.3f}." if auc is not None else ""
    warnings = "".join(f" Warning: {warning}." for warning in card["training"]["warnings"])
    buckets = f" Each bucket holds a twentieth of the text of {', '.join(f'`{name}`' for name in ranked)}."
    return said + figure + buckets + warnings


def duplicate_groups(doc_ids: pa.Array, members: pa.Table) -> pa.Array:
    """The cluster of each document of a part, from its MEMBERS; those that resemble no other are their own."""
    where = pc.index_in(doc_ids, value_set=members["doc_id"].combine_chunks())
    return pc.coalesce(members["cluster_id"].combine_chunks().take(where), doc_ids)


def _embedded(folder: RunFolder) -> Iterator[tuple[pa.Table, pa.Array]]:
    """Of each part the embedded rows: doc_id, content_hash, source, measured language and bytes, cluster;
    and their vectors."""
    documents, measured = open_dataset(folder.documents), open_dataset(folder.measured)
    sides = (measured, open_dataset(folder.duplicates / "members"), open_dataset(folder.embeddings))
    aligned = zip(*([theirs for _, theirs in align(documents, side)] for side in sides), strict=True)
    for ours, (facts, members, theirs) in zip(documents.parts, aligned, strict=True):
        vectors = pc.struct_field(sides[2].read(theirs, [COLUMN])[COLUMN].combine_chunks(), "vector")
        rows = documents.read(ours, ["doc_id", "content_hash", "source"])
        attributes = measured.read(facts, ["language", "rules"])
        language = pc.struct_field(attributes["language"].combine_chunks(), "label")
        size = pc.struct_field(attributes["rules"].combine_chunks(), "num_bytes")
        known = vectors.is_valid()
        groups = duplicate_groups(rows["doc_id"].combine_chunks(), sides[1].read(members))
        rows = rows.append_column("language", language).append_column("bytes", size).append_column("group", groups)
        yield rows.filter(known).combine_chunks(), vectors.filter(known)


def _labelled_rows(folder: RunFolder, arguments: dict[str, Any]) -> LabelledRows:
    if arguments["labels"]:
        return _rows_of_file(Path(arguments["labels"]), arguments["encoder"])
    named = {"encyclopedia": arguments["encyclopedia"], "web": arguments["web"]}
    tables: list[tuple[pa.Table, pa.Array, Floats]] = []
    for rows, vectors in _embedded(folder):
        labels = label_sources(rows["source"], **named)
        chosen = np.flatnonzero(~np.isnan(labels))
        tables.append((rows.take(pa.array(chosen)), vectors.take(pa.array(chosen)), labels[chosen]))
        tables = _least_hashes(tables)
    return LabelledRows(
        doc_ids=_flat([table["doc_id"] for table, _, _ in tables], IDENTIFIER),
        groups=_flat([table["group"] for table, _, _ in tables], IDENTIFIER),
        vectors=np.concatenate([vectors_of(vectors) for _, vectors, _ in tables] or [np.empty((0, 1), np.float16)]),
        labels=np.concatenate([labels for _, _, labels in tables] or [np.empty(0)]),
        languages=[label for table, _, _ in tables for label in table["language"].to_pylist()],
        meaning=sources_meaning(**named),
    )


def _least_hashes(
    tables: list[tuple[pa.Table, pa.Array, Floats]],
) -> list[tuple[pa.Table, pa.Array, Floats]]:
    """Of each label the rows with the least doc_ids (hashes), once there are twice too many: order-free and bounded."""
    if sum(len(labels) for _, _, labels in tables) < 2 * LABELLED_ROWS:
        return tables
    rows = pa.concat_tables([table for table, _, _ in tables]).combine_chunks()
    vectors = pa.concat_arrays([vectors for _, vectors, _ in tables])
    labels = np.concatenate([labels for _, _, labels in tables])
    order = np.asarray(pc.sort_indices(rows["doc_id"]))
    kept = np.sort(np.concatenate([order[labels[order] == label][: LABELLED_ROWS // 2] for label in np.unique(labels)]))
    return [(rows.take(pa.array(kept)), vectors.take(pa.array(kept)), labels[kept])]


def _flat(columns: list[pa.ChunkedArray], kind: pa.DataType) -> pa.Array:
    chunks = [chunk for column in columns for chunk in column.chunks]
    return pa.concat_arrays(chunks) if chunks else pa.array([], kind)


def _rows_of_file(path: Path, encoder: str | None) -> LabelledRows:
    """A user's labelled texts, embedded here; groups are their texts' hashes."""
    from pipelines.jobs.worker import worker_function

    labelled = read_labelled(path)
    texts = labelled.table["text"].combine_chunks()
    stage = encoder_stage(encoder)
    embedded = worker_function(stage)(pa.record_batch({"text": texts}))
    hashes = pa.array([content_hash(text.encode()) for text in texts.to_pylist()], IDENTIFIER)
    return LabelledRows(
        doc_ids=hashes,
        groups=hashes,
        vectors=vectors_of(embedded.column("vector")),
        labels=np.asarray(labelled.table["label"]),
        languages=[None] * len(texts),
        meaning=labelled.meaning,
    )


def thresholds_file(ranked: Sequence[str]) -> str:
    """Where a head keeps the thresholds that rank the text of these sources."""
    return f"thresholds-{fingerprint({'sources': sorted(ranked)})[:16]}.json"


def find_thresholds(path: Path, sample: Callable[[], tuple[Floats, Counts]]) -> BucketThresholds:
    """Those that are there, else fitted to the sample's scores and UTF-8 lengths. Raises InputError if it is empty."""
    if not path.is_file():
        write_thresholds(path, fit_buckets(*sample()))
    return read_thresholds(path)


def ranked_scores(folder: RunFolder, head: FittedHead, grouping: str, ranked: Sequence[str]) -> tuple[Floats, Counts]:
    """Scores and bytes of at most THRESHOLD_ROWS documents of the sources, evenly from all parts, the least doc_ids."""
    share = max(1, THRESHOLD_ROWS // max(1, len(open_dataset(folder.embeddings).parts)))
    scores, sizes = [np.empty(0)], [np.empty(0, np.int64)]
    for rows, vectors in _embedded(folder):
        mine = pc.indices_nonzero(pc.is_in(rows["source"], value_set=pa.array(sorted(ranked), pa.string())))
        taken = mine.take(pc.sort_indices(rows["doc_id"].take(mine))[:share])
        rows, vectors = rows.take(taken), vectors.take(taken)
        scored = score(vectors, _groups(rows, grouping), head)
        scores.append(np.asarray(scored.column("score")))
        sizes.append(np.asarray(rows["bytes"]))
    return np.concatenate(scores), np.concatenate(sizes)


def _groups(rows: pa.Table, grouping: str) -> pa.Array:
    """What the head's folds went by: clusters, or the texts' hashes where a user labelled texts."""
    return rows["content_hash" if grouping == "texts" else "group"].combine_chunks()


def score_part(arguments: dict[str, Any]) -> dict[str, Any]:
    """QUALITY rows of one part."""
    folder, part = RunFolder(Path(arguments["root"])), part_from_json(arguments["documents"])
    fitted, embedded = arguments["fitted"], part_from_json(arguments["embedded"])
    members = open_dataset(folder.duplicates / "members")
    here = next(theirs for ours, theirs in align(open_dataset(folder.documents), members) if ours == part)
    identity = fingerprint({"scores": fitted["scorer"], "part": embedded.sha256, "members": here.sha256})
    done = find_part(folder.quality, identity)
    if done is None:
        table = _score(folder, fitted, part, embedded, members.read(here))
        facts = {"scored": len(table) - pc.struct_field(table["quality"].combine_chunks(), "score").null_count}
        done = commit_table(folder.quality, identity, table, schema=SCHEMA, of=part.sha256, facts=facts)
    return {"documents": done.rows, "part": part_to_json(done)}


def _score(folder: RunFolder, fitted: dict[str, Any], part: Part, embedded: Part, members: pa.Table) -> pa.Table:
    dataset: Dataset = open_dataset(folder.embeddings)
    table = dataset.read(embedded)
    head = thresholds = None
    if fitted.get("head"):
        home = folder.root / "artifacts" / HEADS
        head = find_head(home, fitted["head"])
        thresholds = read_thresholds(home / fitted["head"] / fitted["thresholds"])
    doc_ids = table["doc_id"].combine_chunks()
    vectors = pc.struct_field(table[COLUMN].combine_chunks(), "vector")
    rows = open_dataset(folder.documents).read(part, ["doc_id", "content_hash"])
    rows = rows.append_column("group", duplicate_groups(rows["doc_id"].combine_chunks(), members))
    scored = score(vectors, _groups(rows, fitted.get("grouping", "clusters")), head, thresholds)
    quality = pa.StructArray.from_arrays(scored.columns, fields=list(QUALITY))
    return pa.table([doc_ids, quality], schema=SCHEMA)
