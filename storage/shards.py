"""Work on whole shards (`.bin`/`.idx` pairs): check them, join them, cut them, and read them as Arrow batches.

Joining and cutting copy what the index says, so the result stands alone even where an index points into another pair's
`.bin` or repeats documents; for a pair as Megatron's tools write it the result is theirs, byte for byte
(`IndexedDatasetBuilder.add_index`). Checking reads each stored byte once, however often the index points to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.commit import atomic_path, exclusive
from storage.errors import DatasetError
from storage.megatron import IndexedReader, bin_path, idx_path, write_index

WINDOW_TOKENS = 1 << 23
BATCH_TOKENS = 1 << 22
_SHOWN = 5

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ShardSummary:
    """What a checked shard holds. `tokens` counts repeats, `distinct_tokens` does not; `highest_id` is -1 for none."""

    dtype: str
    sequences: int
    documents: int
    tokens: int
    distinct_tokens: int
    highest_id: int


def check_shard(prefix: Path, *, size: int | None = None, end_of_document: int | None = None) -> ShardSummary:
    """Read a pair whole. `size` is that of the vocabulary, `end_of_document` the id that each document must end with.

    Raises DatasetError for what is truncated, points outside, or holds ids of another vocabulary.
    """
    reader = IndexedReader(prefix)
    ranges = _ranges(reader)
    highest = _highest(reader, ranges)
    faults = []
    if size is not None and highest >= size:
        faults.append(f"it holds id {highest}, the vocabulary has {size} entries")
    if end_of_document is not None and (open_ones := _open_documents(reader, end_of_document)):
        shown = ", ".join(map(str, open_ones[:_SHOWN]))
        faults.append(f"{len(open_ones)} documents do not end with id {end_of_document}: {shown}")
    if faults:
        raise DatasetError(
            f"this shard is not of this vocabulary: {'; '.join(faults)}",
            at=str(prefix),
            hint="name the tokenizer that it was made with",
        )
    return ShardSummary(
        dtype=reader.dtype.name,
        sequences=len(reader),
        documents=len(reader.documents) - 1,
        tokens=reader.num_tokens,
        distinct_tokens=int((ranges[:, 1] - ranges[:, 0]).sum()),
        highest_id=highest,
    )


def merge_shards(target: Path, prefixes: Sequence[Path]) -> IndexedReader:
    """Join shards in their order to one; the result, opened. Raises DatasetError when they do not fit together."""
    readers = [IndexedReader(prefix) for prefix in prefixes]
    kinds = {reader.dtype.name for reader in readers}
    if len(kinds) != 1:
        told = ", ".join(f"{prefix.name} {reader.dtype.name}" for prefix, reader in zip(prefixes, readers, strict=True))
        raise DatasetError(
            f"shards of different kinds of ids cannot be joined: {told}" if kinds else "there are no shards to join",
            at=str(target),
            hint="join shards of one tokenizer",
        )
    _write(target, [(reader, 0, len(reader.documents) - 1) for reader in readers])
    return IndexedReader(target)


def split_shard(target: Path, prefix: Path, tokens: int) -> list[Path]:
    """Cut a shard into `target`-0000 and so on of about `tokens` each, never inside a document. Raises DatasetError."""
    reader = IndexedReader(prefix)
    if tokens < 1:
        raise DatasetError(f"a piece of {tokens} tokens holds nothing", at=str(target), hint="give 1 or more")
    before = np.concatenate([[0], np.cumsum(reader.lengths, dtype=np.int64)])[reader.documents[:-1]]
    number = before // tokens
    starts = np.concatenate([[0], np.flatnonzero(np.diff(number)) + 1, [len(number)]]).astype(np.int64)
    pieces = [(int(a), int(b)) for a, b in zip(starts, starts[1:], strict=False)]
    written = [target.with_name(f"{target.name}-{i:04d}") for i in range(len(pieces))]
    for path, (first, stop) in zip(written, pieces, strict=True):
        _write(path, [(reader, first, stop)])
    return written


def read_batches(reader: IndexedReader) -> Iterator[pa.RecordBatch]:
    """The shard as Arrow: `sequence` int64, `document` int64 and `tokens` (a list of ids), about 4 M ids a batch."""
    document = np.repeat(np.arange(len(reader.documents) - 1), np.diff(reader.documents))
    starts = np.cumsum(reader.lengths, dtype=np.int64) - reader.lengths
    cuts = np.flatnonzero(np.diff(starts // BATCH_TOKENS)) + 1
    for rows in np.split(np.arange(len(reader)), cuts):
        offsets = np.concatenate([[0], np.cumsum(reader.lengths[rows], dtype=np.int64)])
        ids = pa.array(_gather(reader, rows))
        tokens = pa.LargeListArray.from_arrays(pa.array(offsets), ids)
        yield pa.record_batch({"sequence": pa.array(rows), "document": pa.array(document[rows]), "tokens": tokens})


def distinct_sequences(reader: IndexedReader) -> tuple[Ints, Ints]:
    """Sequences with tokens, each the first of all that point to the same ones, in order; and how many those are."""
    filled = np.flatnonzero(reader.lengths > 0)
    order = filled[np.lexsort((filled, reader.lengths[filled], reader.pointers[filled]))]
    differs = (np.diff(reader.pointers[order]) != 0) | (np.diff(reader.lengths[order]) != 0)
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(order)), np.bool_), differs]))
    counts = np.diff(np.append(starts, len(order)))
    by_place = np.argsort(order[starts])
    return order[starts][by_place], counts[by_place]


def _gather(reader: IndexedReader, sequences: Ints) -> npt.NDArray[Any]:
    return np.concatenate([np.empty(0, reader.dtype), *(reader[i] for i in sequences.tolist())])


def _write(target: Path, pieces: Sequence[tuple[IndexedReader, int, int]]) -> None:
    """Documents `first` to `stop` - 1 of each reader as one pair, the `.idx` last."""
    with exclusive(target):
        with atomic_path(bin_path(target)) as path, open(path, "wb") as file:
            for reader, first, stop in pieces:
                for chunk in _bytes_of(reader, int(reader.documents[first]), int(reader.documents[stop])):
                    file.write(chunk)
        lengths = np.concatenate([r.lengths[r.documents[first] : r.documents[stop]] for r, first, stop in pieces])
        sizes = lengths.astype(np.int64) * pieces[0][0].itemsize
        write_index(
            idx_path(target),
            dtype=pieces[0][0].dtype,
            lengths=lengths,
            pointers=np.cumsum(sizes) - sizes,
            documents=np.concatenate([[0], *_document_ends(pieces)]),
        )


def _document_ends(pieces: Sequence[tuple[IndexedReader, int, int]]) -> Iterator[Ints]:
    """The document list without its leading 0, shifted by the sequences before."""
    before = 0
    for reader, first, stop in pieces:
        begin = int(reader.documents[first])
        yield reader.documents[first + 1 : stop + 1] - begin + before
        before += int(reader.documents[stop]) - begin


def _bytes_of(reader: IndexedReader, begin: int, end: int) -> Iterator[memoryview]:
    """The bytes of sequences `begin` to `end` - 1: those that lie one after the other in the `.bin` at once."""
    sizes = reader.lengths[begin:end].astype(np.int64) * reader.itemsize
    pointers = reader.pointers[begin:end]
    breaks = np.flatnonzero(pointers[1:] != pointers[:-1] + sizes[:-1]) + 1
    for start, stop in zip([0, *breaks], [*breaks, len(sizes)], strict=True):
        if stop > start:
            yield reader.bytes_at(int(pointers[start]), int(sizes[start:stop].sum()))


def _ranges(reader: IndexedReader) -> Ints:
    """int64[R, 2]: what the index points to, as (first, stop) tokens of the `.bin`, each stored token once."""
    if np.any(reader.pointers % reader.itemsize):
        wrong = int(np.argmax(reader.pointers % reader.itemsize > 0))
        raise DatasetError(
            f"sequence {wrong} lies at byte {int(reader.pointers[wrong])}, inside an id of {reader.itemsize} bytes",
            at=str(idx_path(reader.prefix)),
            hint="make this pair again: the two files do not belong together",
        )
    order = np.argsort(reader.pointers, kind="stable")
    starts = reader.pointers[order] // reader.itemsize
    stops = np.maximum.accumulate(starts + reader.lengths[order])
    fresh = np.concatenate([[True], starts[1:] > stops[:-1]]) if len(starts) else np.empty(0, np.bool_)
    last = np.concatenate([fresh[1:], [True]]) if len(starts) else fresh
    return np.stack([starts[fresh], stops[last]], axis=1)


def _highest(reader: IndexedReader, ranges: Ints) -> int:
    highest = -1
    for first, stop in ranges.tolist():
        for start in range(first, stop, WINDOW_TOKENS):
            highest = max(highest, int(reader.stored[start : min(stop, start + WINDOW_TOKENS)].max()))
    return highest


def _open_documents(reader: IndexedReader, end_of_document: int) -> list[int]:
    """Documents with tokens that do not end with that id."""
    filled = np.flatnonzero(reader.lengths > 0)
    document = np.searchsorted(reader.documents, filled, side="right") - 1
    last = filled[np.concatenate([np.diff(document) > 0, [True]])] if len(filled) else filled
    ends = reader.stored[reader.pointers[last] // reader.itemsize + reader.lengths[last] - 1]
    found: list[int] = (np.searchsorted(reader.documents, last[ends != end_of_document], side="right") - 1).tolist()
    return found
