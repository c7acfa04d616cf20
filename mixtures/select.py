"""The mixture folder: a plan carried out as Megatron indices over the stored tokens, with repeats and no copy.

The index holds exactly what the plan says, or the folder is not published. Each `.idx` lies beside a relative link to
the store's `.bin`; `write_compact_mixture` copies the tokens it takes (each once) for shipping. 20 bytes of index and
about 60 in memory stand for a document, whatever its length; the folder appears whole or not at all, and the same
plan writes the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mixtures.corpus import Corpus, Counts, Mask, Rows
from mixtures.draw import Candidates, claim_groups, is_heldout, number_kinds
from mixtures.host_limits import available_rows
from mixtures.plan import MixturePlan
from mixtures.recipe import Recipe
from storage.checksums import write_checksums
from storage.commit import TEMPORARY_PREFIX, atomic_path, exclusive, sync_folder, write_atomically
from storage.errors import DatasetError, disk_errors
from storage.megatron import IndexedReader, bin_path, idx_path, write_index
from storage.schema import IDENTIFIER

BLEND, VOCABULARY, TOKENIZER = "blend.json", "vocabulary.json", "tokenizer.json"
PLAN, SELECTION = "plan.json", "selection.parquet"
FORMAT_VERSION = 1
SPLITS = ("train", "heldout")
ROWS_PER_GROUP = 1 << 16
"""Of the selection: what is read to look one document up."""
TOO_MANY_PREFIXES = 32_767
"""Megatron numbers the datasets of a blend with 16 bits."""

SELECTION_SCHEMA = pa.schema(
    [
        pa.field("doc_id", IDENTIFIER, nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("repeats", pa.int32(), nullable=False),
        pa.field("prefix", pa.string(), nullable=False),
        pa.field("sequence", pa.int64(), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),
        pa.field("bin", pa.string(), nullable=False),
        pa.field("bin_sequence", pa.int64(), nullable=False),
    ]
)
"""One row a document: `sequence` is its first one in the index `prefix`; `tokens` are those of one repeat. `bin` and
`bin_sequence` are where the token store holds it, and the store's map leads on from there."""


@dataclass(frozen=True)
class Shard:
    """Documents of one source and split that share a `.bin`, in its order; all arrays have a row a document.

    `bins` names the store's prefixes and `bin` the one of each document; `repeats` is how often it is taken.
    """

    source: str
    split: str
    prefix: str
    bins: tuple[str, ...]
    bin: npt.NDArray[np.int32]
    sequence: Counts
    pointer: Counts
    tokens: Counts
    bytes: Counts
    repeats: Counts
    doc_id: pa.Array

    @property
    def tokens_given(self) -> int:
        return int((self.tokens * self.repeats).sum())


PlaceTokens = Callable[[Path, Shard], Counts]
"""Puts a shard's `.bin` under a folder and says where each document lies in it, in bytes."""


def write_mixture(target: Path, plan: MixturePlan, recipe: Recipe, corpus: Corpus, *, vocabulary: Path) -> Path:
    """Write the mixture folder `target` over the store's own tokens; one that is there already is left as it is.

    Raises DatasetError when the corpus is no longer what the plan was made from, or a stored pair is damaged.
    """
    store = corpus.tokens.folder
    shards = _gather(plan, recipe, corpus)
    _check_vocabulary(corpus, vocabulary)

    def link(folder: Path, shard: Shard) -> Counts:
        _link_bin(bin_path(store / shard.bins[0]), bin_path(folder / shard.prefix))
        return shard.pointer

    return _write(target, plan, shards, store, vocabulary, link)


def write_compact_mixture(
    target: Path, plan: MixturePlan, recipe: Recipe, corpus: Corpus, *, vocabulary: Path, shard_tokens: int = 1 << 30
) -> Path:
    """Write a folder that needs no store: each document is copied once, into shards of about `shard_tokens`.

    `SHA256SUMS` in it lists its files, because it is made to be moved. Raises DatasetError while another writes it.
    """
    store = corpus.tokens.folder
    _check_vocabulary(corpus, vocabulary)
    shards = [piece for group in _by_source(_gather(plan, recipe, corpus)) for piece in _recut(group, shard_tokens)]

    def copy(folder: Path, shard: Shard) -> Counts:
        return _copy_tokens(store, folder, shard)

    with exclusive(target):
        return _write(target, plan, shards, store, vocabulary, copy, finish=write_checksums)


