"""The corpus that a recipe draws on: catalogue, decisions and token store, joined a part at a time.

A document is available when the policy kept it, a source takes it, and it has tokens in the store. A kept document
that is not in the store is an error, never a silent loss. To plan, a row is 29 bytes and no text, and a core reads and
joins 5 million a second; parts are read by several threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mixtures.conditions import (
    NOBODY,
    Conditions,
    Factors,
    Floats,
    Numbers,
    Taken,
    bind_sources,
    evaluate_sources,
    with_decisions,
)
from mixtures.ensemble import Ensemble
from mixtures.hosts import open_catalogue
from mixtures.recipe import Recipe
from mixtures.sql import database
from mixtures.withheld import without_withheld
from storage.errors import DatasetError
from storage.identity import hash_bytes
from storage.manifests import Dataset, open_dataset
from storage.parts import Part
from storage.schema import IDENTIFIER

Keys = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
Sizes = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
Piece = TypeVar("Piece")
Result = TypeVar("Result")

MOST_THREADS = 8

DECIDED = ["doc_id", "verdict", "cluster_id", "cluster_size"]
COUNTED = pa.schema([("row", pa.int64()), ("tokens", pa.int32()), ("bytes", pa.int32())])
_PLACED = pa.schema(
    [*COUNTED, ("doc_id", IDENTIFIER), ("bin", pa.string()), ("sequence", pa.int64()), ("byte_offset", pa.int64())]
)
"""What is read of the store's map to plan, and to point into it."""


@dataclass(frozen=True)
class Places:
    """Where the tokens of rows lie: `sequence`, `pointer` int64[N], `bin` int32[N] numbers the store's prefixes in
    `bins`; `doc_id` binary(16)[N]."""

    sequence: Counts
    pointer: Counts
    bin: Numbers
    bins: tuple[str, ...]
    doc_id: pa.Array

    def take(self, chosen: Mask) -> Places:
        """Those of the chosen rows."""
        return Places(
            self.sequence[chosen],
            self.pointer[chosen],
            self.bin[chosen],
            self.bins,
            self.doc_id.filter(pa.array(chosen)),
        )


NOWHERE = Places(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int32), (), pa.nulls(0, IDENTIFIER))
"""What was not asked for."""


@dataclass(frozen=True)
class Rows:
    """Available documents of one part, in store order: what planning needs.

    `source` int32[N]; `order` uint64[N] (the place in an epoch), `cluster` uint64[N] (the place in the draw of held-out
    sets, one for a group of duplicates); `grouped` bool[N]: there are others in its group; `tokens`, `bytes` int32[N].
    Where the recipe asks: `factor` int32[N] in hundredths, `host` uint64[N] (0: none) and `spread` uint64[N] (the place
    among the host's documents). `places` are read where the mixture is written.
    """

    source: Numbers
    order: Keys
    cluster: Keys
    grouped: Mask
    tokens: Sizes
    bytes: Sizes
    factor: Factors | None = None
    host: Keys | None = None
    spread: Keys | None = None
    estimated: bool = False
    places: Places = NOWHERE

    def __len__(self) -> int:
        return len(self.source)

    def take(self, chosen: Mask) -> Rows:
        """The chosen rows, in their order."""
        columns = {name: getattr(self, name) for name in _COLUMNS}
        taken: dict[str, Any] = {name: None if column is None else column[chosen] for name, column in columns.items()}
        return replace(self, **taken, places=self.places if self.places is NOWHERE else self.places.take(chosen))


_COLUMNS = ("source", "order", "cluster", "grouped", "tokens", "bytes", "factor", "host", "spread")


