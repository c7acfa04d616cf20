"""Token stores: every admitted document tokenized once, as Megatron pairs with a map back to the documents.

A store part holds some rows of one documents part: `<identity>.bin` and `.idx`, the map `<identity>.parquet`, and a
marker, written last and in this order, so that a killed write is simply done again; `tokenizer.bins` then puts pairs
together. Each document is one sequence closed by the end-of-document id; a text without tokens has none. A wider policy
adds a supplementary part with the rows not stored yet and leaves the others as they are: what is in a store depends on
the policies it has served, the bytes of each part on its rows alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storage.errors import DatasetError, ModelError
from storage.identity import fingerprint, hash_bytes, hash_file
from storage.manifests import Dataset, Manifest, find_manifest, open_dataset, write_manifest
from storage.megatron import IndexedReader, IndexedWriter, bin_path, idx_path
from storage.parts import Part, commit_table, find_part
from storage.schema import IDENTIFIER
from tokenizer.encode import Encoder, TokenBatch
from tokenizer.middle import AS_IT_IS, Orders, rearrange, restore
from tokenizer.vocabulary import Vocabulary, vocabulary_of

STAGE = "tokenize"
VERSION = 1
ORPHAN_SECONDS = 600.0
"""How long a worker of a run that was killed is waited for, if it still writes the same part."""
MAP = pa.schema(
    [
        pa.field("bin", pa.string(), nullable=False),
        pa.field("sequence", pa.int64(), nullable=False),
        pa.field("byte_offset", pa.int64(), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),
        pa.field("bytes", pa.int32(), nullable=False),
        pa.field("doc_id", IDENTIFIER, nullable=False),
        pa.field("part", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
    ]
)
"""One row a sequence, in the order of the `.idx`. `byte_offset` points into the `.bin`, `tokens` counts the
end-of-document id, `bytes` is the text in UTF-8, `part` and `row` are those of the document."""

Rows = npt.NDArray[np.int64]


def write_store_part(
    folder: Path,
    encoder: Encoder,
    *,
    documents: Part,
    batches: Iterable[pa.RecordBatch],
    admitted: Rows,
    orders: Orders | None = None,
) -> Part:
    """Tokenize the `admitted` rows of one documents part; a store part that is whole already is returned unread.

    `batches` are all rows of `documents` in order, with the columns `doc_id` and `text`; `admitted` is int64, strictly
    increasing. `orders` (uint8, one an admitted row) says how documents are rearranged (`tokenizer.middle`).
    Part facts: `part`, `tokens`, `bytes`, `empty_rows`, `files` (size and sha256; none without tokens), and `place`
    where a larger bin holds it.
    Raises DatasetError when a row is not in the part, ModelError when an id is outside the vocabulary.
    """
    _check_rows(documents, admitted)
    orders = np.zeros(len(admitted), np.uint8) if orders is None else orders
    identity = _identity(encoder.vocabulary, documents, admitted, orders)
    if (existing := find_whole_part(folder, identity)) is not None:
        return existing
    prefix = folder / identity
    empty: list[int] = []
    maps = _write_pair(prefix, encoder, _select(batches, documents, admitted, orders), documents.identity, empty)
    table = pa.Table.from_batches(maps, schema=MAP)
    files = [bin_path(prefix), idx_path(prefix)] if table.num_rows else []
    return commit_table(
        folder,
        identity,
        table,
        schema=MAP,
        of=documents.sha256,
        facts={
            "part": documents.identity,
            "tokens": int(pc.sum(table["tokens"]).as_py() or 0),
            "bytes": int(pc.sum(table["bytes"]).as_py() or 0),
            "empty_rows": empty,
            "files": {file.name: {"bytes": file.stat().st_size, "sha256": hash_file(file)} for file in files},
        },
        narrow=True,
    )


@dataclass(frozen=True)
class Place:
    """Where a part lies in the pair `bin`: from sequence `first_sequence`, and `num_bytes` from `byte_offset` on."""

    bin: str
    first_sequence: int
    byte_offset: int
    num_bytes: int


def place_of(part: Part) -> Place:
    """A part that was not put into a larger bin has a pair of its own, named as it is."""
    if "place" in part.facts:
        return Place(**part.facts["place"])
    own = part.facts["files"].get(f"{part.identity}.bin", {"bytes": 0})
    return Place(part.identity, 0, 0, own["bytes"])


def rows_not_yet_stored(folder: Path, documents: Part, admitted: Rows) -> Rows:
    """Those of the `admitted` rows that no part of the store's manifest holds (nor found to be without tokens).

    Raises DatasetError when the store was written from other bytes under the same identity.
    """
    manifest = find_manifest(folder)
    if manifest is None:
        return admitted
    store = Dataset(folder, manifest)
    stored = [np.empty(0, np.int64)]
    for part in store.parts:
        if part.facts["part"] != documents.identity:
            continue
        if part.of != documents.sha256:
            raise DatasetError(
                f"the store's part {part.identity} was written from other bytes than part {documents.identity} has",
                at=str(folder),
                hint="remove this token store and run the tokenize stage again",
            )
        stored.append(np.asarray(store.read(part, ["row"])["row"]))
        stored.append(np.asarray(part.facts["empty_rows"], np.int64))
    return np.setdiff1d(admitted, np.concatenate(stored), assume_unique=True)


def list_store_parts(folder: Path, parts: Iterable[Part], documents: Collection[str] | None = None) -> list[Part]:
    """What the store is to hold: the parts of its manifest, then the new ones of `parts`, each once.

    `documents` are checksums: store parts of other documents parts (ones that were since replaced) are left out.
    """
    earlier = find_manifest(folder)
    every = (*(earlier.parts if earlier else ()), *parts)
    return list({part.identity: part for part in every if documents is None or part.of in documents}.values())


def publish_store(
    folder: Path,
    vocabulary: Vocabulary,
    parts: Iterable[Part],
    *,
    documents: Collection[str] | None = None,
    packed: Mapping[str, Part] = MappingProxyType({}),
) -> Manifest:
    """Write the store's manifest: its earlier parts, then the new ones (`list_store_parts`).

    `packed` are parts that stand now in a bin, by the identities that they had before.
    """
    earlier = find_manifest(folder)
    listed = [packed.get(part.identity, part) for part in list_store_parts(folder, parts, documents)]
    described = {"name": STAGE, "version": VERSION, "vocabulary": vocabulary.facts()}
    if earlier is not None and dict(earlier.stage) != described:
        raise ModelError(
            "the token store here was written with another tokenizer",
            at=str(folder),
            hint="give each tokenizer a folder of its own, named by its `tokenizer_hash`",
        )
    manifest = Manifest(
        kind="tokens",
        identity=fingerprint({"stage": described, "parts": [part.identity for part in listed]}),
        stage=described,
        parts=tuple(listed),
        facts={name: sum(part.facts[name] for part in listed) for name in ("tokens", "bytes")},
    )
    write_manifest(folder, manifest)
    return manifest


@dataclass(frozen=True)
class Location:
    """Where a document's tokens lie: sequence `sequence` of the pair `bin`, `tokens` of them from `byte_offset`."""

    bin: str
    sequence: int
    byte_offset: int
    tokens: int


