"""What the report shows, gathered from a run's datasets in DuckDB over the narrow columns; texts only for the samples.

Everything is chosen by doc_id, which is a hash: the samples are random, and the same for the same run.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from mixtures.corpus import ensemble_of
from pipelines.funnel import funnel_rows
from pipelines.losses import DEFAULT_ALARM
from pipelines.report import duplicates, scores
from pipelines.run_folder import RunFolder, StepRecord, find_step
from pipelines.training_stages import TrainingStage, trained_stages
from storage.manifests import MANIFEST, Dataset, find_manifest, open_dataset
from storage.schema import IDENTIFIER

STEPS = (
    "ingest", "rewrite", "spans", "measure", "embed", "deduplicate", "score", "classify", "fluency", "judge",
    "vocabulary", "tokenize", "plan", "mix", "train",
)  # fmt: skip
SAMPLES_KEPT = 6
SAMPLES_A_RULE = 2
RULES_SHOWN = 8
CLUSTERS_SHOWN = 6
HOSTS_SHOWN = 12
MEMBERS_SHOWN = 4
EXCERPT = 420
COMPARED = 8000
"""Characters of a text that an example may compare; the words of it are limited too."""
QUALITY_BINS = 20


def gather(root: Path) -> dict[str, Any]:
    """All of it, as plain values for the template; a part whose step was not done is missing or empty."""
    folder = RunFolder(root)
    records = {step: record for step in STEPS if (record := find_step(folder, step))}
    found: dict[str, Any] = {
        "name": root.name,
        "run": {"started_at": "", "python": "", "packages": {}, **(_read_json(root / "run.json") or {})},
        "funnel": funnel_rows(folder),
        "results": {step: record.result for step, record in records.items()},
        "costs": [{"step": step, **record.costs, **_amounts(record.result)} for step, record in records.items()],
    }
    if "judge" in records:
        alarm = float(found["run"].get("request", {}).get("duplicate_alarm", DEFAULT_ALARM))
        models = {one["name"]: one["model"] for one in _result(records, "classify").get("scorers", [])}
        found.update(_curation(folder, str(records["judge"].result["policy"]), alarm, models))
    found["contamination"] = _read_json(folder.contamination / "benchmarks.json")
    if "mix" in records:
        mixed = records["mix"].result
        mixtures = [stage["mixture"] for stage in mixed.get("stages", [mixed])]
        found["plans"] = [plan for one in mixtures if (plan := _read_json(folder.mixture(one) / "plan.json"))]
    found["trainings"] = [_trained(folder, stage, record) for stage, record in trained_stages(folder)]
    if found["trainings"]:
        found["evaluation"] = found["trainings"][-1]["evaluation"]
    return found


def _trained(folder: RunFolder, stage: TrainingStage, record: StepRecord) -> dict[str, Any]:
    """One stage of training: its name, if it has one, its metrics, and what was measured at its end."""
    checkpoints = folder.checkpoints(record.result["checkpoints"])
    metrics, evaluation = _read_lines(checkpoints / "metrics.jsonl"), _read_json(checkpoints / "evaluation.json")
    return {"stage": stage.name, "metrics": metrics, "evaluation": evaluation}


def _result(records: Mapping[str, StepRecord], step: str) -> Mapping[str, Any]:
    return records[step].result if step in records else {}


def _amounts(result: Any) -> dict[str, Any]:
    return {name: result[name] for name in ("documents", "tokens", "bytes") if isinstance(result.get(name), int)}


def _read_json(path: Path) -> Any:
    return json.loads(path.read_bytes()) if path.exists() else None


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines() if line] if path.exists() else []


def _curation(folder: RunFolder, policy: str, alarm: float, models: Mapping[str, str]) -> dict[str, Any]:
    catalogue = _paths(folder.catalogue)
    decided = open_dataset(folder.decisions(policy) / "verdicts")
    verdicts = decided.paths()
    reasons = _paths(folder.decisions(policy) / "reasons")
    with duckdb.connect(config={"threads": "1", "enable_external_access": "true"}) as database:
        database.execute("SET TimeZone = 'UTC'") if _has_icu(database) else None
        _view(database, "catalogue", catalogue)
        _view(database, "verdicts", verdicts)
        _view(database, "reasons", reasons)
        database.execute("CREATE TEMP TABLE judged AS SELECT * FROM catalogue JOIN verdicts USING (doc_id)")
        samples = _choose_samples(database)
        clusters = _clusters(database)
        found: dict[str, Any] = {
            "sources": _sources(database),
            "languages": _languages(database),
            "hosts": _hosts(database, folder),
            "quality": _quality(database),
            "rules": _rules(database),
            "scores": scores.describe_scores(database, ensemble_of(decided), models),
            "duplicates": duplicates.describe_duplicates(database, folder, policy, alarm),
        }
    wanted = {row["doc_id"] for row in samples}
    wanted |= {member["doc_id"] for cluster in clusters for member in cluster["members"]}
    wanted |= scores.wanted_texts(found["scores"]) | duplicates.wanted_texts(found["duplicates"])
    texts = _texts(folder, wanted)
    for row in samples + [member for cluster in clusters for member in cluster["members"]]:
        row["excerpt"] = texts.get(row["doc_id"], {}).get("excerpt", "")
    scores.add_texts(found["scores"], texts)
    duplicates.add_texts(found["duplicates"], texts)
    found["kept_samples"] = [row for row in samples if row["verdict"] == "kept"]
    found["dropped_samples"] = [row for row in samples if row["verdict"] == "dropped"]
    found["clusters"] = clusters
    return found


def _has_icu(database: duckdb.DuckDBPyConnection) -> bool:
    row = database.execute("SELECT loaded FROM duckdb_extensions() WHERE extension_name = 'icu'").fetchone()
    return bool(row and row[0])


def _paths(place: Path) -> list[str]:
    return open_dataset(place).paths()


def _view(database: duckdb.DuckDBPyConnection, name: str, paths: list[str]) -> None:
    listed = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    database.execute(f"CREATE TEMP VIEW {name} AS SELECT * FROM read_parquet([{listed}])")


def _rows(database: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = database.sql(sql).to_arrow_table().to_pylist()
    return rows


def _sources(database: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    return _rows(
        database,
        """
        SELECT source, count(*)::BIGINT AS documents, count(*) FILTER (verdict = 'kept')::BIGINT AS kept,
               sum(text_bytes)::BIGINT AS bytes,
               coalesce(sum(text_bytes) FILTER (verdict = 'kept'), 0)::BIGINT AS kept_bytes
        FROM judged GROUP BY source ORDER BY documents DESC, source
        """,
    )


def _languages(database: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    return _rows(
        database,
        """
        SELECT coalesce(language.label, 'not measured') AS language, count(*)::BIGINT AS documents,
               count(*) FILTER (verdict = 'kept')::BIGINT AS kept, median(language.score) AS score
        FROM judged GROUP BY 1 ORDER BY documents DESC, language LIMIT 16
        """,
    )


def _hosts(database: duckdb.DuckDBPyConnection, folder: RunFolder) -> dict[str, Any] | None:
    """How many hosts there are, and those with the most documents."""
    if find_manifest(folder.hosts) is None:
        return None
    _view(database, "hosts", _paths(folder.hosts))
    (whole,) = _rows(database, "SELECT count(*)::BIGINT AS hosts FROM hosts")
    largest = _rows(
        database,
        f"""
        WITH largest AS (SELECT * FROM hosts ORDER BY documents DESC, host LIMIT {HOSTS_SHOWN})
        SELECT host, documents, bytes, count(*) FILTER (verdict = 'kept')::BIGINT AS kept
        FROM largest JOIN judged ON judged.url_facts.host = host
        GROUP BY ALL ORDER BY documents DESC, host
        """,
    )
    return {**whole, "largest": largest} if largest else None


def _quality(database: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    return _rows(
        database,
        """
        SELECT source, quality.bucket::INTEGER AS bucket, count(*)::BIGINT AS documents, avg(quality.score) AS score
        FROM judged WHERE quality.bucket IS NOT NULL GROUP BY source, bucket ORDER BY source, bucket
        """,
    )


def _rules(database: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    return _rows(
        database,
        """
        SELECT rule, count(*) FILTER (decided)::BIGINT AS decided, count(*)::BIGINT AS failed,
               median(measured) AS measured, any_value("limit") AS "limit"
        FROM reasons GROUP BY rule ORDER BY decided DESC, failed DESC, rule
        """,
    )


def _choose_samples(database: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Kept ones spread over sources; dropped ones spread over the rules that decided most."""
    return _rows(
        database,
        f"""
        WITH kept AS (
            SELECT doc_id, row_number() OVER (PARTITION BY source ORDER BY doc_id) AS turn
            FROM judged WHERE verdict = 'kept'
        ), common AS (
            SELECT rule FROM judged WHERE rule IS NOT NULL
            GROUP BY rule ORDER BY count(*) DESC, rule LIMIT {RULES_SHOWN}
        ), dropped AS (
            SELECT doc_id, row_number() OVER (PARTITION BY rule ORDER BY doc_id) AS turn
            FROM judged JOIN common USING (rule)
        ), chosen AS (
            (SELECT doc_id FROM kept ORDER BY turn, doc_id LIMIT {SAMPLES_KEPT})
            UNION ALL (SELECT doc_id FROM dropped WHERE turn <= {SAMPLES_A_RULE})
        )
        SELECT j.doc_id, j.source, j.url, j.title, j.text_bytes, j.verdict, j.rule, j.language.label AS language,
               j.quality.score AS score, j.quality.bucket::INTEGER AS bucket, r.measured, r."limit", r.evidence
        FROM chosen JOIN judged j USING (doc_id) LEFT JOIN reasons r ON r.doc_id = j.doc_id AND r.decided
        ORDER BY j.verdict DESC, j.rule, j.doc_id
        """,
    )


