"""A mixture folder over Megatron shards that somebody else wrote: new indices, and links to their tokens.

Where the list names no validation data, the last documents of each shard are held out, as Megatron's `split` takes them
from the end, and the others are trained on, but for repeats of those. No token is copied. What the trainer relies on is
checked here: ids within the vocabulary and the end-of-document id at the end of documents, on the documents that are
held out and the first ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mixtures.blends import BlendEntry, name_entries
from storage.commit import write_atomically
from storage.errors import DatasetError
from storage.identity import fingerprint
from storage.megatron import IndexedReader, Int64s, bin_path, idx_path, write_index

BLEND_FILE = "blend.json"
MOST_HELD_OUT = 0.1
"""Of a shard's documents."""
CHECKED_DOCUMENTS = 100

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """What every shard is held against. `heldout`: tokens that are set aside of each; `decode`: ids to text."""

    target: Path
    heldout: int
    vocabulary: Mapping[str, Any]
    decode: Decode


def adopt_blend(
    entries: Sequence[BlendEntry], adoption: Adoption, validation: Sequence[BlendEntry] = ()
) -> dict[str, Any]:
    """Write shards and `blend.json`, which is returned; with `validation` those shards are held out, and no others.

    Raises DatasetError for what cannot be trained on.
    """
    train: list[dict[str, Any]] = []
    heldout = _adopt_validation(validation, adoption)
    for entry, name in zip(entries, name_entries(entries), strict=True):
        reader = _open(entry, adoption, least=1 if validation else 2)
        chosen, held = (_all(reader), _all(reader)[:0]) if validation else _divide(reader, adoption.heldout)
        _check(reader, np.concatenate([chosen[:CHECKED_DOCUMENTS], held]), adoption.vocabulary)
        tokens = _write(adoption.target / "train" / name, reader, chosen)
        if len(held):
            heldout[name] = _hold_out(adoption, name, reader, held)
        weight = tokens if entry.weight is None else entry.weight
        train.append({"weight": float(weight), "prefix": f"train/{name}", "source": name, "tokens": tokens})
    blend = {
        "format_version": 1,
        "mixture": fingerprint({"train": train, "heldout": heldout, "of": [entry.prefix for entry in entries]}),
        "train_tokens": sum(row["tokens"] for row in train),
        "train": train,
        "heldout": heldout,
    }
    write_atomically(adoption.target / BLEND_FILE, (json.dumps(blend, indent=1) + "\n").encode())
    return blend


def _adopt_validation(validation: Sequence[BlendEntry], adoption: Adoption) -> dict[str, dict[str, Any]]:
    heldout = {}
    for entry, name in zip(validation, name_entries(validation), strict=True):
        reader = _open(entry, adoption, least=1)
        _check(reader, _all(reader), adoption.vocabulary)
        heldout[name] = _hold_out(adoption, name, reader, _all(reader))
    return heldout


def _hold_out(adoption: Adoption, name: str, reader: IndexedReader, documents: Int64s) -> dict[str, Any]:
    tokens = _write(adoption.target / "heldout" / name, reader, documents)
    return {"prefixes": [f"heldout/{name}"], "bytes": _bytes(reader, documents, adoption), "tokens": tokens}


def _open(entry: BlendEntry, adoption: Adoption, *, least: int) -> IndexedReader:
    reader = IndexedReader(Path(entry.prefix))
    if reader.dtype.name != adoption.vocabulary["dtype"]:
        raise DatasetError(
            f"the shard holds {reader.dtype.name} ids; those of this tokenizer are {adoption.vocabulary['dtype']}",
            at=entry.prefix,
            hint="name the tokenizer that the shards were made with",
        )
    if len(reader.documents) - 1 < least:
        told = f"the shard holds {len(reader.documents) - 1} documents; " + (
            "one is held out, so it needs two" if least == 2 else "it needs one"
        )
        raise DatasetError(told, at=entry.prefix, hint="remove it from the list, or merge it with another")
    return reader


def _all(reader: IndexedReader) -> Int64s:
    return np.arange(len(reader.documents) - 1)


def _divide(reader: IndexedReader, heldout: int) -> tuple[Int64s, Int64s]:
    """The documents to train on and those to hold out; a document that the index repeats is on one side only."""
    documents = _all(reader)
    first, held = np.split(documents, [_cut(reader, heldout)])
    places = _places(reader)
    chosen = first[~np.isin(places[first], places[held])]
    if not len(chosen):
        raise DatasetError(
            "all documents of the shard are repeats of those that are held out",
            at=str(reader.prefix),
            hint="write the list as JSON, and name the validation data there under `valid`",
        )
    return chosen, held


def _places(reader: IndexedReader) -> Int64s:
    """Where each document begins in the `.bin`, in bytes; -1 for one without sequences."""
    starts, counts = reader.documents[:-1], np.diff(reader.documents)
    return np.where(counts > 0, np.append(reader.pointers, -1)[starts], -1)


def _cut(reader: IndexedReader, heldout: int) -> int:
    """The first held-out document: the fewest last ones with so many tokens, at most a tenth of all, at least one."""
    num_documents = len(reader.documents) - 1
    ends = np.concatenate([[0], np.cumsum(reader.lengths, dtype=np.int64)])[reader.documents]
    first = int(np.searchsorted(ends, ends[-1] - heldout, side="right")) - 1
    return min(num_documents - 1, max(first, num_documents - max(1, int(MOST_HELD_OUT * num_documents))))


def _tokens(reader: IndexedReader, document: int) -> npt.NDArray[Any]:
    first, last = (int(reader.documents[document + i]) for i in (0, 1))
    return np.concatenate([np.empty(0, reader.dtype), *(reader[i] for i in range(first, last))])


def _check(reader: IndexedReader, documents: Int64s, vocabulary: Mapping[str, Any]) -> None:
    """Raises DatasetError for what the trainer would learn nonsense from."""
    for document in documents.tolist():
        tokens = _tokens(reader, document)
        if len(tokens) and int(tokens.max()) >= vocabulary["size"]:
            raise DatasetError(
                f"document {document} holds id {int(tokens.max())}; the tokenizer has {vocabulary['size']} entries",
                at=str(reader.prefix),
                hint="name the tokenizer that the shards were made with",
            )
        if not len(tokens) or int(tokens[-1]) != vocabulary["end_of_document"]:
            raise DatasetError(
                f"document {document} does not end with id {vocabulary['end_of_document']}, the end of a document",
                at=str(reader.prefix),
                hint="name the token that ends documents: `--end-of-document`; shards without one cannot be told apart",
            )


def _write(prefix: Path, reader: IndexedReader, documents: Int64s) -> int:
    """The pair of these documents; how many tokens they have."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    link = bin_path(prefix)
    link.unlink(missing_ok=True)
    os.symlink(os.path.abspath(bin_path(reader.prefix)), link)
    counts = np.diff(reader.documents)[documents]
    before = np.cumsum(counts) - counts
    sequences = np.repeat(reader.documents[documents] - before, counts) + np.arange(counts.sum())
    lengths = reader.lengths[sequences]
    write_index(
        idx_path(prefix),
        dtype=reader.dtype,
        lengths=lengths,
        pointers=reader.pointers[sequences],
        documents=np.append(before, counts.sum()),
    )
    return int(lengths.sum(dtype=np.int64))


def _bytes(reader: IndexedReader, documents: Int64s, adoption: Adoption) -> int:
    """UTF-8 bytes of these documents' text."""
    texts = (adoption.decode(_tokens(reader, i)[:-1].tolist()) for i in documents.tolist())
    return sum(len(text.encode()) for text in texts)
