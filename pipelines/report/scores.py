"""What the scorers said: buckets by bytes, classes, how far scorers agree, and texts from the ends to judge by eye.

Agreement is measured on the documents with the least doc_ids, which are hashes: a random sample, the same each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import duckdb
import pyarrow as pa

from classifiers.quality.buckets import NUM_BUCKETS
from mixtures.ensemble import BUCKET, STAGE, Ensemble, ensemble_sql, scorers_of

COMPARED_DOCUMENTS = 50_000
TOP = NUM_BUCKETS - 2
"""Nemotron-CC's and CCI4.0's best text is that of the buckets from here on."""
CLASSES_SHOWN = 24
EXAMPLES_AN_END = 3
ENSEMBLE = f"{STAGE}.{BUCKET}"


def describe_scores(
    database: duckdb.DuckDBPyConnection, ensemble: Ensemble | None, models: Mapping[str, str]
) -> dict[str, Any] | None:
    """Everything about scores of the view `judged`; None where no scorer ran. `models` names each scorer's."""
    schema = database.sql("SELECT * FROM judged LIMIT 0").to_arrow_table().schema
    scorers = scorers_of(schema)
    if not scorers:
        return None
    valued = [name for name, fields in scorers.items() if BUCKET in fields]
    buckets = {name: f"scores.{name}.{BUCKET}" for name in valued}
    if combined := ensemble_sql(schema, ensemble).get(BUCKET):
        buckets[ENSEMBLE] = combined
    return {
        "histograms": [_histogram(database, name, sql, models.get(name)) for name, sql in buckets.items()],
        "agreement": [_agreement(database, one, other) for one, other in combinations(valued, 2)],
        "top": TOP,
        "classes": [_classes(database, name) for name in scorers if name not in valued],
        "examples": _examples(database, buckets, [name for name in scorers if name not in valued]),
    }


def _rows(database: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    table: pa.Table = database.sql(sql).to_arrow_table()
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _histogram(database: duckdb.DuckDBPyConnection, name: str, sql: str, model: str | None) -> dict[str, Any]:
    """Bytes by bucket, and where the values of a scorer lie."""
    rows = _rows(
        database,
        f"SELECT {sql} AS bucket, count(*)::BIGINT AS documents, sum(text_bytes)::BIGINT AS bytes FROM judged "
        f"WHERE {sql} IS NOT NULL GROUP BY 1",
    )
    sizes = {int(row["bucket"]): row["bytes"] for row in rows}
    total = sum(sizes.values())
    shares = [sizes.get(bucket, 0) / total if total else 0.0 for bucket in range(NUM_BUCKETS)]
    empty = sum(1 for share in shares if not share)
    found = {"name": name, "model": model, "shares": shares, "most": max(shares), "empty": empty if total else 0}
    spread = {} if name == ENSEMBLE else _spread(database, name)
    return {**found, "documents": sum(row["documents"] for row in rows), "bytes": total, "spread": spread}


def _spread(database: duckdb.DuckDBPyConnection, name: str) -> dict[str, float]:
    value = f"scores.{name}.value"
    (row,) = _rows(
        database,
        f"SELECT min({value}) AS least, quantile_cont({value}, 0.25) AS lower, median({value}) AS middle, "
        f"quantile_cont({value}, 0.75) AS upper, max({value}) AS most FROM judged",
    )
    return row


def _agreement(database: duckdb.DuckDBPyConnection, one: str, other: str) -> dict[str, Any]:
    """Spearman's rank correlation of two scorers' buckets (a clip makes ties of values, and none of buckets), and how
    many of the best documents of each are among the other's."""
    (row,) = _rows(
        database,
        f"""
        WITH both_scored AS (
            SELECT scores.{one}.bucket AS a, scores.{other}.bucket AS b, a >= {TOP} AS best_a, b >= {TOP} AS best_b
            FROM judged WHERE scores.{one}.bucket IS NOT NULL AND scores.{other}.bucket IS NOT NULL
            ORDER BY doc_id LIMIT {COMPARED_DOCUMENTS}
        ), ranked AS (
            SELECT *, rank() OVER (ORDER BY a) + (count(*) OVER (PARTITION BY a) - 1) / 2.0 AS rank_a,
                   rank() OVER (ORDER BY b) + (count(*) OVER (PARTITION BY b) - 1) / 2.0 AS rank_b
            FROM both_scored
        )
        SELECT count(*)::BIGINT AS documents, corr(rank_a, rank_b) AS correlation,
               count(*) FILTER (best_a AND best_b) / nullif(count(*) FILTER (best_a), 0) AS of_one,
               count(*) FILTER (best_a AND best_b) / nullif(count(*) FILTER (best_b), 0) AS of_other
        FROM ranked
        """,
    )
    correlation = row["correlation"]
    row["correlation"] = None if correlation is None or correlation != correlation else correlation
    return {"one": one, "other": other, **row}


def _classes(database: duckdb.DuckDBPyConnection, name: str) -> dict[str, Any]:
    """The classes of a scorer by documents and bytes, and how sure it was."""
    rows = _rows(
        database,
        f"""
        SELECT scores.{name}.label AS label, count(*)::BIGINT AS documents, sum(text_bytes)::BIGINT AS bytes,
               count(*) FILTER (verdict = 'kept')::BIGINT AS kept, median(scores.{name}.score) AS score
        FROM judged WHERE scores.{name}.label IS NOT NULL GROUP BY 1 ORDER BY bytes DESC, label
        """,
    )
    return {"name": name, "rows": rows[:CLASSES_SHOWN], "more": max(0, len(rows) - CLASSES_SHOWN)}


def _examples(
    database: duckdb.DuckDBPyConnection, buckets: Mapping[str, str], classed: Sequence[str]
) -> list[dict[str, Any]]:
    """Documents of each scorer's best and worst buckets, with what all scorers say of them."""
    found = []
    for name, sql in buckets.items():
        for end, order in (("best", "DESC"), ("worst", "ASC")):
            rows = _rows(
                database,
                f"SELECT doc_id, source, url, title, text_bytes, verdict, {{{_pairs(buckets, classed)}}} AS told "
                f"FROM judged WHERE {sql} IS NOT NULL ORDER BY {sql} {order}, doc_id LIMIT {EXAMPLES_AN_END}",
            )
            found.append({"name": name, "end": end, "rows": rows})
    return found


def _pairs(buckets: Mapping[str, str], classed: Sequence[str]) -> str:
    named = {**buckets, **{name: f"scores.{name}.label" for name in classed}}
    return ", ".join(f"'{name}': CAST({sql} AS VARCHAR)" for name, sql in named.items())


def wanted_texts(found: Mapping[str, Any] | None) -> set[bytes]:
    """The documents whose texts are shown."""
    return {row["doc_id"] for example in (found or {}).get("examples", []) for row in example["rows"]}


def add_texts(found: Mapping[str, Any] | None, texts: Mapping[bytes, Mapping[str, Any]]) -> None:
    for example in (found or {}).get("examples", []):
        for row in example["rows"]:
            row["excerpt"] = texts.get(row["doc_id"], {}).get("excerpt", "")
