"""The corpus that a recipe draws on: catalogue, decisions and token store, joined a part at a time.

A document is available when the policy kept it, a source takes it, and it has tokens in the store. A kept document
that is not in the store is an error, never a silent loss. Per row 25 bytes are needed to plan, and no text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mixtures.binding import TABLE, Binder, gather_faults
from mixtures.ensemble import Ensemble, with_ensemble
from mixtures.hosts import open_catalogue
from mixtures.names import names_of
from mixtures.recipe import Recipe
from mixtures.sql import open_engine, reason
from storage.errors import DatasetError, SqlError
from storage.identity import hash_bytes
from storage.manifests import Dataset, open_dataset
from storage.parts import Part
from storage.schema import IDENTIFIER

DECISION_NAMES = ("cluster_size",)
"""What recipes may use beside the catalogue's names."""

Keys = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Conditions:
    """A recipe's sources tied to a catalogue: one SQL expression that gives the number of the source, or null."""

    sql: str
    bindings: dict[str, str]

    @property
    def columns(self) -> list[str]:
        """The catalogue columns that the conditions read, and one in any case."""
        read = {path.partition(".")[0] for path in self.bindings.values()}
        return sorted(read - set(DECISION_NAMES)) or ["source"]


def bind_sources(recipe: Recipe, schema: pa.Schema, ensemble: Ensemble | None = None) -> Conditions:
    """Check the recipe's conditions against the catalogue's columns and its policy's ensemble.

    Raises SqlError with all faults.
    """
    whens: list[str] = []
    faults: list[SqlError] = []
    table = with_decisions(schema.empty_table(), None)
    with open_engine(**{TABLE: table}) as engine:
        names = with_ensemble(names_of(table.schema, DECISION_NAMES), schema, ensemble, {})
        binder = Binder(engine, names)
        for i, source in enumerate(recipe.sources):
            try:
                whens.append(f"WHEN {binder.condition(source.where, recipe.at('sources', i, 'where'))[0]} THEN {i}")
            except SqlError as error:
                faults.append(error)
    if faults:
        raise gather_faults(faults, recipe.file)
    return Conditions(f"CASE {' '.join(whens)} END", dict(sorted(binder.bindings.items())))


def assign_sources(recipe: Recipe, catalogue: pa.Table, verdicts: pa.Table) -> pa.Array:
    """int32[rows]: number of the source that takes each row, null where none does or the policy dropped it."""
    conditions = bind_sources(recipe, catalogue.schema)
    return evaluate_sources(recipe, conditions, with_decisions(catalogue, verdicts), kept_only=True)


def evaluate_sources(recipe: Recipe, conditions: Conditions, table: pa.Table, *, kept_only: bool) -> pa.Array:
    """int32[rows]: the number of the source that takes each row. Raises SqlError where a condition fails on a value."""
    kept = "verdict = 'kept'" if kept_only else "true"
    numbered = table.append_column("_row", pa.array(np.arange(table.num_rows)))
    with open_engine(**{TABLE: numbered}) as engine:
        try:
            found = engine.query(
                f"SELECT CAST(CASE WHEN {kept} THEN {conditions.sql} END AS INTEGER) AS source "
                f"FROM {TABLE} ORDER BY _row"
            )
        except duckdb.Error as error:
            raise SqlError(
                f"a source's condition cannot be computed: {reason(error)}",
                at=recipe.at("sources"),
                hint="compare what is certainly of the right type",
            ) from error
    return found["source"].combine_chunks()


def ensemble_of(verdicts: Dataset) -> Ensemble | None:
    """The ensemble of the policy that these verdicts are of."""
    found: Ensemble | None = verdicts.manifest.stage["policy"].get("ensemble")
    return found


def with_decisions(catalogue: pa.Table, verdicts: pa.Table | None) -> pa.Table:
    """The catalogue's rows with what recipes may ask of their verdicts; nulls where there are none."""
    for name, kind in (("verdict", pa.string()), ("cluster_size", pa.int32())):
        column = pa.nulls(catalogue.num_rows, kind) if verdicts is None else verdicts[name]
        catalogue = catalogue.append_column(name, column)
    return catalogue


@dataclass(frozen=True)
class Rows:
    """Available documents of one part, in store order: what planning needs, and where their tokens lie.

    `source` int32[N]; `order` uint64[N] (the place in a partial epoch), `cluster` uint64[N] (the place in the draw of
    held-out sets, one for a group of duplicates); `grouped` bool[N]: there are others in its group; `tokens`, `bytes`,
    `sequence`, `pointer` int64[N]; `doc_id` binary(16)[N]; `bin` int32[N] numbers the store's prefixes in `bins`.
    """

    source: npt.NDArray[np.int32]
    order: Keys
    cluster: Keys
    grouped: npt.NDArray[np.bool_]
    tokens: Counts
    bytes: Counts
    sequence: Counts
    pointer: Counts
    bin: npt.NDArray[np.int32]
    bins: tuple[str, ...]
    doc_id: pa.Array


