"""An ablation for real: the command, Prefect, Ray, and small models of two policies that are trained and measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import fmean

import pyarrow.parquet as pq
import pytest

from pipelines.run_folder import RunFolder
from tests.flows.conftest import FinishedRun, gristmill

EVERYTHING = "format_version: 1\nname: everything\nrules:\n  - {rule: nothing, when: 'false'}\n"
LONG = "format_version: 1\nname: long\nrules:\n  - {rule: too_few_words, measure: rules.num_words, min: 50}\n"
ASKED = ["--tokens", "3000", "--heldout", "300", "--seeds", "2", "--preset", "proxy"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_policies_are_compared_on_texts_that_neither_has_seen(finished_run: FinishedRun, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "copy")
    shutil.copytree(finished_run.folder.root, folder.root, symlinks=True)
    before = {path: path.read_bytes() for path in folder.steps.iterdir()}
    policies = [tmp_path / "everything.yaml", tmp_path / "long.yaml"]
    for policy, text in zip(policies, (EVERYTHING, LONG), strict=True):
        policy.write_text(text)
    asked = ["ablate", *map(str, policies), "--out", str(folder.root), *ASKED]
    done = gristmill(*asked, home=finished_run.home, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    path = Path(done.stdout.split("result:")[1].strip())
    result = json.loads(path.read_bytes())
    assert [row["name"] for row in result["experiments"]] == ["everything", "long"]
    assert len(result["runs"]) == 4 and len({run["tokens"] for run in result["runs"]}) == 1
    for row in result["experiments"]:
        for text in ("web", "encyclopedia"):
            mine = [run["bits_per_byte"][text] for run in result["runs"] if run["experiment"] == row["name"]]
            assert row["bits_per_byte"][text]["mean"] == pytest.approx(fmean(mine)) and 0 < fmean(mine) < 9
    assert (
        "circle" in path.with_name("result.html").read_text()
        and "everything" in path.with_name("result.md").read_text()
    )
    assert {path: path.read_bytes() for path in folder.steps.iterdir()} == before
    _nothing_measured_is_learned_from(folder, path.parent, [arm["mixture"] for arm in result["arms"]])
    again = gristmill(*asked, home=finished_run.home)
    assert again.stdout in done.stdout
    refused = gristmill(*asked, "--tokens", "50000000", home=finished_run.home, check=False)
    assert refused.returncode == 2 and "within `max_epochs`" in refused.stderr


def _nothing_measured_is_learned_from(folder: RunFolder, home: Path, mixtures: list[str]) -> None:
    blend = json.loads(next(home.parent.glob("models/*/mixture/blend.json")).read_bytes())
    assert set(blend["heldout"]) == {"web", "encyclopedia"}
    withheld = {
        doc_id for path in home.glob("withheld-*.parquet") for doc_id in pq.read_table(path)["doc_id"].to_pylist()
    }
    assert withheld
    for mixture in mixtures:
        taken = pq.read_table(folder.mixture(mixture) / "selection.parquet")
        assert set(taken["split"].to_pylist()) == {"train"} and not withheld & set(taken["doc_id"].to_pylist())