def _check_vocabulary(corpus: Corpus, vocabulary: Path) -> None:
    """Raises DatasetError when the store was written with another tokenizer than the one that is to go with its ids."""
    stored = corpus.tokens.manifest.stage.get("vocabulary", {}).get("sha256")
    given = json.loads((vocabulary / VOCABULARY).read_bytes())["sha256"]
    if stored not in (None, given):
        raise DatasetError(
            f"the token store was written with the tokenizer {stored[:12]}…, not with {given[:12]}…",
            at=str(corpus.tokens.folder),
            hint=f"its own is `{vocabulary.parent.name}/{corpus.tokens.folder.name}` of the run",
        )


def _gather(plan: MixturePlan, recipe: Recipe, corpus: Corpus) -> list[Shard]:
    """All that is selected: by split, source and the store's bins. Raises DatasetError when it is not the plan's."""
    if plan.recipe_identity != recipe.identity():
        raise DatasetError(
            f"the plan was made from another recipe than `{recipe.name}` is now", at=recipe.file, hint="plan it again"
        )
    if estimated := sum(source.estimated_documents for source in plan.sources):
        raise DatasetError(
            f"the plan rests on estimates for {estimated} documents, which have no tokens to point to",
            at=str(corpus.tokens.folder),
            hint="run the tokenize stage again: it writes only what is missing",
        )
    pieces: dict[tuple[str, int, str], list[Shard]] = {}
    parts, _ = available_rows(recipe, corpus, placed=True)
    for rows, repeats in zip(parts, _repeats(plan, parts), strict=True):
        for split, often in zip(SPLITS, repeats, strict=True):
            for source, number in _pairs(rows, often > 0):
                chosen = np.flatnonzero((often > 0) & (rows.source == source) & (rows.places.bin == number))
                piece = _piece(rows, chosen, often, plan.sources[source].name, split, number)
                pieces.setdefault((split, source, rows.places.bins[number]), []).append(piece)
    shards = _name(pieces, len(plan.sources))
    _compare(plan, shards, corpus.tokens.folder)
    return shards


def _repeats(plan: MixturePlan, parts: Sequence[Rows]) -> Iterator[tuple[Counts, Counts]]:
    """Of each part how often each document is trained on, and how often it is held out (0 or 1); int64[N] each."""
    thresholds = [source.heldout for source in plan.sources]
    claimed = claim_groups(parts, thresholds)
    kinds, numbers = number_kinds([(rows.source, rows.factor) for rows in parts], len(plan.sources))
    start, end = ([getattr(source, side) for source in plan.sources] for side in ("start", "end"))
    for rows, kind in zip(parts, numbers, strict=True):
        heldout = is_heldout(rows, thresholds, claimed)
        candidates = Candidates(kind, rows.order, rows.tokens)
        times = kinds.times(candidates, end) - kinds.times(candidates, start)
        yield np.where(heldout, 0, times), heldout.astype(np.int64)


def _pairs(rows: Rows, chosen: Mask) -> list[tuple[int, int]]:
    """The sources and bins of the chosen rows."""
    width = len(rows.places.bins)
    codes = np.unique(rows.source[chosen].astype(np.int64) * width + rows.places.bin[chosen])
    return [divmod(code, width) for code in codes.tolist()]


def _piece(rows: Rows, chosen: Counts, repeats: Counts, source: str, split: str, number: int) -> Shard:
    places = rows.places
    return Shard(
        source=source,
        split=split,
        prefix="",
        bins=(places.bins[number],),
        bin=np.zeros(len(chosen), np.int32),
        sequence=places.sequence[chosen],
        pointer=places.pointer[chosen],
        tokens=rows.tokens[chosen].astype(np.int64),
        bytes=rows.bytes[chosen].astype(np.int64),
        repeats=repeats[chosen],
        doc_id=places.doc_id.take(pa.array(chosen)),
    )


def _name(pieces: dict[tuple[str, int, str], list[Shard]], num_sources: int) -> list[Shard]:
    """One shard a split, source and bin, numbered within its source in the order of the store."""
    shards = []
    for split in SPLITS:
        for source in range(num_sources):
            bins = [name for a, b, name in pieces if (a, b) == (split, source)]
            for number, name in enumerate(bins):
                found = pieces[split, source, name]
                shards.append(_join(found, f"{split}/{found[0].source}-{number:04d}"))
    return shards