@dataclass(frozen=True)
class Corpus:
    """A catalogue, one policy's decisions on it, and a token store; `notes` say where they are not what a run has."""

    catalogue: Dataset
    verdicts: Dataset
    tokens: Dataset
    notes: tuple[str, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        if not self.catalogue.parts:
            raise DatasetError(
                "the catalogue is empty", at=str(self.catalogue.folder), hint="give inputs with documents"
            )
        return self.catalogue.schema(self.catalogue.parts[0])

    def bind(self, recipe: Recipe) -> Conditions:
        """The recipe's conditions on this corpus. Raises SqlError."""
        return bind_sources(recipe, self.schema, ensemble_of(self.verdicts))

    def judged(self, columns: list[str] | None = None) -> Iterator[tuple[Part, pa.Table, pa.Table]]:
        """Each catalogue part, its rows and their verdicts. Raises DatasetError when they do not belong together."""
        by_catalogue = {part.facts["catalogue"]: part for part in self.verdicts.parts}
        for part in self.catalogue.parts:
            if part.sha256 not in by_catalogue:
                raise DatasetError(
                    f"catalogue part {part.identity} was not judged with its present measurements",
                    at=str(self.verdicts.folder),
                    hint="run the judge stage again",
                )
            yield part, self.catalogue.read(part, columns), self.verdicts.read(by_catalogue[part.sha256])

    def rows(self, recipe: Recipe) -> list[Rows]:
        """The documents available to a recipe, an item a catalogue part."""
        conditions = self.bind(recipe)
        parts = []
        for part, catalogue, verdicts in self.judged(conditions.columns):
            source = evaluate_sources(recipe, conditions, with_decisions(catalogue, verdicts), kept_only=True)
            parts.append(self.join(part, verdicts, source, recipe.seed))
        return parts

    def matching(self, recipe: Recipe) -> Iterator[tuple[pa.Table, pa.Table, pa.Array]]:
        """Each part's catalogue rows and verdicts, and whether a source takes the row, whatever the policy said."""
        conditions = self.bind(recipe)
        for _, catalogue, verdicts in self.judged():
            source = evaluate_sources(recipe, conditions, with_decisions(catalogue, verdicts), kept_only=False)
            yield catalogue, verdicts, source.is_valid()

    def join(self, part: Part, verdicts: pa.Table, source: pa.Array, seed: int) -> Rows:
        """The rows of a part that a source takes, and where they are stored. Raises DatasetError if one is not."""
        maps, empty = self.stored(part)
        row = np.asarray(maps["row"], np.int64)
        taken = np.asarray(source.fill_null(-1), np.int32)
        self._check_stored(part, taken, row, empty)
        used = np.flatnonzero(taken[row] >= 0)
        chosen, at_row = maps.take(used), row[used]
        documents = verdicts.take(at_row)
        if not documents["doc_id"].equals(chosen["doc_id"]):
            raise DatasetError(
                f"the token store's rows of part {part.facts['part']} are other documents",
                at=str(self.tokens.folder),
                hint="remove this token store and run the tokenize stage again",
            )
        prefixes = chosen["bin"].combine_chunks().dictionary_encode()
        return Rows(
            source=taken[at_row],
            order=draw_keys(documents["doc_id"], "train", seed),
            cluster=draw_keys(documents["cluster_id"], "heldout", seed),
            grouped=np.asarray(documents["cluster_size"]) > 1,
            tokens=np.asarray(chosen["tokens"], np.int64),
            bytes=np.asarray(chosen["bytes"], np.int64),
            sequence=np.asarray(chosen["sequence"], np.int64),
            pointer=np.asarray(chosen["byte_offset"], np.int64),
            bin=np.asarray(prefixes.indices, np.int32),
            bins=tuple(prefixes.dictionary.to_pylist()),
            doc_id=chosen["doc_id"].combine_chunks(),
        )

    def stored(self, part: Part) -> tuple[pa.Table, Counts]:
        """The store's map of one documents part, each row once, and the rows that turned out to hold no token."""
        tables, empty = [], [np.empty(0, np.int64)]
        for stored in self.tokens.parts:
            if stored.of == part.of:
                empty.append(np.asarray(stored.facts.get("empty_rows", []), np.int64))
            if stored.of == part.of and stored.rows:
                tables.append(self.tokens.read(stored, _MAP.names))
        if not tables:
            return _MAP.empty_table(), np.concatenate(empty)
        table = pa.concat_tables(tables).combine_chunks()
        _, first = np.unique(np.asarray(table["row"]), return_index=True)
        return (table if len(first) == table.num_rows else table.take(np.sort(first))), np.concatenate(empty)

    def _check_stored(self, part: Part, taken: npt.NDArray[np.int32], row: Counts, empty: Counts) -> None:
        wanted = taken >= 0
        wanted[row] = False
        wanted[empty] = False
        if missing := int(wanted.sum()):
            raise DatasetError(
                f"{missing} documents of part {part.facts['part']} are in the recipe, but not in the token store",
                at=str(self.tokens.folder),
                hint="run the tokenize stage again: it writes only what is missing",
            )


_MAP = pa.schema(
    [
        ("row", pa.int64()),
        ("doc_id", IDENTIFIER),
        ("bin", pa.string()),
        ("sequence", pa.int64()),
        ("byte_offset", pa.int64()),
        ("tokens", pa.int32()),
        ("bytes", pa.int32()),
    ]
)
"""What is read of the store's map."""


def open_corpus(catalogue: Path, decisions: Path, tokens: Path) -> Corpus:
    """Open the three datasets; `decisions` is the folder of one policy. Raises DatasetError."""
    return Corpus(open_catalogue(catalogue), open_dataset(decisions / "verdicts"), open_dataset(tokens))


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


def _mix(x: Keys) -> Keys:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
