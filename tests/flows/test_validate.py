"""Validation for real: the command, Prefect, Ray, and small models that are trained and measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipelines.run_folder import RunFolder
from tests.flows.conftest import FinishedRun, gristmill

ASKED = ["--groups", "2", "--tokens", "3000", "--heldout", "300", "--max-epochs", "8", "--reference"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_buckets_are_validated_and_the_run_stays_as_it_is(finished_run: FinishedRun, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "copy")
    shutil.copytree(finished_run.folder.root, folder.root, symlinks=True)
    before = {path: path.read_bytes() for path in folder.steps.iterdir()}
    asked = ["validate", "--out", str(folder.root), *ASKED, "source = 'encyclopedia'"]
    done = gristmill(*asked, home=finished_run.home, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(Path(done.stdout.split("result:")[1].strip()).read_bytes())
    assert [row["range"] for row in result["rows"]] == ["b00-09", "b10-19"]
    assert all(0 < row[name] < 8 for row in result["rows"] for name in ("reference", "others"))
    assert len({row["tokens"] for row in result["rows"]}) == 1
    assert {path: path.read_bytes() for path in folder.steps.iterdir()} == before
    again = gristmill(*asked, home=finished_run.home)
    assert again.stdout == done.stdout[done.stdout.index("buckets  tokens") :]
    refused = gristmill(*asked, "--tokens", "50000000", home=finished_run.home, check=False)
    assert refused.returncode == 2 and "b00-09" in refused.stderr
