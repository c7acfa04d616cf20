"""A recipe's sources as SQL over a catalogue: which source takes a document, how often, and which host it is of.

A document belongs to the first source whose condition it meets. Everything is bound and typed before a row is read, and
all faults are said at once with their lines; what fails on a value (a factor below zero) names its line, too. One query
a part: a million documents take about 0.1 s of a core.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mixtures.binding import TABLE, Binder, gather_faults, quote
from mixtures.ensemble import Ensemble, with_ensemble
from mixtures.names import names_of
from mixtures.recipe import FACTOR_STEPS, MAX_FACTOR, Recipe
from mixtures.sql import open_engine, reason
from storage.errors import RecipeError, SqlError

DECISION_NAMES = ("cluster_size",)
"""What recipes may use beside the catalogue's names."""

NOBODY = -1
"""The number of a document that no source takes."""

Numbers = npt.NDArray[np.int32]
Factors = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

_DIRECTION = re.compile(r"\s+(asc|desc)\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Conditions:
    """A recipe's sources tied to a catalogue: SQL for the number of the source or null, for its documents' factor of
    repetition, for the host, and for their place in `order` (the lowest first); what no source asks for is None."""

    sql: str
    factor: str | None
    host: str | None
    order: str | None
    bindings: dict[str, str]

    @property
    def paths(self) -> list[str]:
        """The catalogue columns, or fields of them, that the conditions read, and one in any case."""
        return sorted({*self.bindings.values()} - set(DECISION_NAMES)) or ["source"]


@dataclass(frozen=True)
class Taken:
    """Of each row the source that takes it (NOBODY: none), its factor in hundredths, its host where that counts, and
    the number that `order` gives it, float64 (NaN: its source has no `order`)."""

    source: Numbers
    factor: Factors | None
    host: pa.Array | None
    order: Floats | None


def bind_sources(recipe: Recipe, schema: pa.Schema, ensemble: Ensemble | None = None) -> Conditions:
    """Check the recipe's expressions against the catalogue's columns and its policy's ensemble.

    Raises SqlError with all faults.
    """
    faults: list[SqlError] = []
    sources, factors, hosts, orders = [], [], [], []
    empty = with_decisions(pa.Table.from_batches([], schema), None)
    with open_engine(**{TABLE: empty}) as engine:
        names = names_of(empty.schema, DECISION_NAMES)
        binder = Binder(engine, with_ensemble(names, schema, ensemble, {}))
        for i, source in enumerate(recipe.sources):
            try:
                sources.append(f"WHEN {binder.condition(source.where, recipe.at('sources', i, 'where'))[0]} THEN {i}")
                factors += [f"WHEN {i} THEN {_factor(binder, recipe, i)}"] if source.repeat else []
                hosts += [f"WHEN {i} THEN {_host(binder, recipe, i)}"] if source.max_documents_per_host else []
                orders += [f"WHEN {i} THEN {_order(binder, recipe, i)}"] if source.order else []
            except SqlError as error:
                faults.append(error)
    if faults:
        raise gather_faults(faults, recipe.file)
    return Conditions(
        f"CASE {' '.join(sources)} END",
        f"CASE _source {' '.join(factors)} ELSE 1 END" if factors else None,
        f"CASE _source {' '.join(hosts)} END" if hosts else None,
        f"CASE _source {' '.join(orders)} ELSE 'nan'::DOUBLE END" if orders else None,
        dict(sorted(binder.bindings.items())),
    )


def _factor(binder: Binder, recipe: Recipe, i: int) -> str:
    """A document's factor as SQL; one that has none counts once."""
    repeat = recipe.sources[i].repeat
    assert repeat is not None
    if repeat.factor is not None:
        sql, _ = binder.number(repeat.factor, recipe.at("sources", i, "repeat", "factor"))
        return f"coalesce(CAST({sql} AS DOUBLE), 1)"
    assert repeat.by is not None
    sql, _, _ = binder.bind(repeat.by, recipe.at("sources", i, "repeat", "by"))
    whens = " ".join(f"WHEN {quote(value)} THEN {factor!r}" for value, factor in repeat.factors.items())
    return f"CASE CAST({sql} AS VARCHAR) {whens} ELSE {repeat.otherwise!r} END"


def _host(binder: Binder, recipe: Recipe, i: int) -> str:
    return binder.bind("url.host", recipe.at("sources", i, "max_documents_per_host"))[0]


def _order(binder: Binder, recipe: Recipe, i: int) -> str:
    """A document's place as SQL, the lowest first; those that have none come last."""
    text = recipe.sources[i].order
    assert text is not None
    direction = _DIRECTION.search(text)
    sign = "-" if direction and direction[1].lower() == "desc" else ""
    sql, _ = binder.number(_DIRECTION.sub("", text), recipe.at("sources", i, "order"))
    number = f"{sign}CAST({sql} AS DOUBLE)"
    return f"CASE WHEN isfinite({number}) THEN {number} ELSE 'infinity'::DOUBLE END"


def assign_sources(recipe: Recipe, catalogue: pa.Table, verdicts: pa.Table) -> Numbers:
    """int32[rows]: number of the source that takes each row, NOBODY where none does or the policy dropped it.

    Factors of repetition count for nothing here, so what is made of a source's documents does not depend on them.
    """
    conditions = replace(bind_sources(recipe, catalogue.schema), factor=None, order=None)
    return evaluate_sources(recipe, conditions, with_decisions(catalogue, verdicts), kept_only=True).source


def evaluate_sources(recipe: Recipe, conditions: Conditions, table: pa.Table, *, kept_only: bool) -> Taken:
    """Which source takes each row of `table`, which has decisions beside it; a factor of 0 is taken by nobody.

    Raises SqlError where an expression fails on a value, RecipeError where it gives no factor.
    """
    kept = "verdict = 'kept'" if kept_only else "true"
    with open_engine(**{TABLE: table}) as engine:
        try:
            found = engine.query(
                f"SELECT coalesce(_source, {NOBODY})::INTEGER AS _number, {conditions.factor or 'NULL'} AS _factor, "
                f"{conditions.host or 'NULL'} AS _host, {conditions.order or 'NULL'} AS _order "
                f"FROM (SELECT *, CASE WHEN {kept} THEN {conditions.sql} END AS _source FROM {TABLE})"
            )
        except duckdb.Error as error:
            raise SqlError(
                f"a source's condition cannot be computed: {reason(error)}",
                at=recipe.at("sources"),
                hint="compare what is certainly of the right type",
            ) from error
    source = np.asarray(found["_number"], np.int32)
    host = found["_host"].combine_chunks() if conditions.host else None
    order = np.asarray(found["_order"], np.float64) if conditions.order else None
    if conditions.factor is None:
        return Taken(source, None, host, order)
    factor = _in_steps(recipe, source, np.asarray(found["_factor"], np.float64))
    return Taken(np.where(factor > 0, source, np.int32(NOBODY)), factor, host, order)


def _in_steps(recipe: Recipe, source: Numbers, factor: npt.NDArray[np.float64]) -> Factors:
    """Factors in hundredths. Raises RecipeError for one that is none."""
    wrong = np.flatnonzero(~((factor >= 0) & (factor <= MAX_FACTOR)) & (source != NOBODY))
    if len(wrong):
        i, value = int(source[wrong[0]]), float(factor[wrong[0]])
        raise RecipeError(
            f"`repeat` gives a document of `{recipe.sources[i].name}` the factor {value:g}; "
            f"factors are between 0 and {MAX_FACTOR:g}",
            at=recipe.at("sources", i, "repeat", "factor"),
            hint=f"keep it within: `least(greatest(…, 0), {MAX_FACTOR:g})`",
        )
    return np.where(source == NOBODY, 0, np.rint(factor * FACTOR_STEPS)).astype(np.int32)


def with_decisions(catalogue: pa.Table, verdicts: pa.Table | None) -> pa.Table:
    """The catalogue's rows with what recipes may ask of their verdicts; nulls where there are none."""
    for name, kind in (("verdict", pa.string()), ("cluster_size", pa.int32())):
        column = pa.nulls(catalogue.num_rows, kind) if verdicts is None else verdicts[name]
        catalogue = catalogue.append_column(name, column)
    return catalogue
