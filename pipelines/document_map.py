"""The document map: from a token of a shard back to its document, its verdict and the record that it was read from.

A shard is a prefix of a token store, of a run's mixture, or of one that was exported from a run. Only single rows are
read on the way (of the selection, the store's map, the documents and the verdicts), so it takes the same half second
in a run of any size; the shard's own index is read whole, 20 bytes a document.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.run_folder import RunFolder, find_step
from storage.errors import DatasetError, InputError
from storage.lineage import SELECTION, find_selected, find_stored, pair_of, pieces_path, rows_of_shard
from storage.manifests import MANIFEST, find_manifest, open_dataset
from storage.megatron import IndexedReader, prefix_of
from storage.parts import Part
from storage.schema import IDENTIFIER
from tokenizer.encode import Encoder
from tokenizer.vocabulary import VOCABULARY_FILE, TokenizerFile, read_vocabulary

BLEND, PLAN = "blend.json", "plan.json"
WINDOW_TOKENS = 40
LEVELS = 3
"""How many folders above a shard its own is looked for: MIXTURE/train/PREFIX."""
COLUMNS = ["doc_id", "title", "source", "url", "record", "collected_at", "licence"]


@dataclass(frozen=True)
class Shard:
    """An opened prefix, and the folder of the mixture or token store that it belongs to."""

    home: Path
    name: str
    reader: IndexedReader

    @property
    def is_mixture(self) -> bool:
        return (self.home / SELECTION).exists()

    @property
    def run(self) -> RunFolder | None:
        """The run that the folder stands in, if it stands in one."""
        return run_around(self.home)


@dataclass(frozen=True)
class Token:
    """A token of a shard: number `offset` in the index's order, number `token` of the sequence `sequence`."""

    sequence: int
    token: int
    offset: int


def open_shard(path: Path) -> Shard:
    """Raises DatasetError where no shard is, or one of which nothing is known but its tokens."""
    prefix = prefix_of(path).absolute()
    if found := find_shard(prefix):
        return found
    look = f"`gristmill shards inspect {prefix}` shows its text"
    if any((home / BLEND).exists() for home in prefix.parents[:LEVELS]):
        raise DatasetError(
            "this shard was adopted from others: no map leads back from it to documents", at=str(prefix), hint=look
        )
    raise DatasetError(
        "this shard is of no run: it stands in no mixture and in no token store",
        at=str(prefix),
        hint=f"name one of RUN/mixtures/ID/train or RUN/tokens/ID; {look}",
    )


def find_shard(prefix: Path) -> Shard | None:
    """The shard in its mixture or token store; None where it stands in none that has a map."""
    reader = IndexedReader(prefix)
    for home in prefix.absolute().parents[:LEVELS]:
        if (home / SELECTION).exists() or _is_store(home):
            return Shard(home, prefix.absolute().relative_to(home).as_posix(), reader)
    return None


def _is_store(folder: Path) -> bool:
    manifest = find_manifest(folder)
    return manifest is not None and manifest.kind == "tokens"


def run_around(home: Path) -> RunFolder | None:
    """The run of which a folder is a mixture or a token store."""
    found = RunFolder(home.parent.parent)
    inside = home.parent in (found.root / "mixtures", found.root / "tokens")
    return found if inside and (found.documents / MANIFEST).exists() else None


def find_tokenizer(home: Path) -> TokenizerFile | None:
    """The tokenizer of a mixture or token store: beside its shards, or in its run."""
    if (home / VOCABULARY_FILE).exists():
        return read_vocabulary(home)
    run = run_around(home)
    return read_vocabulary(run.vocabulary(home.name)) if run and _is_store(home) else None


def find_token(shard: Shard, offset: int, by: str = "token") -> Token:
    """The token at `offset`, counted by `token`, by `byte` of the `.bin`, or by `sequence` (its first token).

    Raises InputError for an offset outside the shard.
    """
    reader = shard.reader
    try:
        if by == "sequence":
            if not 0 <= offset < len(reader):
                raise IndexError(f"sequence {offset} of {len(reader)}")
            return Token(offset, 0, reader.start_of(offset))
        sequence, token = reader.find_byte(offset) if by == "byte" else reader.find_token(offset)
    except IndexError as error:
        raise InputError(
            f"there is no such place in this shard: {error}",
            at=str(reader.prefix),
            hint=f"it has {len(reader):,} sequences and {reader.num_tokens:,} tokens, counted from 0",
        ) from error
    return Token(sequence, token, reader.start_of(sequence) + token)


def tell_place(shard: Shard, token: Token, run: RunFolder | None = None) -> dict[str, Any]:
    """What is known of a token, as JSON: `shard`, `token`, `text`, `mixture`, `stored`, `document`, `verdict`.

    `run` is where a mixture that stands in no run came from; without one, `document` is what the selection says.
    """
    folder, tokenizer = shard.run or run, find_tokenizer(shard.home)
    told = {
        "shard": str(shard.reader.prefix),
        "token": _describe(shard, token),
        "text": _text(shard, token, tokenizer),
    }
    if not shard.is_mixture:
        return {**told, **_traced(shard, folder, find_stored(open_dataset(shard.home), shard.name, token.sequence))}
    selected = find_selected(shard.home, shard.name, shard.reader, token.sequence, token.token)
    if selected is None:
        return {**told, "document": None}
    taken = {**{name: selected[name] for name in ("source", "split", "repeats")}, "pass": _pass(shard, token)}
    stored = _stored(selected, folder, tokenizer)
    known = _traced(shard, folder, stored) if stored else {"document": {"doc_id": selected["doc_id"].hex()}}
    return {**told, "mixture": taken, **known}


