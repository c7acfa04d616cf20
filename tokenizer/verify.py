"""Verification of a token store: checksums, counts, ids within the vocabulary, documents closed once.

Everything is read again and nothing that the store says of itself is believed without the bytes; all that is wrong is
said at once. It runs at the speed of SHA-256 and one scan, in windows of 32 MB.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.errors import DatasetError
from storage.identity import hash_file
from storage.manifests import Dataset
from storage.megatron import IndexedReader
from storage.parts import Part, check_part
from tokenizer.store import TokenStore, place_of
from tokenizer.vocabulary import Vocabulary

WINDOW_TOKENS = 1 << 23
SHOWN_FAULTS = 10


@dataclass(frozen=True, kw_only=True)
class StoreSummary:
    """What a verified store holds; `bytes` is the text in UTF-8."""

    parts: int
    sequences: int
    tokens: int
    bytes: int


def verify_store(store: TokenStore) -> StoreSummary:
    """Read a whole store against its maps, markers and vocabulary. Raises DatasetError that lists what is wrong."""
    dataset = store.dataset
    faults = [fault for parts in _by_bin(dataset.parts) for fault in _bin_faults(dataset, parts, store.vocabulary)]
    if faults:
        more = f"; and {len(faults) - SHOWN_FAULTS} more" if len(faults) > SHOWN_FAULTS else ""
        raise DatasetError(
            f"the token store is damaged: {'; '.join(faults[:SHOWN_FAULTS])}{more}",
            at=str(dataset.folder),
            hint="remove the files named and run the tokenize stage again: it writes only what is missing",
        )
    return StoreSummary(
        parts=len(dataset.parts),
        sequences=sum(part.rows for part in dataset.parts),
        tokens=sum(part.facts["tokens"] for part in dataset.parts),
        bytes=sum(part.facts["bytes"] for part in dataset.parts),
    )


def _by_bin(parts: Iterable[Part]) -> Collection[list[Part]]:
    """The parts that share a pair, in order."""
    bins: dict[str, list[Part]] = {}
    for part in parts:
        bins.setdefault(place_of(part).bin, []).append(part)
    return bins.values()


def _bin_faults(dataset: Dataset, parts: list[Part], vocabulary: Vocabulary) -> Iterator[str]:
    damaged = [f"{part.file}: {fault}" for part in parts for fault in _checksum_faults(dataset, part)]
    damaged += _file_faults(dataset.folder, parts)
    yield from damaged
    if damaged or not any(part.rows for part in parts):
        return
    try:
        reader = IndexedReader(dataset.folder / place_of(parts[0]).bin)
    except DatasetError as error:
        yield f"{place_of(parts[0]).bin}: {error.what}"
        return
    if (held := sum(part.rows for part in parts)) != len(reader):
        yield f"{place_of(parts[0]).bin}: {len(reader)} sequences, but its parts have {held}"
        return
    for part in parts:
        yield from _map_faults(dataset, part, reader)
        yield from _token_faults(part, reader, vocabulary)


def _checksum_faults(dataset: Dataset, part: Part) -> Iterator[str]:
    try:
        check_part(dataset.folder, part)
    except DatasetError as error:
        yield error.what


def _file_faults(folder: Path, parts: list[Part]) -> Iterator[str]:
    name = place_of(parts[0]).bin
    expected = [f"{name}.bin", f"{name}.idx"] if any(part.rows for part in parts) else []
    for part in parts:
        if sorted(part.facts["files"]) != expected or part.facts["files"] != parts[0].facts["files"]:
            yield f"{part.identity}: the marker names {sorted(part.facts['files'])}, not {expected}"
    for name, facts in parts[0].facts["files"].items():
        if not (folder / name).exists():
            yield f"{name} is missing"
        elif (digest := hash_file(folder / name)) != facts["sha256"]:
            yield f"{name} has sha256 {digest[:12]}…, the marker says {facts['sha256'][:12]}…"


def _map_faults(dataset: Dataset, part: Part, reader: IndexedReader) -> Iterator[str]:
    table = dataset.read(part, ["bin", "sequence", "byte_offset", "tokens", "bytes", "part", "row"])
    columns = {name: np.asarray(table[name]) for name in ("sequence", "byte_offset", "tokens", "bytes", "row")}
    place = place_of(part)
    mine = slice(place.first_sequence, place.first_sequence + part.rows)
    pairs: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]] = {
        "sequences": (columns["sequence"], np.arange(mine.start, mine.stop)),
        "byte offsets": (columns["byte_offset"], np.asarray(reader.pointers[mine])),
        "token counts": (columns["tokens"], np.asarray(reader.lengths[mine])),
        "documents": (np.arange(mine.start, mine.stop + 1), reader.documents[mine.start : mine.stop + 1]),
    }
    for what, (mapped, indexed) in pairs.items():
        if not np.array_equal(mapped, indexed):
            yield f"{part.identity}: the {what} of the map and of the index differ"
    if set(table["bin"].unique().to_pylist()) != {place.bin}:
        yield f"{part.identity}: the map names other bins"
    if set(table["part"].unique().to_pylist()) != {part.facts["part"]}:
        yield f"{part.identity}: the map names other document parts"
    if np.any(np.diff(columns["row"]) <= 0):
        yield f"{part.identity}: the map's rows are not in order"
    for name in ("tokens", "bytes"):
        total = int(columns[name].sum(dtype=np.int64))
        if total != part.facts[name]:
            yield f"{part.identity}: the map counts {total} {name}, the marker {part.facts[name]}"


def _token_faults(part: Part, reader: IndexedReader, vocabulary: Vocabulary) -> Iterator[str]:
    if np.dtype(reader.dtype).name != vocabulary.dtype:
        yield f"{part.identity}: ids are {np.dtype(reader.dtype).name}, the vocabulary says {vocabulary.dtype}"
        return
    first = place_of(part).first_sequence
    ends = np.cumsum(np.asarray(reader.lengths[first : first + part.rows], np.int64)) - 1
    found = []
    for start, ids in _windows(reader, first, first + part.rows):
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary.size:
            yield f"{part.identity}: ids run from {ids.min()} to {ids.max()}, the vocabulary has {vocabulary.size}"
            return
        found.append(np.flatnonzero(ids == vocabulary.end_of_document) + start)
    if not np.array_equal(np.concatenate(found), ends):
        yield f"{part.identity}: end-of-document ids do not stand at the end of each document, and only there"


def _windows(reader: IndexedReader, first: int, stop: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """The ids of these sequences, in windows of about WINDOW_TOKENS, each with the number of its first id."""
    waiting: list[npt.NDArray[Any]] = []
    start = size = 0
    for sequence in range(first, stop):
        waiting.append(reader[sequence])
        size += len(waiting[-1])
        if size >= WINDOW_TOKENS or sequence == stop - 1:
            yield start, np.concatenate(waiting)
            start, size, waiting = start + size, 0, []
