"""Annotation for real: the command, Prefect, Ray, a server; and a head that learns from what it said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from classifiers.annotation.labels import KIND
from pipelines.run_folder import RunFolder, require_step
from storage.manifests import open_dataset
from tests.flows.conftest import FinishedRun, gristmill, run_options
from tests.rating_server import rating_server

KEY = "sk-very-secret-0123456789"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_is_annotated_and_scored_by_its_labels(finished_run: FinishedRun, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "copy")
    shutil.copytree(finished_run.folder.root, folder.root, symlinks=True)
    out = str(folder.root)
    with rating_server() as server:
        server.key = KEY
        asked = ["annotate", "--out", out, "--server", server.url, "--sample", "100", "--api-key-env", "TOY_KEY"]
        done = gristmill(*asked, home=finished_run.home, check=False, TOY_KEY=KEY)
        assert done.returncode == 0, done.stdout + done.stderr
        labels = Path(done.stdout.split("labels:")[1].strip())
        first = server.asked.total()
        again = gristmill(*asked, home=finished_run.home, TOY_KEY=KEY)
        assert server.asked.total() == first and str(labels) in again.stdout
        refused = gristmill(*asked, home=finished_run.home, check=False, TOY_KEY="wrong")
        assert refused.returncode == 2 and "401" in refused.stderr
    dataset = open_dataset(labels)
    assert dataset.manifest.kind == KIND and dataset.manifest.rows == 100
    assert {stratum["source"] for stratum in dataset.manifest.facts["strata"]} == {"web", "encyclopedia"}
    secret = [path for path in folder.root.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert not secret and KEY not in done.stdout + done.stderr + refused.stderr
    gristmill(*run_options(finished_run.inputs, folder.root, "--labels", str(labels)), home=finished_run.home)
    assert "educational_direct_en" in json.dumps(dict(require_step(folder, "score").result))
