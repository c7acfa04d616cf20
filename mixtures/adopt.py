"""A mixture folder over Megatron shards that somebody else wrote: new indices, and links to their tokens.

Of each shard the last documents are held out, as Megatron's `split` takes its validation documents from the end; the
others are trained on. No token is copied. What the trainer relies on is checked here: ids within the vocabulary and the
end-of-document id at the end of documents, on the documents that are held out and the first ones.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mixtures.blends import BlendEntry
from storage.commit import write_atomically
from storage.errors import DatasetError
from storage.identity import fingerprint
from storage.megatron import IndexedReader, bin_path, idx_path, write_index

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


def adopt_blend(entries: Sequence[BlendEntry], adoption: Adoption) -> dict[str, Any]:
    """Write shards and `blend.json`, which is returned; raises DatasetError for what cannot be trained on."""
    train: list[dict[str, Any]] = []
    heldout: dict[str, dict[str, Any]] = {}
    for entry, name in zip(entries, _names(entries), strict=True):
        reader = _open(entry, adoption)
        cut = _cut(reader, adoption.heldout)
        _check(entry, reader, cut, adoption.vocabulary)
        tokens = _write(adoption.target / "train" / name, reader, 0, cut)
        kept = _write(adoption.target / "heldout" / name, reader, cut, len(reader.documents) - 1)
        weight = tokens if entry.weight is None else entry.weight
        train.append({"weight": float(weight), "prefix": f"train/{name}", "source": name, "tokens": tokens})
        heldout[name] = {"prefixes": [f"heldout/{name}"], "bytes": _bytes(reader, cut, adoption), "tokens": kept}
    blend = {
        "format_version": 1,
        "mixture": fingerprint({"train": train, "heldout": heldout, "of": [entry.prefix for entry in entries]}),
        "train_tokens": sum(row["tokens"] for row in train),
        "train": train,
        "heldout": heldout,
    }
    write_atomically(adoption.target / BLEND_FILE, (json.dumps(blend, indent=1) + "\n").encode())
    return blend


def _names(entries: Sequence[BlendEntry]) -> list[str]:
    """One name an entry; those that are alike are numbered."""
    counts, seen = Counter(entry.name for entry in entries), Counter[str]()
    names = []
    for entry in entries:
        seen[entry.name] += 1
        names.append(entry.name if counts[entry.name] == 1 else f"{entry.name}-{seen[entry.name]}")
    return names


def _open(entry: BlendEntry, adoption: Adoption) -> IndexedReader:
    reader = IndexedReader(Path(entry.prefix))
    if reader.dtype.name != adoption.vocabulary["dtype"]:
        raise DatasetError(
            f"the shard holds {reader.dtype.name} ids; those of this tokenizer are {adoption.vocabulary['dtype']}",
            at=entry.prefix,
            hint="name the tokenizer that the shards were made with",
        )
    if len(reader.documents) < 3:
        told = f"the shard holds {len(reader.documents) - 1} documents; one is held out, so it needs two"
        raise DatasetError(told, at=entry.prefix, hint="remove it from the list, or merge it with another")
    return reader


def _cut(reader: IndexedReader, heldout: int) -> int:
    """The first held-out document: the fewest last ones with so many tokens, at most a tenth of all, at least one."""
    num_documents = len(reader.documents) - 1
    ends = np.concatenate([[0], np.cumsum(reader.lengths, dtype=np.int64)])[reader.documents]
    first = int(np.searchsorted(ends, ends[-1] - heldout, side="right")) - 1
    return min(num_documents - 1, max(first, num_documents - max(1, int(MOST_HELD_OUT * num_documents))))


def _tokens(reader: IndexedReader, document: int) -> npt.NDArray[Any]:
    first, last = (int(reader.documents[document + i]) for i in (0, 1))
    return np.concatenate([np.empty(0, reader.dtype), *(reader[i] for i in range(first, last))])


def _check(entry: BlendEntry, reader: IndexedReader, cut: int, vocabulary: Mapping[str, Any]) -> None:
    checked = [*range(min(cut, CHECKED_DOCUMENTS)), *range(cut, len(reader.documents) - 1)]
    for document in checked:
        tokens = _tokens(reader, document)
        if len(tokens) and int(tokens.max()) >= vocabulary["size"]:
            raise DatasetError(
                f"document {document} holds id {int(tokens.max())}; the tokenizer has {vocabulary['size']} entries",
                at=entry.prefix,
                hint="name the tokenizer that the shards were made with",
            )
        if not len(tokens) or int(tokens[-1]) != vocabulary["end_of_document"]:
            raise DatasetError(
                f"document {document} does not end with id {vocabulary['end_of_document']}, the end of a document",
                at=entry.prefix,
                hint="name the token that ends documents: `--end-of-document`; shards without one cannot be told apart",
            )


def _write(prefix: Path, reader: IndexedReader, first: int, last: int) -> int:
    """The pair of documents first to last - 1; how many tokens they have."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    begin, end = int(reader.documents[first]), int(reader.documents[last])
    lengths, documents = reader.lengths[begin:end], reader.documents[first : last + 1] - begin
    link = bin_path(prefix)
    link.unlink(missing_ok=True)
    os.symlink(os.path.abspath(bin_path(reader.prefix)), link)
    pointers = reader.pointers[begin:end]
    write_index(idx_path(prefix), dtype=reader.dtype, lengths=lengths, pointers=pointers, documents=documents)
    return int(lengths.sum(dtype=np.int64))


def _bytes(reader: IndexedReader, cut: int, adoption: Adoption) -> int:
    """UTF-8 bytes of the held-out documents' text."""
    documents = (_tokens(reader, i)[:-1].tolist() for i in range(cut, len(reader.documents) - 1))
    return sum(len(adoption.decode(tokens).encode()) for tokens in documents)
