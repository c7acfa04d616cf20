"""The documents of a run that datatrove's FineWeb recipe keeps, by datatrove's own filters and MinHash.

Order and arguments are those of its `examples/fineweb.py`: language, Gopher's repetition and quality rules, C4's
without the question how lines end, FineWeb's own, then MinHash of 14 bands of 8 over word 5-grams with 64-bit hashes.
Two things are the run's: the extracted text, which all arms share, and the language with its score (lid.176, the model
that datatrove downloads; 0.65 as there). Invariant: a part's verdicts are written once and found again. 30 to 60
documents a second a core: most of it is spaCy.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.run_folder import RunFolder
from storage.commit import atomic_path
from storage.manifests import align, open_dataset
from storage.parts import Part
from storage.schema import IDENTIFIER

LANGUAGE_SCORE = 0.65
FILTERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("GopherRepetitionFilter", {}),
    ("GopherQualityFilter", {}),
    ("C4QualityFilter", {"filter_no_terminal_punct": False}),
    ("FineWebQualityFilter", {}),
)
VERDICTS = pa.schema([("doc_id", IDENTIFIER), ("reason", pa.string())])
DUPLICATE = "minhash"


def drop_documents(run: RunFolder, source: str, work: Path) -> tuple[list[bytes], Counter[str]]:
    """The documents of a source that the recipe drops, and how many each of its steps did (None: kept)."""
    logging.getLogger("datatrove").setLevel(logging.ERROR)
    tables = [pq.read_table(path) for path in judge_documents(run, source, work)]
    judged = pa.concat_tables(tables)
    reasons = dict(zip(judged["doc_id"].to_pylist(), judged["reason"].to_pylist(), strict=True))
    for doc_id in _find_duplicates(run, {doc_id for doc_id, reason in reasons.items() if reason is None}, work):
        reasons[doc_id] = DUPLICATE
    counts = Counter("kept" if reason is None else reason for reason in reasons.values())
    return [doc_id for doc_id, reason in reasons.items() if reason is not None], counts


def judge_documents(run: RunFolder, source: str, work: Path) -> list[Path]:
    """VERDICTS of each documents part under `work`; parts that are there already are left alone."""
    (work / "verdicts").mkdir(parents=True, exist_ok=True)
    documents, measured = open_dataset(run.documents), open_dataset(run.root / "attributes" / "measure")
    filters = _open_filters()
    written = []
    for ours, theirs in align(documents, measured):
        path = work / "verdicts" / f"{ours.identity}.parquet"
        if not path.exists():
            texts = documents.read(ours, ["doc_id", "source", "text"])
            language = measured.read(theirs, ["language"])["language"]
            _write_verdicts(path, texts.append_column("language", language), source, filters)
        written.append(path)
    return written


def _open_filters() -> list[Any]:
    import datatrove.pipeline.filters as known

    return [getattr(known, name)(**arguments) for name, arguments in FILTERS]


def _write_verdicts(path: Path, table: pa.Table, source: str, filters: Sequence[Any]) -> None:
    rows = [
        {"doc_id": row["doc_id"], "reason": _reason(row["text"], row["language"], filters)}
        for row in table.to_pylist()
        if row["source"] == source
    ]
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=VERDICTS), temporary)


def _reason(text: str, language: dict[str, Any], filters: Sequence[Any]) -> str | None:
    """The first filter that drops the text, with its reason; None for what all of them keep."""
    from datatrove.data import Document

    if language["label"] != "en" or (language["score"] or 0.0) < LANGUAGE_SCORE:
        return "LanguageFilter"
    document = Document(text=text, id="")
    for block in filters:
        try:
            verdict = block.filter(document)
        except ImportError:
            raise
        except Exception as error:  # as its executor would, a document that a filter fails on is lost
            return f"{type(block).__name__}: {type(error).__name__}"
        kept, why = verdict if isinstance(verdict, tuple) else (verdict, None)
        if not kept:
            return f"{type(block).__name__}: {why or 'filtered'}"
    return None


def _find_duplicates(run: RunFolder, kept: set[bytes], work: Path) -> set[bytes]:
    """Those of the documents that datatrove's MinHash drops; found again where it was done for the same number."""
    done = work / f"duplicates-of-{len(kept)}.parquet"
    if not done.exists():
        left = _run_minhash(run, kept, work / "minhash")
        table = pa.table({"doc_id": pa.array(sorted(kept - left), IDENTIFIER)})
        with atomic_path(done) as temporary:
            pq.write_table(table, temporary)
    return set(pq.read_table(done)["doc_id"].to_pylist())


def _run_minhash(run: RunFolder, kept: set[bytes], work: Path) -> set[bytes]:
    """What is left after datatrove's four steps, as one task each."""
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.utils.hashing import HashConfig

    config = MinhashConfig(
        hash_config=HashConfig(hash_fc="sha1", precision=64), num_buckets=14, hashes_per_bucket=8, n_grams=5
    )
    signatures, buckets, removed = (str(work / name) for name in ("signatures", "buckets", "removed"))
    MinhashDedupSignature(signatures, config).run(_documents(run, kept), 0, 1)
    for bucket in range(config.num_buckets):
        MinhashDedupBuckets(signatures, buckets, config=config).run(None, bucket, config.num_buckets)
    MinhashDedupCluster(buckets, removed, config=config).run(None, 0, 1)
    return {bytes.fromhex(found.id) for found in MinhashDedupFilter(removed).run(_documents(run, kept), 0, 1)}


def _documents(run: RunFolder, kept: set[bytes]) -> Iterator[Any]:
    from datatrove.data import Document

    documents = open_dataset(run.documents)
    parts: Sequence[Part] = documents.parts
    for part in parts:
        for row in documents.read(part, ["doc_id", "text"]).to_pylist():
            if row["doc_id"] in kept:
                yield Document(text=row["text"], id=row["doc_id"].hex())
