"""Bins: a store's pairs put together, each document still where its map says, and no byte by chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from storage.errors import DatasetError
from storage.identity import content_hash
from storage.manifests import find_manifest
from storage.megatron import IndexedReader
from storage.parts import Part, commit_table
from tokenizer.bins import pack_bin, plan_bins, remove_loose
from tokenizer.encode import Encoder
from tokenizer.store import (
    TokenStore,
    list_store_parts,
    open_store,
    place_of,
    publish_store,
    rows_not_yet_stored,
    write_store_part,
)
from tokenizer.verify import verify_store

SCHEMA = pa.schema([("doc_id", pa.binary(16)), ("text", pa.string())])
TEXTS = {
    "d0": ["the miller", "counts 12 sacks"],
    "d1": ["磨坊把谷物磨成面粉。"],
    "d2": ["", ""],
    "d3": ["Mühle", "grain"],
}


def doc_id(part: str, row: int) -> bytes:
    return content_hash(f"{part} {row}".encode())


def documents(folder: Path, part: str) -> tuple[Part, pa.Table]:
    ids = [doc_id(part, row) for row in range(len(TEXTS[part]))]
    table = pa.table([ids, TEXTS[part]], schema=SCHEMA)
    return commit_table(folder / "documents", part, table, schema=SCHEMA), table


def write(root: Path, encoder: Encoder, *parts: str) -> list[Part]:
    """Store parts of whole documents parts, each in a pair of its own."""
    written = []
    for name in parts:
        part, table = documents(root, name)
        batches, rows = iter(table.to_batches()), np.arange(part.rows)
        written.append(write_store_part(root / "tokens", encoder, documents=part, batches=batches, admitted=rows))
    return written


def store_of(
    root: Path, encoder: Encoder, parts: list[Part], bin_bytes: int, here: set[str] | None = None
) -> TokenStore:
    """What the tokenize job does after its parts are written."""
    folder = root / "tokens"
    earlier = find_manifest(folder)
    published = {part.identity for part in earlier.parts} if earlier else set()
    packed = {}
    for group in plan_bins(list_store_parts(folder, parts, here), published, bin_bytes=bin_bytes):
        packed |= dict(zip([part.identity for part in group], pack_bin(folder, group), strict=True))
    publish_store(folder, encoder.vocabulary, parts, documents=here, packed=packed)
    remove_loose(folder, packed, published)
    return open_store(folder)


def texts_of(store: TokenStore, encoder: Encoder) -> dict[bytes, str]:
    found = {}
    for name, texts in TEXTS.items():
        for row in range(len(texts)):
            if location := store.find(doc_id(name, row)):
                found[doc_id(name, row)] = store.decode(location, encoder)
    return found


def pairs(store: TokenStore) -> list[Path]:
    return sorted(store.dataset.folder.glob("*.bin"))


def expected(*parts: str) -> dict[bytes, str]:
    return {doc_id(name, row): text for name in parts for row, text in enumerate(TEXTS[name]) if text}


def test_parts_share_a_bin_and_every_document_is_found_in_it(tmp_path: Path, encoder: Encoder) -> None:
    parts = write(tmp_path, encoder, "d0", "d1", "d2", "d3")
    alone = [(tmp_path / "tokens" / f"{part.identity}.bin").read_bytes() for part in parts if part.rows]
    store = store_of(tmp_path, encoder, parts, 1 << 20)
    (bin,) = pairs(store)
    assert bin.read_bytes() == b"".join(alone)
    assert texts_of(store, encoder) == expected("d0", "d1", "d3")
    assert [part.facts["part"] for part in store.dataset.parts] == ["d0", "d1", "d2", "d3"]
    assert len(list((tmp_path / "tokens").glob("*.parquet"))) == 4, "the maps of the loose pairs are gone"
    summary = verify_store(store)
    assert (summary.sequences, summary.parts) == (5, 4)


def test_a_bin_is_closed_before_it_is_too_large(tmp_path: Path, encoder: Encoder) -> None:
    parts = write(tmp_path, encoder, "d0", "d1", "d3")
    sizes = [place_of(part).num_bytes for part in parts]
    store = store_of(tmp_path, encoder, parts, sizes[0] + sizes[1])
    assert sorted(path.stat().st_size for path in pairs(store)) == sorted([sizes[0] + sizes[1], sizes[2]])
    assert store.dataset.parts[2] == parts[2], "a part alone in its bin keeps its pair"
    verify_store(store)


def test_megatron_reads_a_bin(tmp_path: Path, encoder: Encoder) -> None:
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    store = store_of(tmp_path, encoder, write(tmp_path, encoder, "d0", "d1", "d3"), 1 << 20)
    theirs = indexed.IndexedDataset(str(pairs(store)[0].with_suffix("")))
    found = [encoder.decode(theirs[i][:-1]) for i in range(len(theirs))]
    assert found == [text for name in ("d0", "d1", "d3") for text in TEXTS[name]]


def test_killed_anywhere_the_same_bytes_come(tmp_path: Path, encoder: Encoder) -> None:
    whole = store_of(tmp_path / "a", encoder, write(tmp_path / "a", encoder, "d0", "d1", "d3"), 1 << 20)
    expected_files = {path.name: path.read_bytes() for path in whole.dataset.folder.iterdir()}
    for lost in [name for name in expected_files if name != "manifest.json"]:
        root = tmp_path / lost
        pack_bin(root / "tokens", write(root, encoder, "d0", "d1", "d3"))
        (root / "tokens" / lost).unlink()
        again = store_of(root, encoder, write(root, encoder, "d0", "d1", "d3"), 1 << 20)
        assert {path.name: path.read_bytes() for path in again.dataset.folder.iterdir()} == expected_files


def test_what_is_published_stays_and_new_parts_go_to_new_bins(tmp_path: Path, encoder: Encoder) -> None:
    first = store_of(tmp_path, encoder, write(tmp_path, encoder, "d0", "d1"), 1 << 20)
    before = {path.name: path.read_bytes() for path in first.dataset.folder.iterdir() if path.name != "manifest.json"}
    store = store_of(tmp_path, encoder, write(tmp_path, encoder, "d3"), 1 << 20)
    after = {path.name: path.read_bytes() for path in store.dataset.folder.iterdir()}
    assert before.items() < after.items() and len(pairs(store)) == 2
    assert texts_of(store, encoder) == expected("d0", "d1", "d3")
    part, _ = documents(tmp_path, "d0")
    assert not len(rows_not_yet_stored(tmp_path / "tokens", part, np.arange(part.rows)))


def test_a_bin_that_loses_a_part_is_made_again_without_its_tokens(tmp_path: Path, encoder: Encoder) -> None:
    parts = write(tmp_path, encoder, "d0", "d1", "d3")
    before = pairs(store_of(tmp_path, encoder, parts, 1 << 20))
    here = {part.of for part in parts if part.facts["part"] != "d1" and part.of}
    store = store_of(tmp_path, encoder, [], 1 << 20, here)
    assert texts_of(store, encoder) == expected("d0", "d3")
    (new,) = {place_of(part).bin for part in store.dataset.parts}
    kept = [encoder.decode(IndexedReader(store.dataset.folder / new)[i][:-1]) for i in range(4)]
    assert kept == TEXTS["d0"] + TEXTS["d3"]
    assert before[0].exists(), "mixtures may still point into it; `gristmill gc` removes it"
    assert verify_store(store).sequences == 4


def test_a_pair_that_is_not_what_its_part_says_is_refused(tmp_path: Path, encoder: Encoder) -> None:
    first, second = write(tmp_path, encoder, "d0", "d1")
    folder = tmp_path / "tokens"
    for suffix in (".bin", ".idx"):
        (folder / f"{first.identity}{suffix}").write_bytes((folder / f"{second.identity}{suffix}").read_bytes())
    with pytest.raises(DatasetError, match="sequences of part"):
        pack_bin(folder, [first, second])