def _join(pieces: Sequence[Shard], prefix: str) -> Shard:
    """Several pieces as one shard, in their order."""
    bins = tuple(dict.fromkeys(name for piece in pieces for name in piece.bins))
    numbers = [np.array([bins.index(name) for name in piece.bins], np.int32)[piece.bin] for piece in pieces]
    columns = {
        name: np.concatenate([getattr(piece, name) for piece in pieces])
        for name in ("sequence", "pointer", "tokens", "bytes", "repeats")
    }
    doc_id = pa.concat_arrays([piece.doc_id for piece in pieces])
    first = pieces[0]
    return Shard(first.source, first.split, prefix, bins, np.concatenate(numbers), **columns, doc_id=doc_id)


def _compare(plan: MixturePlan, shards: Sequence[Shard], store: Path) -> None:
    for source in plan.sources:
        mine = [shard for shard in shards if shard.source == source.name]
        given, heldout = (sum(s.tokens_given for s in mine if s.split == split) for split in SPLITS)
        if (given, heldout) != (source.tokens_given, source.heldout_tokens):
            raise DatasetError(
                f"the plan gives {source.tokens_given} tokens of `{source.name}`, {source.heldout_tokens} held out; "
                f"the documents now have {given} and {heldout}",
                at=str(store),
                hint="plan again: the corpus has changed since",
            )


def _by_source(shards: Sequence[Shard]) -> Iterator[list[Shard]]:
    groups: dict[tuple[str, str], list[Shard]] = {}
    for shard in shards:
        groups.setdefault((shard.split, shard.source), []).append(shard)
    yield from groups.values()


def _recut(shards: Sequence[Shard], shard_tokens: int) -> Iterator[Shard]:
    """One source's documents in shards of about `shard_tokens` stored tokens, never cutting a document."""
    whole = _join(shards, "")
    starts = np.cumsum(whole.tokens) - whole.tokens
    number = starts // shard_tokens
    for count, value in enumerate(np.unique(number)):
        chosen = np.flatnonzero(number == value)
        columns = {
            name: getattr(whole, name)[chosen] for name in ("bin", "sequence", "pointer", "tokens", "bytes", "repeats")
        }
        prefix = f"{whole.split}/{whole.source}-{count:04d}"
        doc_id = whole.doc_id.take(pa.array(chosen))
        yield Shard(whole.source, whole.split, prefix, whole.bins, **columns, doc_id=doc_id)


def _write(
    target: Path,
    plan: MixturePlan,
    shards: Sequence[Shard],
    store: Path,
    vocabulary: Path,
    place: PlaceTokens,
    finish: Callable[[Path], None] = lambda folder: None,
) -> Path:
    if (target / BLEND).exists():
        return target
    _check_count(shards, target)
    facts = json.loads((vocabulary / VOCABULARY).read_bytes())
    with new_folder(target) as folder:
        for split in SPLITS:
            (folder / split).mkdir()
        with (
            atomic_path(folder / SELECTION) as path,
            pq.ParquetWriter(path, SELECTION_SCHEMA, compression="zstd") as file,
        ):
            for shard in shards:
                _check_stored(store, shard, np.dtype(facts["dtype"]))
                _write_shard(folder, shard, place(folder, shard), np.dtype(facts["dtype"]))
                file.write_table(_selection(shard), row_group_size=ROWS_PER_GROUP)
        for name in (VOCABULARY, TOKENIZER):
            write_atomically(folder / name, (vocabulary / name).read_bytes())
        write_atomically(folder / PLAN, plan.to_json().encode())
        for split in SPLITS:
            sync_folder(folder / split)
        write_atomically(folder / BLEND, (json.dumps(_blend(plan, shards), indent=1) + "\n").encode())
        finish(folder)
    return target


def _check_count(shards: Sequence[Shard], target: Path) -> None:
    """Raises DatasetError for more training prefixes than Megatron's blends can number."""
    count = sum(shard.split == "train" for shard in shards)
    if count >= TOO_MANY_PREFIXES:
        raise DatasetError(
            f"the mixture would have {count:,} training shards; Megatron takes fewer than {TOO_MANY_PREFIXES:,}",
            at=str(target),
            hint="write self-contained shards, which are larger: `gristmill export --format shards`",
        )


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its name when all went well; a second writer's equal folder wins in peace."""
    folder = target.parent / f"{TEMPORARY_PREFIX}{target.name}-{uuid.uuid4().hex[:12]}"
    with disk_errors(target):
        folder.mkdir(parents=True)
        try:
            yield folder
            try:
                folder.rename(target)
            except OSError:
                if not (target / BLEND).exists():
                    raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        sync_folder(target.parent)