@dataclass(frozen=True)
class TokenStore:
    """A published token store, opened to read."""

    dataset: Dataset
    vocabulary: Vocabulary

    def find(self, doc_id: bytes, documents: str | None = None) -> Location | None:
        """The first place that holds the document, or None. Reads the maps' columns, a part at a time.

        `documents` is the identity of the documents part that it is in, if that is known: no other map is read then.
        """
        columns = [*Location.__dataclass_fields__, "doc_id"]
        for part in (part for part in self.dataset.parts if documents in (None, part.facts["part"])):
            table = self.dataset.read(part, columns)
            hits = table.filter(pc.equal(table["doc_id"], pa.scalar(doc_id, IDENTIFIER)))
            if hits.num_rows:
                row = hits.drop_columns(["doc_id"]).slice(0, 1).to_pylist()[0]
                return Location(**row)
        return None

    def tokens(self, location: Location) -> npt.NDArray[Any]:
        """The document's ids with the closing end-of-document id, int[tokens]."""
        return np.asarray(IndexedReader(self.dataset.folder / location.bin)[location.sequence])

    def decode(self, location: Location, encoder: Encoder) -> str:
        """The document's text, without the end-of-document id and in its own order."""
        return encoder.decode(restore(self.tokens(location)[:-1], self.vocabulary.fill_in_middle))


