"""A packed mixture: a copy of a mixture folder whose training sequences are all of one length, documents whole in them.

It needs no store and no run. Each training shard becomes one of the same name, with `<name>.pieces.parquet` beside it,
which says what stands where; documents that are taken equally often share sequences, so repeats stay in the index.
Held-out shards are copied as they are. Peak memory is 60 bytes a document of one shard.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mixtures.packing import Counts, Packing, expected_cuts, pack_documents
from mixtures.select import BLEND, PLAN, SELECTION, TOKENIZER, VOCABULARY, new_folder
from storage.checksums import write_checksums
from storage.commit import atomic_path, exclusive, write_atomically
from storage.errors import DatasetError
from storage.identity import fingerprint
from storage.lineage import pieces_path
from storage.megatron import IndexedReader, bin_path, idx_path, write_index
from storage.shards import distinct_sequences, merge_shards

PIECES_SCHEMA = pa.schema(
    [
        pa.field("sequence", pa.int64(), nullable=False),
        pa.field("offset", pa.int32(), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),
        pa.field("document", pa.int64(), nullable=False),
        pa.field("first", pa.int64(), nullable=False),
    ]
)
"""One row a piece, in order: `tokens` tokens of `document` from its token `first` on stand in `sequence` from `offset`
on. `document` counts the distinct documents of the shard, as the selection's rows of its prefix do."""


