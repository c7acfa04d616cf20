"""Bins: the pairs of a token store's parts put together into few large ones.

Megatron takes fewer than 32,767 prefixes and a mixture has one for each source and bin, so at 10 TB of text pairs of a
part each (256 MB of text) would be too many. A bin is the tokens of consecutive parts one after the other, and each
part's map says where in it they lie; its name and bytes depend on its parts alone. What a manifest names is never
touched: a bin that loses one of its parts is put together again without it, beside the old one. Every token is read and
written once more: 2 to 4 bytes each, next to nothing beside encoding it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.commit import atomic_path
from storage.errors import DatasetError
from storage.identity import fingerprint, hash_file
from storage.megatron import IndexedReader, bin_path, idx_path, write_index
from storage.parts import Part, commit_table, read_batches
from tokenizer.store import MAP, Place, find_whole_part, place_of

BIN_BYTES = 4 << 30
VERSION = 1
_CHUNK_BYTES = 4 << 20


def plan_bins(
    parts: Sequence[Part], published: Collection[str], *, bin_bytes: int = BIN_BYTES
) -> list[tuple[Part, ...]]:
    """The groups of `parts` that are to become one bin each, in order.

    These are parts that no manifest names yet (`published`: the identities that one does), and what is left of bins
    that lost a part. A part that would be alone in its bin and has a pair of its own stays as it is.
    """
    whole = _whole_bins(parts)
    moving = [part for part in parts if part.rows and not (part.identity in published and place_of(part).bin in whole)]
    groups: list[list[Part]] = []
    size = bin_bytes
    for part in moving:
        if size + place_of(part).num_bytes > bin_bytes:
            groups.append([])
            size = 0
        groups[-1].append(part)
        size += place_of(part).num_bytes
    return [tuple(group) for group in groups if len(group) > 1 or place_of(group[0]).bin not in whole]


def pack_bin(folder: Path, parts: Sequence[Part]) -> list[Part]:
    """Write one bin of these parts, and each part's map into it; what is whole already is returned unread.

    Raises DatasetError when a pair is not what its part says.
    """
    name = fingerprint({"stage": "bin", "version": VERSION, "parts": [part.identity for part in parts]})
    identities = [fingerprint({"bin": name, "part": part.identity}) for part in parts]
    found = [find_whole_part(folder, identity) for identity in identities]
    if all(found):
        return [part for part in found if part]
    prefix = folder / name
    lengths = [_lengths(folder, part) for part in parts]
    dtype = IndexedReader(folder / place_of(parts[0]).bin).dtype
    digest = _write_tokens(prefix, folder, parts)
    _write_index(prefix, np.concatenate(lengths), dtype)
    files = {
        bin_path(prefix).name: {"bytes": bin_path(prefix).stat().st_size, "sha256": digest},
        idx_path(prefix).name: {"bytes": idx_path(prefix).stat().st_size, "sha256": hash_file(idx_path(prefix))},
    }
    return [
        _commit(folder, identity, part, name, files, *start)
        for identity, part, start in zip(identities, parts, _starts(parts), strict=True)
    ]


def remove_loose(folder: Path, packed: Mapping[str, Part], published: Collection[str]) -> None:
    """Remove the pairs, maps and markers of parts that now lie in a bin and that no earlier manifest named."""
    for identity in packed:
        if identity not in published:
            for suffix in (".json", ".idx", ".bin", ".parquet"):
                (folder / f"{identity}{suffix}").unlink(missing_ok=True)


def _whole_bins(parts: Iterable[Part]) -> set[str]:
    """Bins of which every token belongs to one of the parts."""
    sizes: dict[str, int] = {}
    for part in parts:
        if part.rows:
            sizes[place_of(part).bin] = sizes.get(place_of(part).bin, 0) + place_of(part).num_bytes
    files = {name: facts["bytes"] for part in parts for name, facts in part.facts["files"].items()}
    return {name for name, size in sizes.items() if files[f"{name}.bin"] == size}


def _starts(parts: Sequence[Part]) -> Iterator[tuple[int, int]]:
    """(first sequence, first byte) of each part in the bin."""
    sequences = size = 0
    for part in parts:
        yield sequences, size
        sequences, size = sequences + part.rows, size + place_of(part).num_bytes


def _lengths(folder: Path, part: Part) -> np.ndarray:
    """Tokens of each of the part's sequences, from the index of the pair that holds it now."""
    place, reader = place_of(part), IndexedReader(folder / place_of(part).bin)
    lengths = reader.lengths[place.first_sequence : place.first_sequence + part.rows]
    if len(lengths) != part.rows or int(lengths.sum(dtype=np.int64)) != part.facts["tokens"]:
        raise DatasetError(
            f"the stored pair {place.bin} has {len(lengths)} sequences of part {part.identity}, its map {part.rows}",
            at=str(folder),
            hint="remove this token store and run the tokenize stage again",
        )
    return lengths


def _write_tokens(prefix: Path, folder: Path, parts: Sequence[Part]) -> str:
    """Write the `.bin`; returns its SHA-256."""
    digest = hashlib.sha256()
    with atomic_path(bin_path(prefix)) as path, open(path, "wb") as file:
        for part in parts:
            for chunk in _read_tokens(folder, part):
                digest.update(chunk)
                file.write(chunk)
    return digest.hexdigest()


def _read_tokens(folder: Path, part: Part) -> Iterator[bytes]:
    left = place_of(part).num_bytes
    with open(bin_path(folder / place_of(part).bin), "rb") as file:
        file.seek(place_of(part).byte_offset)
        while left:
            chunk = file.read(min(left, _CHUNK_BYTES))
            left -= len(chunk)
            yield chunk


def _write_index(prefix: Path, lengths: np.ndarray, dtype: np.dtype) -> None:
    sizes = lengths.astype(np.int64) * dtype.itemsize
    write_index(
        idx_path(prefix),
        dtype=dtype,
        lengths=lengths,
        pointers=np.cumsum(sizes) - sizes,
        documents=np.arange(len(lengths) + 1),
    )


def _commit(
    folder: Path,
    identity: str,
    part: Part,
    name: str,
    files: Mapping[str, object],
    first_sequence: int,
    first_byte: int,
) -> Part:
    """The part's map and marker, moved to its place in the bin."""
    place = place_of(part)

    def moved(batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        columns["bin"] = pa.array([name] * batch.num_rows, pa.string())
        columns["sequence"] = pc.add(columns["sequence"], first_sequence - place.first_sequence)
        columns["byte_offset"] = pc.add(columns["byte_offset"], first_byte - place.byte_offset)
        return pa.record_batch([columns[field.name] for field in MAP], schema=MAP)

    there = Place(name, first_sequence, first_byte, place.num_bytes)
    facts = {**part.facts, "place": asdict(there), "files": files}
    batches = (moved(batch) for batch in read_batches(folder / part.file))
    return commit_table(folder, identity, batches, schema=MAP, of=part.of, facts=facts, narrow=True)