def _traced(shard: Shard, run: RunFolder | None, stored: dict[str, Any]) -> dict[str, Any]:
    """The way on from the store's map: `stored`, and in a run `document` and `verdict`."""
    place = {name: stored[name] for name in ("bin", "sequence", "byte_offset", "tokens", "part", "row")}
    known = _document(run, stored, _policy(shard, run)) if run else {"document": {"doc_id": stored["doc_id"].hex()}}
    return {"stored": place, **known}


def _describe(shard: Shard, token: Token) -> dict[str, int]:
    reader = shard.reader
    pointer = int(reader.pointers[token.sequence])
    return {
        "offset": token.offset,
        "sequence": token.sequence,
        "in_sequence": token.token,
        "of": int(reader.lengths[token.sequence]),
        "byte": pointer + token.token * reader.itemsize,
        "id": int(reader.read(token.sequence, token.token, 1)[0]),
    }


def _pass(shard: Shard, token: Token) -> int:
    """How often the document has begun up to here."""
    pointers = shard.reader.pointers[: token.sequence + 1]
    return int(np.count_nonzero(pointers == pointers[-1]))


def _stored(selected: dict[str, Any], run: RunFolder | None, tokenizer: TokenizerFile | None) -> dict[str, Any] | None:
    """The store's map row of a selected document; None without its run."""
    if run is None or tokenizer is None or "bin" not in selected:
        return None
    store = run.tokens(tokenizer.vocabulary.tokenizer_hash)
    return find_stored(open_dataset(store), selected["bin"], selected["bin_sequence"])


def _document(run: RunFolder, stored: dict[str, Any], policy: str | None) -> dict[str, Any]:
    documents = open_dataset(run.documents)
    part = next((part for part in documents.parts if part.identity == stored["part"]), None)
    values = documents.row(part, stored["row"], COLUMNS) if part else {}
    if part is None or values["doc_id"] != stored["doc_id"]:
        raise DatasetError(
            f"the run does not hold the documents part {stored['part']} any more, from which this was tokenized",
            at=str(documents.folder),
            hint="documents were removed or rewritten since: `gristmill run` makes store and mixture again",
        )
    found = {"document": {**_readable(values), "part": part.file, "row": stored["row"]}}
    return {**found, "verdict": _verdict(run, policy, part, stored["row"])} if policy else found


def _policy(shard: Shard, run: RunFolder) -> str | None:
    """The policy that the mixture was planned with; of a token store, the one that the run was judged by last."""
    if shard.is_mixture:
        return str(json.loads((shard.home / PLAN).read_bytes())["policy_identity"])
    record = find_step(run, "judge")
    return str(record.result["policy"]) if record else None


def _verdict(run: RunFolder, policy: str, documents: Part, row: int) -> dict[str, Any]:
    folder = run.decisions(policy) / "verdicts"
    if not (folder / MANIFEST).exists():
        return {"policy": policy}
    verdicts = open_dataset(folder)
    part = next((part for part in verdicts.parts if part.of == documents.sha256), None)
    return {"policy": policy, **(_readable(verdicts.row(part, row)) if part else {})}


def _text(shard: Shard, token: Token, tokenizer: TokenizerFile | None) -> dict[str, str]:
    """The text around the token, as `before`, `here` and `after`."""
    if tokenizer is None:
        return {}
    ids = shard.reader[token.sequence]
    decode = Encoder(tokenizer, fast=False).decode
    here, after = token.token, min(len(ids), token.token + 1 + WINDOW_TOKENS)
    cuts = (ids[max(0, here - WINDOW_TOKENS) : here], ids[here : here + 1], ids[here + 1 : after])
    return dict(zip(("before", "here", "after"), map(decode, cuts), strict=True))


def doc_ids_of(shard: Shard) -> pa.Array:
    """binary(16)[sequences]: the document of each sequence, null where a packed one holds several."""
    if pieces_path(shard.reader.prefix).exists():
        return pa.nulls(len(shard.reader), IDENTIFIER)
    if not shard.is_mixture:
        store = open_dataset(shard.home)
        mine = [part for part in store.parts if part.rows and pair_of(part)[0] == shard.name]
        return pa.concat_arrays([chunk for part in mine for chunk in store.read(part, ["doc_id"])["doc_id"].chunks])
    start, count = rows_of_shard(shard.home, shard.name)
    listed = pq.read_table(shard.home / SELECTION, columns=["doc_id"])["doc_id"].slice(start, count).combine_chunks()
    order = np.argsort(shard.reader.pointers[:count])
    found = np.searchsorted(shard.reader.pointers[:count], shard.reader.pointers, sorter=order)
    return listed.take(pa.array(order[found]))


def offsets_of(reader: IndexedReader, sequence: int) -> list[int]:
    """Where a sequence and its repeats begin, as token offsets in the index's order."""
    same: npt.NDArray[np.int64] = np.flatnonzero(reader.pointers == reader.pointers[sequence])
    starts = np.cumsum(reader.lengths, dtype=np.int64) - reader.lengths
    found: list[int] = starts[same].tolist()
    return found


def _readable(values: dict[str, Any]) -> dict[str, Any]:
    """Identifiers as hex digits, times as text."""
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in values.items()}