@dataclass(frozen=True, kw_only=True)
class PackingReport:
    """What packing did to a shard or a mixture; documents are counted once, however often they are taken.

    `cut` documents are in several sequences, `cut_unpacked` would be if they were concatenated and cut.
    """

    documents: int
    tokens: int
    sequences: int
    padding: int
    cut: int
    cut_unpacked: int

    def __add__(self, other: PackingReport) -> PackingReport:
        return PackingReport(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def pack_mixture(target: Path, mixture: Path, length: int | None = None) -> PackingReport:
    """Write `target`; `length` is that of a sequence in tokens, by default the mixture's own.

    Raises DatasetError for a folder that is no mixture, is packed already, or holds shards that are damaged.
    """
    blend = _read_blend(mixture, target)
    length = length or blend.get("sequence_length")
    if not length or length < 2:
        raise DatasetError(
            f"sequences of {length} tokens cannot be packed", at=str(mixture), hint="say how long: `--sequence-length`"
        )
    end = json.loads((mixture / VOCABULARY).read_bytes())["end_of_document"]
    train, reports, starts = [], [], {}
    with exclusive(target), new_folder(target) as folder:
        for entry in blend["train"]:
            report, starts[entry["prefix"]] = _pack_shard(folder, mixture, entry["prefix"], length, end)
            held = IndexedReader(folder / entry["prefix"]).num_tokens
            train.append({**entry, "tokens": held})
            reports.append(report)
        for prefix in (prefix for entry in blend["heldout"].values() for prefix in entry["prefixes"]):
            merge_shards(folder / prefix, [mixture / prefix])
        _write_selection(folder, mixture, starts)
        for name in (VOCABULARY, TOKENIZER, PLAN):
            if (mixture / name).exists():
                shutil.copyfile(mixture / name, folder / name)
        total = sum(reports[1:], start=reports[0])
        packed = {
            **blend,
            "mixture": fingerprint({"of": blend["mixture"], "packed": length}),
            "sequence_length": length,
            "train": train,
            "train_tokens": sum(entry["tokens"] for entry in train),
            "packing": {"method": "best-fit", "sequence_length": length, **vars(total)},
        }
        write_atomically(folder / BLEND, (json.dumps(packed, indent=1) + "\n").encode())
        write_checksums(folder)
    return total


def _read_blend(mixture: Path, target: Path) -> dict[str, Any]:
    if not (mixture / BLEND).exists():
        raise DatasetError(
            f"there is no mixture here: `{BLEND}` is missing", at=str(mixture), hint="name RUN/mixtures/ID"
        )
    if target.exists():
        raise DatasetError("there is something here already", at=str(target), hint="name a new folder")
    blend: dict[str, Any] = json.loads((mixture / BLEND).read_bytes())
    if "packing" in blend:
        raise DatasetError("this mixture is packed already", at=str(mixture), hint="pack the one that it was made from")
    return blend


def _pack_shard(folder: Path, mixture: Path, prefix: str, length: int, end: int) -> tuple[PackingReport, Counts]:
    """Write one shard and its pieces; returns its report, and the first sequence of each distinct document."""
    reader = IndexedReader(mixture / prefix)
    sequences, repeats = distinct_sequences(reader)
    lengths = reader.lengths[sequences].astype(np.int64)
    packing, often = _pack_alike(lengths, repeats, length)
    (folder / prefix).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(bin_path(folder / prefix)) as path, open(path, "wb") as file:
        for chunk in _filled(reader, sequences, packing, end):
            file.write(chunk)
    order = np.concatenate([np.flatnonzero(often > done) for done in range(int(often.max(initial=1)))])
    write_index(
        idx_path(folder / prefix),
        dtype=reader.dtype,
        lengths=np.full(len(order), length),
        pointers=order * (length * reader.itemsize),
        documents=np.arange(len(order) + 1),
    )
    _write_pieces(folder / prefix, packing)
    starts = np.zeros(len(sequences), np.int64)
    starts[packing.document[packing.first == 0]] = packing.sequence[packing.first == 0]
    return PackingReport(
        documents=len(sequences),
        tokens=int(lengths.sum()),
        sequences=packing.num_sequences,
        padding=packing.padding,
        cut=packing.cut_documents,
        cut_unpacked=expected_cuts(lengths, length),
    ), starts


def _pack_alike(lengths: Counts, repeats: Counts, length: int) -> tuple[Packing, Counts]:
    """Documents that are taken equally often packed together; and how often each sequence is taken."""
    packings, often, before = [], [np.empty(0, np.int64)], 0
    for times in np.unique(repeats)[::-1]:
        chosen = np.flatnonzero(repeats == times)
        part = pack_documents(lengths[chosen], length)
        packings.append((part.sequence + before, part.offset, chosen[part.document], part.first, part.tokens))
        often.append(np.full(part.num_sequences, times))
        before += part.num_sequences
    columns = [np.concatenate(column) for column in zip(*packings, strict=True)] or [np.empty(0, np.int64)] * 5
    return Packing(length, *columns), np.concatenate(often)


def _filled(reader: IndexedReader, sequences: Counts, packing: Packing, end: int) -> Iterator[bytes]:
    """The bytes of the packed sequences, one after the other; the rest of each is end-of-document ids."""
    padding = np.full(packing.length, end, reader.dtype)
    filled = 0
    rows = zip(sequences[packing.document].tolist(), packing.first.tolist(), packing.tokens.tolist(), strict=True)
    last = np.append(np.diff(packing.sequence) > 0, True)
    for (document, first, tokens), closes in zip(rows, last.tolist(), strict=True):
        yield reader.read(document, first, tokens).tobytes()
        filled += tokens
        if closes:
            yield padding[filled:].tobytes()
            filled = 0


def _write_pieces(prefix: Path, packing: Packing) -> None:
    columns = [getattr(packing, field.name).astype(field.type.to_pandas_dtype()) for field in PIECES_SCHEMA]
    table = pa.table(columns, schema=PIECES_SCHEMA)
    with atomic_path(pieces_path(prefix)) as path:
        pq.write_table(table, path, compression="zstd")


def _write_selection(folder: Path, mixture: Path, starts: Mapping[str, Counts]) -> None:
    """The mixture's selection, with the packed sequence in which each document begins."""
    if not (mixture / SELECTION).exists():
        return
    with pq.ParquetFile(mixture / SELECTION) as file, atomic_path(folder / SELECTION) as path:
        taken = dict.fromkeys(starts, 0)
        with pq.ParquetWriter(path, file.schema_arrow, compression="zstd") as written:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group)
                prefix = pc.first(rows["prefix"]).as_py()
                if prefix in starts:
                    first = taken[prefix]
                    taken[prefix] += rows.num_rows
                    at = rows.schema.get_field_index("sequence")
                    rows = rows.set_column(at, rows.schema.field(at), [starts[prefix][first : taken[prefix]]])
                written.write_table(rows)