def _check_stored(store: Path, shard: Shard, dtype: np.dtype[Any]) -> None:
    """Raises DatasetError when the store's pairs do not hold the shard's documents where the map says."""
    for number, name in enumerate(shard.bins):
        mine = shard.bin == number
        reader = IndexedReader(store / name)
        sequence = shard.sequence[mine]
        lies = (
            reader.dtype == dtype
            and (not len(sequence) or int(sequence.max()) < len(reader))
            and np.array_equal(reader.pointers[sequence], shard.pointer[mine])
            and np.array_equal(reader.lengths[sequence], shard.tokens[mine])
        )
        if not lies:
            raise DatasetError(
                f"the stored pair {name} is not what its map describes ({reader.dtype} ids, {len(reader)} sequences)",
                at=str(store),
                hint="remove this token store and run the tokenize stage again",
            )


def _write_shard(folder: Path, shard: Shard, pointers: Counts, dtype: np.dtype[Any]) -> None:
    """The index: all documents once, then again those that are taken twice, and so on."""
    most = int(shard.repeats.max())
    order = np.concatenate([np.flatnonzero(shard.repeats > done) for done in range(most)])
    write_index(
        idx_path(folder / shard.prefix),
        dtype=dtype,
        lengths=shard.tokens[order],
        pointers=pointers[order],
        documents=np.arange(len(order) + 1),
    )


def _link_bin(stored: Path, link: Path) -> None:
    """A relative link, good under the folder's final name too; where links cannot be made, a hard link or a copy."""
    relative = os.path.relpath(os.path.realpath(stored), os.path.realpath(link.parent))
    try:
        os.symlink(relative, link)
    except OSError:
        try:
            os.link(stored, link)
        except OSError:
            shutil.copyfile(stored, link)


def _copy_tokens(store: Path, folder: Path, shard: Shard) -> Counts:
    readers = [IndexedReader(store / name) for name in shard.bins]
    with atomic_path(bin_path(folder / shard.prefix)) as path, open(path, "wb") as file:
        for number, sequence in zip(shard.bin, shard.sequence, strict=True):
            file.write(readers[number][sequence].tobytes())
    sizes = shard.tokens * readers[0].dtype.itemsize
    return np.cumsum(sizes) - sizes


def _selection(shard: Shard) -> pa.Table:
    count = len(shard.tokens)
    columns = {
        "doc_id": shard.doc_id,
        "source": pa.array([shard.source] * count),
        "split": pa.array([shard.split] * count),
        "repeats": pa.array(shard.repeats.astype(np.int32)),
        "prefix": pa.array([shard.prefix] * count),
        "sequence": pa.array(np.arange(count)),
        "tokens": pa.array(shard.tokens.astype(np.int32)),
        "bin": pa.array(shard.bins, pa.string()).take(pa.array(shard.bin)),
        "bin_sequence": pa.array(shard.sequence),
    }
    return pa.table([columns[name] for name in SELECTION_SCHEMA.names], schema=SELECTION_SCHEMA)


def _blend(plan: MixturePlan, shards: Sequence[Shard]) -> dict[str, Any]:
    train = [
        {
            "weight": float(shard.tokens_given),
            "prefix": shard.prefix,
            "source": shard.source,
            "tokens": shard.tokens_given,
        }
        for shard in shards
        if shard.split == "train"
    ]
    heldout: dict[str, dict[str, Any]] = {}
    for shard in (shard for shard in shards if shard.split == "heldout"):
        entry = heldout.setdefault(shard.source, {"prefixes": [], "bytes": 0, "tokens": 0})
        entry["prefixes"].append(shard.prefix)
        entry["bytes"] += int(shard.bytes.sum())
        entry["tokens"] += shard.tokens_given
    return {
        "format_version": FORMAT_VERSION,
        "mixture": plan.identity(),
        **_stage(plan),
        "seed": plan.seed,
        "sequence_length": plan.sequence_length,
        "train_tokens": plan.tokens_given,
        "train": train,
        "heldout": heldout,
    }


def _stage(plan: MixturePlan) -> dict[str, Any]:
    """For the trainer: which stage this is, and what it goes on from."""
    if plan.stage is None:
        return {}
    after = {"stage": plan.after, "mixture": plan.after_mixture} if plan.after else None
    return {"stage": {"name": plan.stage, "after": after, "learning_rate": plan.learning_rate}}
