"""The report's section on duplicates: who lost how much to them, how large the clusters are, how alike the pairs, and
examples to judge by eye: those nearest to the limit, and those of the largest clusters.

Counted in DuckDB over the ledger and the pairs. An example is a dropped document beside the one that it was dropped
for; exact copies are left out, for nothing in them differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb
import pyarrow as pa

from mixtures.decisions import duplicate_kinds
from pipelines.losses import alarms, source_losses
from pipelines.report.differences import compare_texts
from pipelines.run_folder import RunFolder
from storage.manifests import find_manifest, open_dataset

EXAMPLES = 3
LANGUAGES_SHOWN = 16
SIMILARITY_BINS = 20


def describe_duplicates(
    database: duckdb.DuckDBPyConnection, folder: RunFolder, policy: str, alarm: float
) -> dict[str, Any]:
    """All of it but the examples' texts. The views `judged` and `reasons` must be there."""
    manifest = open_dataset(folder.decisions(policy) / "verdicts").manifest
    kinds = duplicate_kinds(manifest)
    named = pa.table({"rule": pa.array(kinds, pa.string()), "kind": pa.array(kinds.values(), pa.string())})
    database.register("duplicate_rules", named)
    losses, none = source_losses(folder), dict.fromkeys(kinds.values(), 0)
    return {
        "kinds": list(kinds.values()),
        "sources": [
            {"name": loss.source, "kept": loss.kept, **none, **loss.lost, "share": loss.share} for loss in losses
        ],
        "languages": _languages(database, kinds),
        "alarms": alarms(losses, alarm),
        "alarm": alarm,
        "sizes": _sizes(database),
        "similarities": _similarities(database, folder),
        "examples": _examples(database),
    }


def _rows(database: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = database.sql(sql).to_arrow_table().to_pylist()
    return rows


def _languages(database: duckdb.DuckDBPyConnection, kinds: Mapping[str, str]) -> list[dict[str, Any]]:
    """Of each language, among the documents that no other rule dropped: kept, lost by kind, the share lost."""
    counts = "".join(f", count(*) FILTER (kind = '{kind}')::BIGINT AS \"{kind}\"" for kind in kinds.values())
    return _rows(
        database,
        f"""
        SELECT coalesce(language.label, 'not measured') AS name, count(*) FILTER (verdict = 'kept')::BIGINT AS kept
               {counts}, count(kind) / count(*) AS share
        FROM judged LEFT JOIN duplicate_rules USING (rule) WHERE verdict = 'kept' OR kind IS NOT NULL
        GROUP BY 1 ORDER BY count(*) DESC, name LIMIT {LANGUAGES_SHOWN}
        """,
    )


def _sizes(database: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Clusters of two and more by size, in steps of doubling: how many, and how many documents are in them."""
    return _rows(
        database,
        """
        WITH clusters AS (SELECT cluster_id, count(*) AS size FROM judged GROUP BY cluster_id HAVING count(*) > 1)
        SELECT floor(log2(size))::INTEGER AS step, min(size)::BIGINT AS least, max(size)::BIGINT AS most,
               count(*)::BIGINT AS clusters, sum(size)::BIGINT AS documents
        FROM clusters GROUP BY step ORDER BY step
        """,
    )


def _similarities(database: duckdb.DuckDBPyConnection, folder: RunFolder) -> list[dict[str, Any]]:
    """Verified pairs by similarity, from where the search records them to 1, in bins of equal width."""
    place = folder.duplicates / "pairs"
    if find_manifest(place) is None:
        return []
    dataset = open_dataset(place)
    least = float(dataset.manifest.stage["config"]["threshold"])
    width = (1 - least) / SIMILARITY_BINS or 1.0
    counted = database.execute(
        """
        SELECT least(floor((similarity - ?) / ?), ?)::INTEGER AS bin, count(*)::BIGINT AS pairs
        FROM read_parquet(?) GROUP BY bin
        """,
        [least, width, SIMILARITY_BINS - 1, dataset.paths()],
    ).fetchall()
    pairs = dict(counted)
    return [
        {"from": least + i * width, "to": least + (i + 1) * width, "pairs": pairs.get(i, 0)}
        for i in range(SIMILARITY_BINS)
    ]


def _examples(database: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Dropped documents with their keepers: the least alike, and the least alike of the largest clusters."""
    return _rows(
        database,
        f"""
        WITH dropped AS (
            SELECT r.doc_id, unhex(regexp_extract(r.evidence, '^kept=([0-9a-f]{{32}})', 1)) AS keeper, k.kind,
                   r.measured AS similarity, j.cluster_id, j.cluster_size, j.source
            FROM reasons r JOIN duplicate_rules k USING (rule) JOIN judged j USING (doc_id)
            WHERE r.decided AND k.kind <> 'exact' AND (r.measured IS NULL OR r.measured < 1)
        ), borderline AS (
            SELECT *, 'nearest to the limit' AS why,
                   row_number() OVER (PARTITION BY kind ORDER BY similarity, doc_id) AS turn
            FROM dropped
        ), largest AS (
            SELECT *, row_number() OVER (ORDER BY cluster_size DESC, cluster_id) AS turn FROM (
                SELECT *, 'of the largest clusters' AS why FROM dropped
                WHERE doc_id NOT IN (SELECT doc_id FROM borderline WHERE turn <= {EXAMPLES})
                QUALIFY row_number() OVER (PARTITION BY cluster_id ORDER BY similarity, doc_id) = 1
            )
        )
        SELECT * FROM (FROM borderline UNION ALL FROM largest) WHERE turn <= {EXAMPLES}
        ORDER BY why, kind, turn
        """,
    )


def wanted_texts(found: Mapping[str, Any]) -> set[bytes]:
    """The doc_ids whose texts the examples show."""
    return {row[name] for row in found["examples"] for name in ("doc_id", "keeper")}


def add_texts(found: Mapping[str, Any], texts: Mapping[bytes, Mapping[str, Any]]) -> None:
    """Put both sides of every example, their differing words marked, in place."""
    for row in found["examples"]:
        kept, dropped = (texts.get(row[name], {}) for name in ("keeper", "doc_id"))
        sides = compare_texts(str(kept.get("text", "")), str(dropped.get("text", "")))
        row["sides"] = [
            {"verdict": verdict, "doc_id": row[name], "url": text.get("url"), "pieces": pieces}
            for verdict, name, text, pieces in zip(
                ("kept", "dropped"), ("keeper", "doc_id"), (kept, dropped), sides, strict=True
            )
        ]