@dataclass(frozen=True)
class Corpus:
    """A catalogue, one policy's decisions on it, and a token store; `notes` say where they are not what a run has."""

    catalogue: Dataset
    verdicts: Dataset
    tokens: Dataset
    notes: tuple[str, ...] = ()
    _bound: dict[str, Conditions] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def schema(self) -> pa.Schema:
        if not self.catalogue.parts:
            raise DatasetError(
                "the catalogue is empty", at=str(self.catalogue.folder), hint="give inputs with documents"
            )
        return self.catalogue.schema(self.catalogue.parts[0])

    def bind(self, recipe: Recipe) -> Conditions:
        """The recipe's conditions on this corpus. Raises SqlError."""
        identity = recipe.identity()
        if identity not in self._bound:
            self._bound[identity] = bind_sources(recipe, self.schema, ensemble_of(self.verdicts))
        return self._bound[identity]

    def pairs(self) -> list[tuple[Part, Part]]:
        """Each catalogue part and that of its verdicts. Raises DatasetError when they do not belong together."""
        judged = {part.facts["catalogue"]: part for part in self.verdicts.parts}
        for part in self.catalogue.parts:
            if part.sha256 not in judged:
                raise DatasetError(
                    f"catalogue part {part.identity} was not judged with its present measurements",
                    at=str(self.verdicts.folder),
                    hint="run the judge stage again",
                )
        return [(part, judged[part.sha256]) for part in self.catalogue.parts]

    def judged(self, columns: list[str] | None = None) -> Iterator[tuple[Part, pa.Table, pa.Table]]:
        """Each catalogue part, its rows and their verdicts. Raises DatasetError when they do not belong together."""
        for part, verdicts in self.pairs():
            yield part, self.catalogue.read(part, columns), self.verdicts.read(verdicts)

    def rows(self, recipe: Recipe, *, placed: bool = False) -> list[Rows]:
        """The documents available to a recipe, an item or two a catalogue part; with their places if asked."""
        conditions = self.bind(recipe)
        stored = self.stored_parts()

        def read(pair: tuple[Part, Part]) -> list[Rows]:
            return self.rows_of(recipe, conditions, *pair, stored.get(pair[0].of or "", []), placed=placed)

        return [rows for several in over_parts(read, self.pairs()) for rows in several]

    def matching(self, recipe: Recipe) -> Iterator[tuple[pa.Table, pa.Table, pa.Array]]:
        """Each part's catalogue rows and verdicts, and whether a source takes the row, whatever the policy said."""
        conditions = replace(self.bind(recipe), factor=None, order=None)
        for _, catalogue, verdicts in self.judged():
            taken = evaluate_sources(recipe, conditions, with_decisions(catalogue, verdicts), kept_only=False)
            yield catalogue, verdicts, pa.array(taken.source != NOBODY)

    def rows_of(
        self, recipe: Recipe, conditions: Conditions, part: Part, verdicts: Part, stored: list[Part], *, placed: bool
    ) -> list[Rows]:
        """What a recipe takes of one part."""
        decided = self.verdicts.read_paths(verdicts, DECIDED)
        catalogue = with_decisions(self.catalogue.read_paths(part, conditions.paths), decided)
        taken = evaluate_sources(recipe, conditions, catalogue.combine_chunks(), kept_only=True)
        taken = without_withheld(recipe, taken, decided["doc_id"])
        return [self.join(part, stored, decided, taken, recipe.seed, placed=placed)]

    def join(self, part: Part, stored: list[Part], decided: pa.Table, taken: Taken, seed: int, *, placed: bool) -> Rows:
        """The rows of a part that a source takes, and where they are stored. Raises DatasetError if one is not."""
        maps, empty = self.stored(stored, _PLACED if placed else COUNTED)
        row = np.asarray(maps["row"], np.int64)
        self._check_stored(part, taken.source, row, empty)
        used = np.flatnonzero(taken.source[row] != NOBODY)
        at_row = row[used]
        return Rows(
            source=taken.source[at_row],
            order=order_keys(decided["doc_id"], taken.order, seed)[at_row],
            cluster=draw_keys(decided["cluster_id"], "heldout", seed)[at_row],
            grouped=(np.asarray(decided["cluster_size"]) > 1)[at_row],
            tokens=np.asarray(maps["tokens"], np.int32)[used],
            bytes=np.asarray(maps["bytes"], np.int32)[used],
            factor=None if taken.factor is None else taken.factor[at_row],
            host=None if taken.host is None else hash_hosts(taken.host.take(pa.array(at_row))),
            spread=None if taken.host is None else draw_keys(decided["doc_id"], "hosts", seed)[at_row],
            places=self._places(part, maps.take(used), decided["doc_id"].take(at_row)) if placed else NOWHERE,
        )

    def _places(self, part: Part, maps: pa.Table, doc_id: pa.ChunkedArray) -> Places:
        if not doc_id.equals(maps["doc_id"]):
            raise DatasetError(
                f"the token store's rows of part {part.facts['part']} are other documents",
                at=str(self.tokens.folder),
                hint="remove this token store and run the tokenize stage again",
            )
        prefixes = maps["bin"].unify_dictionaries().combine_chunks().dictionary_encode()
        return Places(
            sequence=np.asarray(maps["sequence"], np.int64),
            pointer=np.asarray(maps["byte_offset"], np.int64),
            bin=np.asarray(prefixes.indices, np.int32),
            bins=tuple(prefixes.dictionary.to_pylist()),
            doc_id=maps["doc_id"].combine_chunks(),
        )

    def stored_parts(self) -> dict[str, list[Part]]:
        """The store's parts by the checksum of the documents part that they are of."""
        found: dict[str, list[Part]] = {}
        for part in self.tokens.parts:
            found.setdefault(part.of or "", []).append(part)
        return found

    def stored(self, parts: Iterable[Part], schema: pa.Schema) -> tuple[pa.Table, Counts]:
        """The store's map of one documents part, each row once, and the rows that turned out to hold no token."""
        tables, empty = [], [np.empty(0, np.int64)]
        for part in parts:
            empty.append(np.asarray(part.facts.get("empty_rows", []), np.int64))
            if part.rows:
                tables.append(self.tokens.read_paths(part, schema.names))
        if not tables:
            return schema.empty_table(), np.concatenate(empty)
        return _each_row_once(pa.concat_tables(tables)), np.concatenate(empty)

    def _check_stored(self, part: Part, taken: Numbers, row: Counts, empty: Counts) -> None:
        wanted = taken != NOBODY
        wanted[row] = False
        wanted[empty] = False
        if missing := int(wanted.sum()):
            raise DatasetError(
                f"{missing} documents of part {part.facts['part']} are in the recipe, but not in the token store",
                at=str(self.tokens.folder),
                hint="run the tokenize stage again: it writes only what is missing",
            )


