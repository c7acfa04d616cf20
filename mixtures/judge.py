"""The judge: turns measurements into verdicts, one part at a time, in DuckDB.

Documents in = kept + dropped. Every failing rule is recorded with the measured value and the limit; the first in the
policy's order decides. It runs in two steps, because which of several duplicates stays depends on all parts: rules
first, then the duplicates that the caller found among the documents that passed. The order of all rows follows the
catalogue's, so the tables are byte-identical whenever they are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixtures.binding import TABLE, BoundPolicy, BoundRule
from mixtures.sql import Engine, open_engine, reason
from storage.errors import DatasetError, SqlError
from storage.schema import IDENTIFIER

VERDICTS = pa.schema(
    [
        pa.field("doc_id", IDENTIFIER, nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("rule", pa.string()),
        pa.field("cluster_id", IDENTIFIER, nullable=False),
        pa.field("cluster_size", pa.int32(), nullable=False),
    ]
)
"""One row a document: `kept` or `dropped`, and the rule that decided. A document that resembles no other is a cluster
of one, named by itself."""

REASONS = pa.schema(
    [
        pa.field("doc_id", IDENTIFIER, nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("measured", pa.float64()),
        pa.field("limit", pa.float64()),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("decided", pa.bool_(), nullable=False),
        pa.field("evidence", pa.string()),
    ]
)
"""One row a failing rule, in the order of the documents and of the policy."""

DUPLICATES = pa.schema(
    [("doc_id", IDENTIFIER), ("duplicate_of", IDENTIFIER), ("similarity", pa.float64()), ("kind", pa.string())]
)
"""What the dedup stages found: each document to drop (once a `kind`: `exact`, `url`, `near`, `semantic`) and the kept
one that it duplicates. `similarity` is null where only the URL is the same."""

CLUSTERS = pa.schema([("doc_id", IDENTIFIER), ("cluster_id", IDENTIFIER), ("cluster_size", pa.int32())])
"""Members of groups of duplicates, kept ones too."""

_FAILURES = pa.schema(
    [
        ("row", pa.int64()),
        ("position", pa.int32()),
        ("rule", pa.string()),
        ("measured", pa.float64()),
        ("limit", pa.float64()),
        ("evidence", pa.string()),
    ]
)


@dataclass(frozen=True)
class Failures:
    """What a part's documents failed: a row each, and how many documents each rule found unmeasured."""

    rows: pa.Table
    missing: Mapping[str, int]


@dataclass(frozen=True)
class Decisions:
    """A part's verdicts (VERDICTS) and reasons (REASONS), and the counts that the funnel shows."""

    verdicts: pa.Table
    reasons: pa.Table
    facts: Mapping[str, object]


def judge_rules(catalogue: pa.Table, policy: BoundPolicy) -> Failures:
    """Measure every rule but the duplicates against the rows of one catalogue part.

    Raises SqlError with the rule's line when an expression fails on a value (a text that is no number, say).
    """
    numbered = catalogue.append_column("_row", pa.array(np.arange(catalogue.num_rows)))
    with open_engine(**{TABLE: numbered}) as engine:
        try:
            rows = engine.query(_failures_sql(policy.rules)) if policy.rules else _FAILURES.empty_table()
            missing = _count_missing(engine, policy)
        except duckdb.Error as error:
            raise _blame(engine, policy, error) from error
    return Failures(rows.cast(_FAILURES), missing)


def judge_duplicates(
    catalogue: pa.Table,
    policy: BoundPolicy,
    failures: Failures,
    *,
    duplicates: pa.Table | None = None,
    clusters: pa.Table | None = None,
) -> Decisions:
    """Add the duplicates (DUPLICATES, of any part) to what the rules found, and decide. `clusters` is CLUSTERS.

    Raises DatasetError when the duplicates contradict themselves or the policy.
    """
    found = DUPLICATES.empty_table() if duplicates is None else duplicates.select(DUPLICATES.names).cast(DUPLICATES)
    known = policy.duplicate_table()
    _check_duplicates(found, known)
    members = CLUSTERS.empty_table() if clusters is None else clusters.select(CLUSTERS.names).cast(CLUSTERS)
    documents = pa.table({"row": pa.array(np.arange(catalogue.num_rows)), "doc_id": catalogue["doc_id"]})
    with open_engine(
        _documents=documents, _failures=failures.rows, _duplicates=found, _kinds=known, _clusters=members
    ) as engine:
        reasons = engine.query(_REASONS_SQL)
        decided = pa.table(reasons).filter(reasons["decided"]).select(["row", "rule"])
        with open_engine(_documents=documents, _decided=decided, _clusters=members) as second:
            verdicts = second.query(_VERDICTS_SQL)
    decisions = verdicts.cast(VERDICTS), reasons.drop_columns(["row"]).cast(REASONS)
    return Decisions(*decisions, {**_facts(*decisions, failures), "sources": _by_source(catalogue, decisions[0])})


def admit(catalogue: pa.Table, gate: BoundPolicy) -> pa.Table:
    """Which rows are worth a costly stage: doc_id, `admitted`, and the first rule of the gate that stops it."""
    first = judge_duplicates(catalogue, gate, judge_rules(catalogue, gate)).verdicts
    admitted = pc.equal(first["verdict"], "kept")
    return pa.table({"doc_id": first["doc_id"], "admitted": admitted, "rule": first["rule"]})


