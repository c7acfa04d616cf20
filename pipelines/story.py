"""A document's story: from its raw record through measurements and verdict to its place in a shard.

Everything is looked up in the run's own datasets, narrow columns first; the text is read last, for its beginning only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mixtures.corpus import ensemble_of
from mixtures.ensemble import evaluate_ensemble
from pipelines.document_map import offsets_of
from pipelines.run_folder import RunFolder, find_step
from storage.errors import InputError
from storage.manifests import MANIFEST, open_dataset
from storage.megatron import IndexedReader
from storage.parts import Part
from storage.schema import IDENTIFIER
from tokenizer.store import open_store

HEX_DIGITS = 32
EXCERPT = 400


@dataclass(frozen=True)
class Found:
    """Where a document stands: its id, its documents part, and its row there."""

    doc_id: bytes
    part: Part
    row: int


def find_documents(folder: RunFolder, asked: str) -> list[Found]:
    """Every document with that doc_id (32 hex digits) or URL."""
    column, value = _key(asked)
    documents = open_dataset(folder.documents)
    found = []
    for part in documents.parts:
        start = 0
        for batch in documents.batches(part, ["doc_id", "url"]):
            for row in pc.indices_nonzero(pc.fill_null(pc.equal(batch.column(column), value), False)).to_pylist():
                found.append(Found(batch.column("doc_id")[row].as_py(), part, start + row))
            start += batch.num_rows
    return found


def require_documents(folder: RunFolder, asked: str) -> list[Found]:
    """Raises InputError when the run holds no such document; says so if it is among the failures."""
    found = find_documents(folder, asked)
    if found:
        return found
    failed = list(find_failures(folder, asked))
    if failed:
        row = failed[0]
        raise InputError(
            f"`{asked}` was read, but could not be processed: {row['reason']} ({row['detail']})",
            at=f"{row['file']}, byte {row['offset']}" if row["offset"] is not None else row["file"],
            hint=f"every such record of this run stands under {folder.root / 'failures'}",
        )
    raise InputError(
        f"no document of this run has the id or URL `{asked}`",
        at=str(folder.root),
        hint="give the 32 hex digits of a doc_id, or a URL exactly as it was crawled",
    )


def find_failures(folder: RunFolder, asked: str) -> Iterator[dict[str, Any]]:
    """Rows of `failures/` about that item."""
    for stage in sorted((folder.root / "failures").glob("*")):
        if not (stage / MANIFEST).exists():
            continue
        dataset = open_dataset(stage)
        for part in dataset.parts:
            table = dataset.read(part)
            yield from table.filter(pc.fill_null(pc.equal(table["item"], asked), False)).to_pylist()


def tell_story(folder: RunFolder, found: Found, policy: str | None = None) -> dict[str, Any]:
    """The whole story as JSON: `document`, `rewritten` (where it was), `measured`, `verdict`, `reasons`, `tokens`,
    `mixtures`."""
    policy = policy or judged_policy(folder)
    story: dict[str, Any] = {"document": _document(folder, found)}
    if rewritten := _rewritten(folder, found):
        story["rewritten"] = rewritten
    story["measured"] = _measured(folder, found)
    if policy and (together := _together(folder, found, policy)):
        story["measured"]["ensemble"] = together
    if policy:
        story.update(_decided(folder, found, policy))
    story["tokens"] = _stored(folder, found)
    story["mixtures"] = _mixed(folder, found)
    return story


def judged_policy(folder: RunFolder) -> str | None:
    """Identity of the policy that the run was judged by last."""
    record = find_step(folder, "judge")
    return str(record.result["policy"]) if record else None


def _key(asked: str) -> tuple[str, pa.Scalar]:
    digits = asked.lower()
    if len(digits) == HEX_DIGITS and all(character in "0123456789abcdef" for character in digits):
        return "doc_id", pa.scalar(bytes.fromhex(digits), IDENTIFIER)
    return "url", pa.scalar(asked, pa.string())


def _document(folder: RunFolder, found: Found) -> dict[str, Any]:
    values = open_dataset(folder.documents).row(found.part, found.row)
    text = values.pop("text")
    return {**_readable(values), "characters": len(text), "bytes": len(text.encode()), "begins": text[:EXCERPT]}


def _rewritten(folder: RunFolder, found: Found) -> dict[str, Any]:
    """What changed the text, with its counts, and where the text as it was ingested stands; empty where nothing did."""
    did = _attributes(found, *folder.of_texts())
    changes = {name: counts for name, counts in did.items() if counts.get("is_changed")}
    before = {"file": f"{folder.ingested.name}/{found.part.facts.get('from')}", "row": found.row}
    return {**changes, "before": before} if changes else {}


def _measured(folder: RunFolder, found: Found) -> dict[str, Any]:
    of_texts = _attributes(found, *folder.of_texts())
    repeated = {name: _readable(values) for name, values in of_texts.items() if "is_changed" not in values}
    return {**repeated, **_attributes(found, folder.measured, folder.quality, folder.scores, folder.fluency)}


def _together(folder: RunFolder, found: Found, policy: str) -> dict[str, Any]:
    """What the policy's ensemble makes of the document's scores; empty without scorers."""
    ensemble = ensemble_of(open_dataset(folder.decisions(policy) / "verdicts"))
    catalogue = open_dataset(folder.catalogue)
    for part in catalogue.parts:
        if part.of == found.part.sha256:
            row = catalogue.read(part).take([found.row])  # DuckDB reads no slices of structs
            return {name: column[0].as_py() for name, column in _columns(evaluate_ensemble(row, ensemble))}
    return {}


def _columns(table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    yield from zip(table.column_names, table.columns, strict=True)


def _attributes(found: Found, *places: Path) -> dict[str, Any]:
    measured: dict[str, Any] = {}
    for place in places:
        if not (place / MANIFEST).exists():
            continue
        dataset = open_dataset(place)
        for part in dataset.parts:
            if part.of == found.part.sha256:
                measured |= {name: value for name, value in dataset.row(part, found.row).items() if name != "doc_id"}
    return measured


def _decided(folder: RunFolder, found: Found, policy: str) -> dict[str, Any]:
    decisions = folder.decisions(policy)
    verdicts, reasons = open_dataset(decisions / "verdicts"), open_dataset(decisions / "reasons")
    verdict = next((verdicts.row(part, found.row) for part in verdicts.parts if part.of == found.part.sha256), {})
    rows: list[dict[str, Any]] = []
    for part in reasons.parts:
        if part.of == found.part.sha256:
            table = reasons.read(part)
            rows += table.filter(pc.equal(table["doc_id"], pa.scalar(found.doc_id, IDENTIFIER))).to_pylist()
    return {"policy": policy, "verdict": _readable(verdict), "reasons": [_readable(row) for row in rows]}


def _stored(folder: RunFolder, found: Found) -> list[dict[str, Any]]:
    places = []
    for store in sorted((folder.root / "tokens").glob("*")):
        if (store / MANIFEST).exists() and (location := open_store(store).find(found.doc_id, found.part.identity)):
            places.append({"tokenizer": store.name, **location.__dict__})
    return places


def _mixed(folder: RunFolder, found: Found) -> list[dict[str, Any]]:
    taken = []
    for mixture in sorted((folder.root / "mixtures").glob("*")):
        selection = mixture / "selection.parquet"
        if selection.exists():
            table = pq.read_table(selection, filters=[("doc_id", "=", found.doc_id)])
            taken += [_taken(mixture, row) for row in table.to_pylist()]
    return taken


def _taken(mixture: Path, row: dict[str, Any]) -> dict[str, Any]:
    """A selection's row, and where the document begins in its shard, in tokens, once a repeat."""
    offsets = offsets_of(IndexedReader(mixture / row["prefix"]), row["sequence"])
    return {"mixture": mixture.name, **_readable(row), "offsets": offsets}


def _readable(values: dict[str, Any]) -> dict[str, Any]:
    """Identifiers as hex digits, times as text."""
    return {name: _shown(value) for name, value in values.items()}


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if hasattr(value, "isoformat") else value


def story_json(story: dict[str, Any]) -> str:
    return json.dumps(story, ensure_ascii=False, indent=1, default=str)


def run_folder_at(out: Path) -> RunFolder:
    """Raises InputError where no run is."""
    folder = RunFolder(out.absolute())
    if not (folder.documents / MANIFEST).exists():
        raise InputError(
            "there is no curated run here",
            at=str(out),
            hint="name its folder with `--out`, or make one: `gristmill run`",
        )
    return folder
