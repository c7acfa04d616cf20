"""One planning in a process of its own: `python -m benchmarks.speed._planning WAY RUN RECIPE [TARGET]`.

`ours` plans, and with TARGET writes the mixture there; `duckdb` and `pandas` do the arithmetic of a plan without a
held-out set: the same conditions and the same sums over the same files, joined on the identifier, cut at the same
targets (TARGET, JSON by source). Imports are timed apart, before anything is read.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

START = time.perf_counter()


def measure(load: Callable[[], Callable[[], dict[str, Any]]]) -> dict[str, Any]:
    """Seconds of importing and of the work, and the process's peak of memory."""
    work = load()
    imported, wall, cpu = time.perf_counter() - START, time.perf_counter(), time.process_time()
    found = work()
    return {
        "import_seconds": imported,
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mb": _peak_mb(),
        **found,
    }


def _peak_mb() -> float:
    """Of this program alone; `getrusage` counts what its parent held when it was started."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def ours(run: Path, recipe: Path, target: str | None) -> Callable[[], dict[str, Any]]:
    from mixtures.corpus import open_corpus
    from mixtures.plan import plan_stages
    from mixtures.recipe import load_recipe
    from mixtures.select import write_mixture

    def work() -> dict[str, Any]:
        asked, corpus = load_recipe(str(recipe)), open_corpus(run / "catalogue", run / "decisions", run / "tokens")
        plans = plan_stages(asked, corpus)
        if target is None:
            return {"plans": [plan.to_values() for plan in plans]}
        start = time.perf_counter()
        write_mixture(Path(target), plans[0], asked, corpus, vocabulary=run / "vocabulary")
        return {"plans": [plan.to_values() for plan in plans], "write_seconds": time.perf_counter() - start}

    return work


def duckdb(run: Path, recipe: Path, target: str | None) -> Callable[[], dict[str, Any]]:
    import duckdb

    from mixtures.recipe import load_recipe

    sources, targets = load_recipe(str(recipe)).sources, json.loads(target or "{}")

    def work() -> dict[str, Any]:
        cases = " ".join(f"WHEN {source.where} THEN '{source.name}'" for source in sources)
        limits = " ".join(f"WHEN '{name}' THEN {tokens}" for name, tokens in targets.items())
        with duckdb.connect(config={"threads": 2}) as database:
            rows = database.sql(
                f"""
                WITH documents AS (
                    SELECT CASE {cases} END AS source_name, tokens, hash(doc_id) AS place
                    FROM read_parquet('{run}/catalogue/*.parquet') AS c
                    JOIN read_parquet('{run}/decisions/verdicts/*.parquet') AS v USING (doc_id)
                    JOIN read_parquet('{run}/tokens/*.parquet') AS t USING (doc_id) WHERE verdict = 'kept'
                ), reached AS (
                    SELECT source_name, tokens,
                        sum(tokens) OVER (PARTITION BY source_name ORDER BY place) - tokens AS before
                    FROM documents WHERE source_name IS NOT NULL
                )
                SELECT source_name, sum(tokens) FROM reached WHERE before < CASE source_name {limits} END GROUP BY ALL
                """
            ).fetchall()
        return {"given": {name: int(tokens) for name, tokens in rows}}

    return work


def pandas(run: Path, recipe: Path, target: str | None) -> Callable[[], dict[str, Any]]:
    import pandas  # type: ignore[import-untyped]
    import pyarrow.dataset as arrow

    from mixtures.recipe import load_recipe

    sources, targets = load_recipe(str(recipe)).sources, json.loads(target or "{}")

    def read(folder: str, columns: Any) -> pandas.DataFrame:
        files = sorted(str(path) for path in (run / folder).glob("*.parquet"))
        return arrow.dataset(files).to_table(columns=columns).to_pandas()

    def work() -> dict[str, Any]:
        fields = {"label": ("language", "label"), "bucket": ("quality", "bucket"), "num_words": ("rules", "num_words")}
        columns = {name: arrow.field(*path) for name, path in fields.items()}
        catalogue = read("catalogue", {"doc_id": arrow.field("doc_id"), "source": arrow.field("source"), **columns})
        kept = read("decisions/verdicts", ["doc_id", "verdict"]).query("verdict == 'kept'")
        frame = catalogue.merge(kept, on="doc_id").merge(read("tokens", ["doc_id", "tokens"]), on="doc_id")
        frame["place"] = pandas.util.hash_array(frame["doc_id"].to_numpy())
        given, left = {}, frame
        for source in sources:
            condition = source.where.replace("language.", "").replace("quality.", "").replace("rules.", "")
            condition = condition.replace(" = ", " == ").replace("AND", "and").replace("OR", "or")
            mine = left if condition == "true" else left.query(condition)
            left = left.drop(mine.index)
            tokens = mine.sort_values("place")["tokens"]
            given[source.name] = int(tokens[tokens.cumsum() - tokens < targets[source.name]].sum())
        return {"given": given}

    return work


WAYS = {"ours": ours, "duckdb": duckdb, "pandas": pandas}

if __name__ == "__main__":
    way, run, recipe, *target = sys.argv[1:]
    print(json.dumps(measure(lambda: WAYS[way](Path(run), Path(recipe), target[0] if target else None))))