def _failures_sql(rules: tuple[BoundRule, ...]) -> str:
    columns = ", ".join(
        f"{rule.value} AS _v{i}, {rule.low} AS _l{i}, {rule.high} AS _h{i}, {rule.applies} AS _a{i}, "
        f"{rule.evidence} AS _e{i}"
        for i, rule in enumerate(rules)
    )
    branches = [
        f"SELECT _row AS row, {rule.position} AS position, '{rule.name}' AS rule, {rule.measured_sql(i)} AS measured, "
        f'{rule.limit_sql(i)} AS "limit", _e{i} AS evidence FROM _measured WHERE {rule.failed_sql(i)}'
        for i, rule in enumerate(rules)
    ]
    return (
        f"WITH _measured AS MATERIALIZED (SELECT _row, {columns} FROM {TABLE}) "
        + " UNION ALL ".join(branches)
        + " ORDER BY row, position"
    )


def _count_missing(engine: Engine, policy: BoundPolicy) -> dict[str, int]:
    counted = [rule for rule in policy.rules if rule.counts_missing]
    if not counted:
        return {}
    columns = ", ".join(
        f"count(*) FILTER (WHERE {rule.applies} AND {rule.value} IS NULL) AS _m{i}" for i, rule in enumerate(counted)
    )
    row = engine.query(f"SELECT {columns} FROM {TABLE}").to_pylist()[0]
    return {rule.name: row[f"_m{i}"] for i, rule in enumerate(counted)}


def _blame(engine: Engine, policy: BoundPolicy, error: duckdb.Error) -> Exception:
    """The rule whose expression fails on these rows."""
    for rule in policy.rules:
        try:
            engine.query(_failures_sql((rule,)))
        except duckdb.Error as own:
            return SqlError(
                f"rule `{rule.name}` cannot be computed: {reason(own)}",
                at=rule.at,
                hint="let its `only` leave such documents out, or compare what is certainly a number",
            )
    return error


_REASONS_SQL = """
WITH found AS (
    SELECT row, position, rule, measured, "limit", evidence FROM _failures
    UNION ALL
    SELECT d.row, k.position, k.rule, p.similarity, k.min_similarity,
           'kept=' || lower(hex(p.duplicate_of)) || coalesce(' similarity=' || printf('%.4f', p.similarity), '')
    FROM _duplicates p JOIN _documents d USING (doc_id) JOIN _kinds k USING (kind)
)
SELECT f.row, d.doc_id, f.rule, f.measured, f."limit", 'dropped' AS verdict,
       f.position = min(f.position) OVER (PARTITION BY f.row) AS decided, f.evidence
FROM found f JOIN _documents d ON f.row = d.row
ORDER BY f.row, f.position
"""

_VERDICTS_SQL = """
SELECT d.doc_id, CASE WHEN r.rule IS NULL THEN 'kept' ELSE 'dropped' END AS verdict, r.rule,
       coalesce(c.cluster_id, d.doc_id) AS cluster_id, coalesce(c.cluster_size, 1) AS cluster_size
FROM _documents d LEFT JOIN _decided r ON r.row = d.row LEFT JOIN _clusters c ON c.doc_id = d.doc_id
ORDER BY d.row
"""


def _check_duplicates(found: pa.Table, known: pa.Table) -> None:
    with open_engine(_duplicates=found, _kinds=known) as engine:
        faults = engine.query(
            """
            SELECT count(*) FILTER (WHERE k.kind IS NULL) AS "of a kind that the policy has no rule for",
                   count(*) FILTER (WHERE p.doc_id = p.duplicate_of) AS "duplicates of themselves",
                   count(*) FILTER (WHERE p.similarity < k.min_similarity) AS "less similar than the policy's limit",
                   count(*) - count(DISTINCT (p.doc_id, p.kind)) AS "named twice"
            FROM _duplicates p LEFT JOIN _kinds k USING (kind)
            """
        ).to_pylist()[0]
    if wrong := [f"{count} {what}" for what, count in faults.items() if count]:
        raise DatasetError(
            f"the duplicates do not fit the policy: {', '.join(wrong)}",
            hint="find the duplicates anew with this policy's `min_similarity`",
        )


def _facts(verdicts: pa.Table, reasons: pa.Table, failures: Failures) -> dict[str, object]:
    kept = int(pc.sum(pc.equal(verdicts["verdict"], "kept")).as_py() or 0)
    decided = reasons.filter(reasons["decided"])
    return {
        "kept": kept,
        "dropped": verdicts.num_rows - kept,
        "decided": _tally(decided["rule"]),
        "failed": _tally(reasons["rule"]),
        "missing": dict(failures.missing),
    }


def _by_source(catalogue: pa.Table, verdicts: pa.Table) -> dict[str, dict[str, object]]:
    """Of each source how many are kept, and how many each rule decided; nothing where the source was not read."""
    if "source" not in catalogue.column_names:
        return {}
    found: dict[str, dict[str, object]] = {}
    for source in sorted(pc.unique(catalogue["source"]).to_pylist()):
        rules = verdicts["rule"].filter(pc.equal(catalogue["source"], source))
        found[source] = {"kept": rules.null_count, "decided": _tally(rules.drop_null())}
    return found


def _tally(values: pa.ChunkedArray) -> dict[str, int]:
    return dict(sorted((item["values"], item["counts"]) for item in pc.value_counts(values).to_pylist()))
