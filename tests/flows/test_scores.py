"""A run with scorers and an ensemble in its policy: scored once, judged anew at will, explained, shown, exported."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest

from pipelines.run_folder import RunFolder, find_step, require_step
from tests.classifiers.scorers.conftest import write_classifier, write_fasttext
from tests.flows.conftest import POLICY, Inputs, gristmill, run_options
from tests.flows.test_resume import fingerprints

ENSEMBLE = """\
ensemble:
  bucket: {bucket}
"""
MORE_RULES = """\
  - {rule: low, measure: ensemble.bucket, min: 3, only: "source <> 'encyclopedia'"}
  - {rule: odd_in_its_domain, measure: scores.edu.value, max_percentile: 90, per: scores.domain.label}
"""
RECIPE_WHERE = "where: source = 'web'"


@pytest.fixture
def options(inputs: Inputs, tmp_path: Path) -> list[str]:
    recipe = (inputs.web / "recipe.yaml").read_text()
    (tmp_path / "recipe.yaml").write_text(recipe.replace(RECIPE_WHERE, f"{RECIPE_WHERE} AND ensemble.bucket >= 3"))
    domain = write_classifier(tmp_path / "domain", {0: "Sports", 1: "Science"}, seed=2)
    return [
        *("--recipe", str(tmp_path / "recipe.yaml"), "--score", f"edu={write_classifier(tmp_path / 'edu')}:clip=0..5"),
        *(
            "--score",
            f"dclm={write_fasttext(tmp_path / 'dclm.bin')}:positive=hq,scale=5",
            "--score",
            f"domain={domain}",
        ),
    ]


def write_policy(folder: Path, bucket: str) -> None:
    (folder / "policy.yaml").write_text(POLICY + MORE_RULES + ENSEMBLE.format(bucket=bucket))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_scorers_and_an_ensemble(inputs: Inputs, prefect_home: Path, tmp_path: Path, options: list[str]) -> None:
    write_policy(tmp_path, "maximum")
    folders = []
    for workers in ("1", "2"):
        folder = RunFolder(tmp_path / f"run-{workers}")
        gristmill(*run_options(inputs, folder.root, *options, "--workers", workers), home=prefect_home, timeout=700)
        folders.append(folder)
    assert fingerprints(folders[0]) == fingerprints(folders[1])
    folder = folders[0]
    classified = require_step(folder, "classify")
    assert [one["name"] for one in classified.result["scorers"]] == ["edu", "dclm", "domain"]
    low = buckets_of_dropped(folder, "low")
    assert low and all(max(edu, dclm) < 3 for edu, dclm in low)
    page = folder.report.read_text(encoding="utf-8")
    assert re.search(r'id="scores".*ensemble\.bucket.*Agreement.*edu, dclm.*<h3>domain', page, re.DOTALL)
    (doc_id,) = one_scored(folder)
    story = gristmill("why", doc_id, "--out", str(folder.root), home=prefect_home).stdout
    assert "edu.bucket" in story and "domain.label" in story and re.search(r"ensemble\s+bucket \d+", story)
    write_policy(tmp_path, "least(scores.edu.bucket, scores.dclm.bucket)")
    gristmill(*run_options(inputs, folder.root, *options, "--workers", "1"), home=prefect_home, timeout=700)
    assert find_step(folder, "classify") == classified, "another ensemble scores nothing anew"
    assert all(min(edu, dclm) < 3 for edu, dclm in buckets_of_dropped(folder, "low"))
    export = tmp_path / "export"
    gristmill("export", str(export), "--partition-by", "ensemble.bucket", "--out", str(folder.root), home=prefect_home)
    rows = duckdb.sql(
        f"SELECT ensemble_bucket AS folder, ensemble.bucket AS bucket, scores.edu.bucket AS edu, scores.dclm.bucket AS "
        f"dclm FROM read_parquet('{export}/data/*/*.parquet', hive_partitioning = true)"
    ).fetchall()
    assert len(rows) == require_step(folder, "judge").result["kept"]
    for where, bucket, edu, dclm in rows:
        assert (bucket is None and where is None) or int(where) == bucket == min(edu, dclm)


def buckets_of_dropped(folder: RunFolder, rule: str) -> list[tuple[int, int]]:
    """(edu, dclm) of the documents that failed a rule."""
    reasons = folder.decisions(require_step(folder, "judge").result["policy"]) / "reasons"
    return duckdb.sql(
        f"SELECT c.scores.edu.bucket, c.scores.dclm.bucket FROM '{reasons}/*.parquet' r "
        f"JOIN '{folder.catalogue}/*.parquet' c USING (doc_id) WHERE r.rule = '{rule}'"
    ).fetchall()


def one_scored(folder: RunFolder) -> list[str]:
    found = duckdb.sql(
        f"SELECT lower(hex(doc_id)) FROM '{folder.catalogue}/*.parquet' WHERE scores.edu.value IS NOT NULL LIMIT 1"
    ).fetchall()
    return [row[0] for row in found]
