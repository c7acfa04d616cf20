"""Distillation for real: a run's annotations and sources become classifiers by command, and these score the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipelines.run_folder import RunFolder
from storage.manifests import open_dataset
from tests.flows.conftest import FinishedRun, gristmill, run_options
from tests.rating_server import rating_server

RECIPE = """\
format_version: 1
name: encyclopedic
positive:
  - {{run: "{run}", where: "source = 'encyclopedia'", dropped: true}}
negative:
  - {{run: "{run}", where: "source = 'web'", dropped: true}}
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_annotations_and_sources_become_classifiers(finished_run: FinishedRun, tmp_path: Path) -> None:
    folder, home = RunFolder(tmp_path / "copy"), finished_run.home
    shutil.copytree(finished_run.folder.root, folder.root, symlinks=True)
    with rating_server() as server:
        done = gristmill("annotate", "--out", str(folder.root), "--server", server.url, "--sample", "150", home=home)
    labels = done.stdout.split("labels:")[1].strip()
    small = ["--frozen", "--max-tokens", "64", "--epochs", "2"]
    fitted = gristmill("fit", "encoder", labels, "--out", str(tmp_path / "judge"), *small, home=home)
    assert "quadratic weighted kappa" in fitted.stdout and str(tmp_path / "judge") in fitted.stdout
    facts = json.loads((tmp_path / "judge" / "gristmill.json").read_text())
    assert facts["task"] == "regression" and "rated by" in facts["origin"]["meaning"]
    again = gristmill("fit", "encoder", labels, "--out", str(tmp_path / "judge"), *small, home=home)
    assert "this model is finished" in again.stdout

    (tmp_path / "recipe.yaml").write_text(RECIPE.format(run=folder.root))
    command = ["fit", "fasttext", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "wiki"), "--buckets", "1000"]
    assert "macro f1" in gristmill(*command, home=home).stdout
    scorers = ["--score", f"judge={tmp_path / 'judge'}", "--score", f"wiki={tmp_path / 'wiki'}:positive=hq"]
    gristmill(*run_options(finished_run.inputs, folder.root, *scorers), home=home)
    catalogue = open_dataset(folder.catalogue)
    scores = catalogue.read(catalogue.parts[0])["scores"].to_pylist()
    values = [row["judge"]["value"] for row in scores if row["judge"]["value"] is not None]
    assert values and all(0 <= value <= 5 for value in values)
    assert all(0 <= row["wiki"]["value"] <= 1 for row in scores if row["wiki"]["value"] is not None)


@pytest.mark.slow
def test_what_is_no_data_is_told(finished_run: FinishedRun, tmp_path: Path) -> None:
    for data in ("nothing.yaml", str(tmp_path)):
        done = gristmill("fit", "encoder", data, "--out", str(tmp_path / "m"), home=finished_run.home, check=False)
        assert done.returncode == 2 and "no labelled texts here" in done.stderr and "hint:" in done.stderr
    assert not (tmp_path / "m").exists()