def _clusters(database: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    rows = _rows(
        database,
        f"""
        WITH largest AS (
            SELECT cluster_id, bool_or(verdict = 'kept') AS represented
            FROM judged WHERE cluster_size > 1 GROUP BY cluster_id
            ORDER BY represented DESC, max(cluster_size) DESC, cluster_id LIMIT {CLUSTERS_SHOWN}
        )
        SELECT j.cluster_id, j.cluster_size::INTEGER AS size, j.doc_id, j.source, j.url, j.title, j.verdict, j.rule,
               r.measured AS similarity
        FROM judged j JOIN largest USING (cluster_id)
        LEFT JOIN reasons r ON r.doc_id = j.doc_id AND r.evidence LIKE 'kept=%'
        ORDER BY represented DESC, size DESC, j.cluster_id, j.verdict DESC, similarity DESC, j.doc_id
        """,
    )
    grouped: dict[bytes, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        grouped[row["cluster_id"]].append(row)
    return [{"size": members[0]["size"], "members": members[:MEMBERS_SHOWN]} for members in grouped.values()]


def _texts(folder: RunFolder, wanted: set[bytes]) -> dict[bytes, dict[str, Any]]:
    """`text` (its beginning), `excerpt` and `url` of each wanted document, read part by part."""
    if not wanted:
        return {}
    documents: Dataset = open_dataset(folder.documents)
    asked = pa.array(sorted(wanted), IDENTIFIER)
    found: dict[bytes, dict[str, Any]] = {}
    for part in documents.parts:
        for batch in documents.batches(part, ["doc_id", "text", "url"]):
            for row in batch.filter(pc.is_in(batch.column("doc_id"), value_set=asked)).to_pylist():
                text = row["text"][:COMPARED]
                line = " ".join(text[: 4 * EXCERPT].split())
                excerpt = line[:EXCERPT] + ("…" if len(line) > EXCERPT else "")
                found[row["doc_id"]] = {"text": text, "excerpt": excerpt, "url": row["url"]}
    return found


def has_catalogue(folder: RunFolder) -> bool:
    """Whether the run got as far as having something to show."""
    return (folder.catalogue / MANIFEST).exists()