def _each_row_once(table: pa.Table) -> pa.Table:
    row = np.asarray(table["row"])
    if np.all(row[1:] > row[:-1]):
        return table
    _, first = np.unique(row, return_index=True)
    return table if len(first) == len(row) else table.take(np.sort(first))


def open_corpus(catalogue: Path, decisions: Path, tokens: Path) -> Corpus:
    """Open the three datasets; `decisions` is the folder of one policy. Raises DatasetError."""
    return Corpus(open_catalogue(catalogue), open_dataset(decisions / "verdicts"), open_dataset(tokens))


def ensemble_of(verdicts: Dataset) -> Ensemble | None:
    """The ensemble of the policy that these verdicts are of."""
    found: Ensemble | None = verdicts.manifest.stage["policy"].get("ensemble")
    return found


def over_parts(work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> list[Result]:
    """What `work` gives of every piece, in their order, by several threads."""
    database()
    with ThreadPoolExecutor(num_threads()) as threads:
        return list(threads.map(work, pieces))


def num_threads() -> int:
    """As many as Arrow may use, which `OMP_NUM_THREADS` says, too; each holds a part in memory."""
    return min(int(pa.cpu_count()), MOST_THREADS)


def hash_hosts(hosts: pa.Array) -> Keys:
    """uint64[N]: one number a host, on any machine; 0 where there is none."""
    encoded = hosts.dictionary_encode()
    numbers = [int.from_bytes(hash_bytes(name.encode())[:8], "little") or 1 for name in encoded.dictionary.to_pylist()]
    return np.array([*numbers, 0], np.uint64)[np.asarray(encoded.indices.fill_null(len(numbers)), np.int64)]


def draw_keys(identifiers: pa.ChunkedArray, purpose: str, seed: int) -> Keys:
    """uint64[N]: where each identifier comes in the draw of this purpose and seed; uniform, the same on any machine.

    Two rounds of SplitMix64's finalizer over the identifier's halves: 220 million a second a core; DuckDB's md5 does 2.
    """
    flat = identifiers.combine_chunks()
    data = flat.buffers()[1]
    if not len(flat) or data is None:
        return np.empty(0, np.uint64)
    halves = np.frombuffer(data, "<u8", 2 * len(flat), 16 * flat.offset).reshape(-1, 2)
    start = np.frombuffer(hash_bytes(purpose.encode(), str(seed).encode())[:8], "<u8")
    return _mix(halves[:, 0] + _mix(halves[:, 1] + start))


def order_keys(identifiers: pa.ChunkedArray, order: Floats | None, seed: int) -> Keys:
    """uint64[N]: the place in an epoch: by hash, or by `order` (rounded to float32) and then by hash."""
    drawn = draw_keys(identifiers, "train", seed)
    if order is None:
        return drawn
    with np.errstate(over="ignore"):
        bits = (order.astype(np.float32) + np.float32(0)).view(np.uint32)
    rising = np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    ordered = rising << np.uint64(32) | drawn >> np.uint64(32)
    return np.where(np.isnan(order), drawn, ordered)


def _mix(x: Keys) -> Keys:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