def open_store(folder: Path) -> TokenStore:
    """Raises DatasetError when no readable store is here."""
    dataset = open_dataset(folder)
    try:
        return TokenStore(dataset, vocabulary_of(dataset.manifest.stage["vocabulary"]))
    except (KeyError, TypeError) as error:
        raise DatasetError(
            f"this dataset holds {dataset.manifest.kind}, not tokens", at=str(folder), hint="name a token store"
        ) from error


def _check_rows(documents: Part, admitted: Rows) -> None:
    if admitted.dtype != np.int64 or np.any(np.diff(admitted) <= 0):
        raise ValueError("admitted rows must be int64 and strictly increasing")
    if len(admitted) and not 0 <= admitted[0] <= admitted[-1] < documents.rows:
        raise DatasetError(
            f"row {admitted[-1] if admitted[0] >= 0 else admitted[0]} was admitted, but part {documents.identity} has "
            f"{documents.rows} rows",
            at=documents.file,
            hint="judge these documents again: the decisions belong to others",
        )


def _identity(vocabulary: Vocabulary, documents: Part, admitted: Rows, orders: Orders) -> str:
    rearranged = {"orders": hash_bytes(orders.tobytes())} if np.any(orders != AS_IT_IS) else {}
    return fingerprint(
        {
            **rearranged,
            "stage": STAGE,
            "version": VERSION,
            "tokenizer": vocabulary.tokenizer_hash,
            "part": documents.identity,
            "rows": hash_bytes(admitted.astype("<i8").tobytes()),
        }
    )


def find_whole_part(folder: Path, identity: str) -> Part | None:
    """The committed part; one whose pair was removed or cut loses its marker and counts as never written."""
    part = find_part(folder, identity)
    if part is None:
        return None
    for name, facts in part.facts["files"].items():
        file = folder / name
        if not file.exists() or file.stat().st_size != facts["bytes"]:
            (folder / f"{identity}.json").unlink()
            return None
    return part


def _select(
    batches: Iterable[pa.RecordBatch], documents: Part, admitted: Rows, orders: Orders
) -> Iterator[tuple[Rows, Orders, pa.RecordBatch]]:
    """The admitted rows of each batch, with their numbers in the part and their orders.

    Raises DatasetError when batches fall short.
    """
    start = 0
    for batch in batches:
        stop = start + batch.num_rows
        here = slice(*np.searchsorted(admitted, (start, stop)).tolist())
        rows = admitted[here]
        if len(rows):
            chosen = batch.select(["doc_id", "text"])
            yield rows, orders[here], chosen if len(rows) == batch.num_rows else chosen.take(pa.array(rows - start))
        start = stop
    if start != documents.rows:
        raise DatasetError(
            f"part {documents.identity} gave {start} rows, its marker says {documents.rows}",
            at=documents.file,
            hint="run the stage that writes the documents again",
        )


