"""Datasets of documents read back: by the manifest alone, with their ids; what is none is refused or fails as one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sources.ingest import Batch, IngestConfig, ingest
from sources.inputs import expand_inputs
from storage.errors import InputError
from storage.identity import fingerprint
from storage.manifests import Manifest, write_manifest
from storage.parts import commit_table
from storage.schema import DOCUMENTS, Document, documents_table


def document(number: int, licence: str | None) -> Document:
    return Document(
        doc_id=f"id{number}".encode().ljust(16, b"."), text=f"Text {number} of them.", title=None, source="original",
        url=f"https://example.org/{number}", file="f", offset=number, length=1, page=None, collected_at=None,
        licence=licence,
    )  # fmt: skip


def dataset(folder: Path, *, kind: str = "documents", source: str | None = "synthetic/toy", parts: int = 2) -> Path:
    """Parts of two documents each, and beside them a part that the manifest does not name."""
    written = []
    for number in range(parts + 1):
        table = documents_table([document(2 * number, "CC0-1.0"), document(2 * number + 1, None)])
        written.append(commit_table(folder, fingerprint(number), table, schema=DOCUMENTS))
    stage = {"source": source} if source else {}
    write_manifest(folder, Manifest(kind=kind, identity="x", stage=stage, parts=tuple(written[:parts])))
    return folder


def read(folder: Path, source: str = "", licence: str | None = None) -> list[Batch]:
    inputs = expand_inputs(source, [str(folder)], kind="documents")
    return [batch for raw in inputs for batch in ingest(replace(raw, licence=licence), IngestConfig())]


def test_documents_keep_their_ids_and_licences_and_come_from_the_named_source(tmp_path: Path) -> None:
    batches = read(dataset(tmp_path / "d"), licence="CC-BY-4.0")
    rows = [row for batch in batches for row in batch.documents.to_pylist()]
    assert [row["doc_id"].rstrip(b".") for row in rows] == [b"id0", b"id1", b"id2", b"id3"]
    assert [row["licence"] for row in rows] == ["CC0-1.0", "CC-BY-4.0"] * 2
    assert {row["source"] for row in rows} == {"synthetic/toy"} and rows[3]["url"] == "https://example.org/3"
    assert [row["record"]["page"] for row in rows] == ["0", "1", "0", "1"]


def test_a_name_of_ones_own_wins(tmp_path: Path) -> None:
    (first, _) = read(dataset(tmp_path / "d"), "mine")
    assert set(first.documents["source"].to_pylist()) == {"mine"}


def test_what_is_no_dataset_of_documents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no dataset that Gristmill wrote"):
        read(tmp_path)
    with pytest.raises(InputError, match="holds drafts, not documents"):
        read(dataset(tmp_path / "drafts", kind="drafts"))
    with pytest.raises(InputError, match="several sources"):
        read(dataset(tmp_path / "run", source=None))


def test_a_damaged_part_is_one_failure_and_the_others_are_read(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "d")
    (folder / f"{fingerprint(0)}.parquet").write_bytes(b"PAR1 no more")
    damaged, whole = read(folder)
    assert damaged.failures["reason"].to_pylist() == ["unreadable_parquet"] and whole.documents.num_rows == 2
