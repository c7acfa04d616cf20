"""Strata: a sample of documents spread over source, language and length, drawn by a hash of seed and doc_id.

Invariant: the same catalogue, seed and settings draw the same documents, whatever the parts; of each stratum those with
the least keys, so a larger sample with the same seed holds the smaller one wherever a stratum's share does not shrink.
Trade-off: two passes over the narrow columns (the first counts, the second draws), so that no more rows are held than
twice the sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import pyarrow as pa

from mixtures.apportion import apportion_within
from mixtures.binding import TABLE, Binder
from mixtures.conditions import DECISION_NAMES, with_decisions
from mixtures.corpus import draw_keys, ensemble_of
from mixtures.ensemble import Ensemble, with_ensemble
from mixtures.hosts import open_catalogue
from mixtures.names import names_of
from mixtures.sql import open_engine, reason
from storage.errors import DatasetError, InputError, RecipeError, SqlError
from storage.manifests import open_dataset
from storage.schema import IDENTIFIER

LENGTHS = (1_000, 4_000, 16_000)
"""UTF-8 bytes at which the classes of length part: under 1,000, under 4,000, under 16,000, and longer."""
PURPOSE = "annotation"
OPTION = "--where"

Share = Literal["proportional", "equal"]
Key = tuple[str, str, int]
SAMPLED = pa.schema(
    [
        pa.field("doc_id", IDENTIFIER, nullable=False),
        pa.field("content_hash", IDENTIFIER, nullable=False),
        pa.field("part", pa.int32(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
    ]
)
"""`part` is the number of the catalogue's part, `row` the place in it; they stand in this order. `language` is empty
where it was not measured."""

_STRATUM = "source, language, length"
_ROWS = pa.schema([*SAMPLED, ("key", pa.uint64()), ("source", pa.string()), ("length", pa.int32())])
_ROWS_HELD = 1 << 16


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """`documents` in all, `most` of a stratum; `where`, an SQL condition on the catalogue's names; `share`: strata get
    documents by their size, or alike; `kept_only`: none that the policy dropped."""

    documents: int = 1000
    most: int | None = None
    where: str | None = None
    share: Share = "proportional"
    kept_only: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.documents < 1 or (self.most is not None and self.most < 1):
            raise RecipeError(f"a sample of {self.documents} documents, at most {self.most} a stratum, is none")


@dataclass(frozen=True)
class Stratum:
    """One stratum: how many documents it has, and how many of them were drawn. `at_least` and `under` are bytes."""

    source: str
    language: str
    at_least: int
    under: int | None
    documents: int
    drawn: int


@dataclass(frozen=True)
class Sample:
    """The documents drawn, as SAMPLED rows, and where they came from."""

    rows: pa.Table
    strata: tuple[Stratum, ...]


def draw_sample(catalogue: Path, decisions: Path, config: SampleConfig) -> Sample:
    """Draw from a run's catalogue; `decisions` is the folder of one policy.

    Raises SqlError for a wrong condition and InputError where no document meets it.
    """
    counts: Counter[Key] = Counter()
    for rows in _parts(catalogue, decisions, config):
        counts.update(_count(rows))
    if not counts:
        raise InputError(
            "no document is there to be sampled" + (f": none meets `{config.where}`" if config.where else ""),
            at=str(catalogue),
            hint="check `--where`, or take dropped documents too with `--dropped`",
        )
    ordered = sorted(counts)
    given = dict(zip(ordered, _apportion([counts[key] for key in ordered], config), strict=True))
    drawn = _draw(_parts(catalogue, decisions, config), given)
    strata = tuple(_stratum(key, counts[key], given[key]) for key in ordered)
    return Sample(drawn.select(SAMPLED.names).sort_by([("part", "ascending"), ("row", "ascending")]), strata)


def _apportion(sizes: Sequence[int], config: SampleConfig) -> list[int]:
    limits = [min(size, config.most or size) for size in sizes]
    weights = [Fraction(size if config.share == "proportional" else 1) for size in sizes]
    return apportion_within(min(config.documents, sum(limits)), weights, limits)


def _stratum(key: Key, documents: int, drawn: int) -> Stratum:
    source, language, length = key
    edges = (0, *LENGTHS, None)
    return Stratum(source, language, edges[length] or 0, edges[length + 1], documents, drawn)


def _parts(catalogue: Path, decisions: Path, config: SampleConfig) -> Iterator[pa.Table]:
    """Of each part the _ROWS that may be drawn."""
    opened, verdicts = open_catalogue(catalogue), open_dataset(decisions / "verdicts")
    by_documents = {part.of: part for part in verdicts.parts}
    for number, part in enumerate(opened.parts):
        if part.of not in by_documents:
            raise DatasetError("the catalogue is newer than the decisions", at=str(decisions), hint="run again")
        table = with_decisions(opened.read(part), verdicts.read(by_documents[part.of]))
        table = table.append_column("key", pa.array(draw_keys(table["doc_id"], PURPOSE, config.seed)))
        table = table.append_column("_row", pa.array(np.arange(table.num_rows)))
        yield _select(table, config, number, ensemble_of(verdicts))


def _select(table: pa.Table, config: SampleConfig, number: int, ensemble: Ensemble | None) -> pa.Table:
    with open_engine(**{TABLE: table}) as engine:
        names = with_ensemble(names_of(table.schema, DECISION_NAMES), table.schema, ensemble, {})
        binder = Binder(engine, names)
        condition = binder.condition(config.where, OPTION)[0] if config.where else "true"
        kept = "verdict = 'kept'" if config.kept_only else "true"
        language = binder.name_sql("language.label") if "language.label" in binder.names.columns else "NULL"
        length = " + ".join(f"CAST(text_bytes >= {edge} AS INTEGER)" for edge in LENGTHS)
        try:
            found = engine.query(
                f"SELECT doc_id, content_hash, {number} AS part, _row AS row, coalesce({language}, '') AS language, "
                f"key, source, {length} AS length FROM {TABLE} WHERE {kept} AND {condition}"
            )
        except duckdb.Error as error:
            raise SqlError(f"the condition cannot be computed: {reason(error)}", at=OPTION) from error
    return found.cast(_ROWS)


def _count(rows: pa.Table) -> dict[Key, int]:
    counted = rows.group_by(_STRATUM.split(", ")).aggregate([([], "count_all")])
    keys = zip(*(counted[name].to_pylist() for name in _STRATUM.split(", ")), strict=True)
    return dict(zip(keys, counted["count_all"].to_pylist(), strict=True))


def _draw(parts: Iterator[pa.Table], given: dict[Key, int]) -> pa.Table:
    """Of each stratum the rows with the least keys, as many as it was given; cut as soon as too many are held."""
    held, most = _ROWS.empty_table(), 2 * sum(given.values()) + _ROWS_HELD
    for rows in parts:
        held = pa.concat_tables([held, rows])
        if held.num_rows > most:
            held = _least(held, given)
    return _least(held, given)


def _least(rows: pa.Table, given: dict[Key, int]) -> pa.Table:
    quotas = pa.table(
        {
            "source": [key[0] for key in given],
            "language": [key[1] for key in given],
            "length": pa.array([key[2] for key in given], pa.int32()),
            "quota": list(given.values()),
        }
    )
    with open_engine(_rows=rows, _quotas=quotas) as engine:
        found = engine.query(
            f"SELECT * EXCLUDE (quota, place) FROM (SELECT *, row_number() OVER "
            f"(PARTITION BY {_STRATUM} ORDER BY key, doc_id) AS place FROM _rows JOIN _quotas USING ({_STRATUM})) "
            f"WHERE place <= quota"
        )
    return found.select(_ROWS.names).cast(_ROWS)


def describe_strata(strata: Sequence[Stratum]) -> list[dict[str, Any]]:
    """The strata as JSON rows, for a manifest and a table."""
    return [vars(stratum) for stratum in strata]