def _write_pair(
    prefix: Path, encoder: Encoder, selected: Iterable[tuple[Rows, Orders, pa.RecordBatch]], part: str, empty: list[int]
) -> list[pa.RecordBatch]:
    """Write `.bin` and `.idx` and return the map; rows without tokens are added to `empty`. No token, no pair."""
    vocabulary = encoder.vocabulary
    itemsize = np.dtype(vocabulary.dtype).itemsize
    maps: list[pa.RecordBatch] = []
    sequences = tokens = 0
    with ExitStack() as opened:
        writer: IndexedWriter | None = None
        for rows, orders, batch in selected:
            encoded = _rearranged(encoder.encode(batch.column("text")), batch, orders, vocabulary)
            has_tokens = np.diff(encoded.offsets) > 0
            empty.extend(rows[~has_tokens].tolist())
            if not len(encoded.ids):
                continue
            _check_ids(encoded.ids, vocabulary)
            closed = close_documents(encoded, vocabulary.end_of_document, vocabulary.dtype)
            lengths = np.diff(closed.offsets)
            writer = writer or opened.enter_context(
                IndexedWriter(prefix, vocabulary.dtype, wait_seconds=ORPHAN_SECONDS)
            )
            writer.add_documents(closed.ids, lengths)
            kept = _facts(batch).filter(pa.array(has_tokens))
            offsets = (tokens + closed.offsets[:-1]) * itemsize
            maps.append(_map_rows(prefix.name, part, kept, rows[has_tokens], sequences, offsets, lengths))
            sequences, tokens = sequences + kept.num_rows, tokens + len(closed.ids)
    return maps


def _rearranged(encoded: TokenBatch, batch: pa.RecordBatch, orders: Orders, vocabulary: Vocabulary) -> TokenBatch:
    if vocabulary.fill_in_middle is None or not np.any(orders != AS_IT_IS):
        return encoded
    doc_ids = batch.column("doc_id").to_pylist()
    return TokenBatch(*rearrange(encoded.ids, encoded.offsets, doc_ids, orders, vocabulary.fill_in_middle))


def _facts(batch: pa.RecordBatch) -> pa.RecordBatch:
    """What the map says of documents, without their texts: `doc_id` and `bytes`."""
    return pa.record_batch({"doc_id": batch.column("doc_id"), "bytes": pc.binary_length(batch.column("text"))})


def _map_rows(
    bin: str, part: str, documents: pa.RecordBatch, rows: Rows, first: int, byte_offsets: Rows, lengths: Rows
) -> pa.RecordBatch:
    """MAP rows of the sequences from `first` on, one a document."""
    return pa.record_batch(
        [
            pa.repeat(pa.scalar(bin, pa.string()), len(rows)),
            pa.array(np.arange(first, first + len(rows))),
            pa.array(byte_offsets),
            pa.array(lengths.astype(np.int32)),
            documents.column("bytes"),
            documents.column("doc_id"),
            pa.repeat(pa.scalar(part, pa.string()), len(rows)),
            pa.array(rows),
        ],
        schema=MAP,
    )


def close_documents(batch: TokenBatch, end_of_document: int, dtype: npt.DTypeLike = np.uint32) -> TokenBatch:
    """The same texts, those without tokens left out and every other one followed by the end-of-document id.

    Ids are of `dtype`, which must hold them.
    """
    lengths = np.diff(batch.offsets)
    offsets = np.zeros(int(np.count_nonzero(lengths)) + 1, np.int64)
    np.cumsum(lengths[lengths > 0] + 1, out=offsets[1:])
    ids = np.full(offsets[-1], end_of_document, dtype)
    inside = np.ones(len(ids), bool)
    inside[offsets[1:] - 1] = False
    ids[inside] = batch.ids
    return TokenBatch(ids, offsets)


def _check_ids(ids: npt.NDArray[np.uint32], vocabulary: Vocabulary) -> None:
    if int(ids.max()) >= vocabulary.size:
        raise ModelError(
            f"the tokenizer gave the id {ids.max()}, its vocabulary has {vocabulary.size} entries",
            hint="the tokenizer.json and its vocabulary.json do not belong together; load the tokenizer again",
        )
