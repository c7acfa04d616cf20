"""Ensembles: what several scorers say of a document together, as SQL over their buckets, values and labels.

Invariant: an ensemble is part of the policy and computed when it is asked for, so another one makes another policy and
scores nothing anew. Its names stand for their expressions wherever policies and recipes may name a measurement.
Trade-off: it is stored nowhere, and is a query over the narrow columns each time: 9 million documents a core-second for
the maximum of three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import duckdb
import pyarrow as pa

from mixtures.names import Definition, Names, names_of
from mixtures.sql import open_engine, parse_expression, reason
from storage.errors import SqlError

STAGE = "ensemble"
SCORES = "scores"
BUCKET = "bucket"
MAXIMUM, MEAN = "maximum", "mean"
TABLE = "_scored"

Ensemble = Mapping[str, str]
"""What a policy says: a name, and `maximum`, `mean` or an SQL expression."""


def scorers_of(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Of each scorer of a catalogue the fields that it gave; nothing where no scorer ran."""
    if SCORES not in schema.names:
        return {}
    return {field.name: tuple(child.name for child in field.type) for field in schema.field(SCORES).type}


def with_ensemble(names: Names, schema: pa.Schema, ensemble: Ensemble | None, at: Mapping[str, str]) -> Names:
    """The names, and those that the ensemble defines; without one `ensemble.bucket` is the maximum over all scorers.

    `at` says where each of its expressions is written. Where no scorer gave buckets, `maximum` and `mean` define none.
    """
    buckets = [f"{SCORES}.{name}.{BUCKET}" for name, fields in scorers_of(schema).items() if BUCKET in fields]
    asked = {BUCKET: MAXIMUM, **(ensemble or {})}
    defined = {
        f"{STAGE}.{name}": Definition(meant, at.get(name))
        for name, text in asked.items()
        if (meant := _spell_out(text, buckets))
    }
    return replace(names, defined=defined)


def _spell_out(text: str, buckets: Sequence[str]) -> str | None:
    if text not in (MAXIMUM, MEAN):
        return text
    if not buckets:
        return None
    return _maximum(buckets) if text == MAXIMUM else _mean(buckets)


def _maximum(buckets: Sequence[str]) -> str:
    return f"greatest({', '.join(buckets)})"


def _mean(buckets: Sequence[str]) -> str:
    """Of the buckets that are there, to the nearest whole one."""
    total = " + ".join(f"coalesce({bucket}, 0)" for bucket in buckets)
    count = " + ".join(f"CAST({bucket} IS NOT NULL AS INTEGER)" for bucket in buckets)
    return f"CAST(round(({total}) / nullif({count}, 0)) AS INTEGER)"


def ensemble_sql(schema: pa.Schema, ensemble: Ensemble | None) -> dict[str, str]:
    """The SQL of each name of the ensemble (`bucket`, …) over a catalogue of this schema; nothing without scorers."""
    names = with_ensemble(names_of(schema), schema, ensemble, {})
    return {name.removeprefix(f"{STAGE}."): parse_expression(name).bind(names) for name in names.defined}


def evaluate_ensemble(table: pa.Table, ensemble: Ensemble | None) -> pa.Table:
    """A column a name of the ensemble (`bucket`, …), row for row with a catalogue's; none without scorers.

    Raises SqlError where an expression fails on a value.
    """
    defined = ensemble_sql(table.schema, ensemble)
    return _evaluate(table, defined) if defined else table.select([])


def evaluate_expression(table: pa.Table, text: str, ensemble: Ensemble | None, *, at: str) -> pa.ChunkedArray:
    """An SQL expression over a catalogue's names and its policy's ensemble, row for row. Raises SqlError."""
    names = with_ensemble(names_of(table.schema), table.schema, ensemble, {})
    return _evaluate(table, {"value": parse_expression(text, at=at).bind(names)})["value"]


def _evaluate(table: pa.Table, wanted: Mapping[str, str]) -> pa.Table:
    numbered = table.append_column("_row", pa.array(range(table.num_rows), pa.int64()))
    columns = ", ".join(f'{sql} AS "{name}"' for name, sql in wanted.items())
    with open_engine(**{TABLE: numbered}) as engine:
        try:
            return engine.query(f"SELECT _row, {columns} FROM {TABLE} ORDER BY _row").drop_columns(["_row"])
        except duckdb.Error as error:
            raise SqlError(
                f"an expression cannot be computed: {reason(error)}", hint="compute with what is certainly a number"
            ) from error
