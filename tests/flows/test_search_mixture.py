"""A mixture search for real: the command, Prefect, Ray, and small models that are trained and measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mixtures.recipe import load_recipe
from pipelines.run_folder import RunFolder
from tests.flows.conftest import FinishedRun, gristmill

ASKED = ["--mixtures", "8", "--heldout-mixtures", "4", "--repeats", "1", "--final-seeds", "1", "--tokens", "4096"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_best_shares_are_found_and_the_run_stays_as_it_is(finished_run: FinishedRun, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "copy")
    shutil.copytree(finished_run.folder.root, folder.root, symlinks=True)
    before = {path: path.read_bytes() for path in folder.steps.iterdir()}
    asked = ["search-mixture", "--out", str(folder.root), *ASKED, "--heldout", "300"]
    done = gristmill(*asked, home=finished_run.home, check=False, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(Path(done.stdout.split("result:")[1].strip()).read_bytes())
    assert [row["name"] for row in result["sources"]] == ["web", "encyclopedia"]
    assert sum(row["best_share"] for row in result["sources"]) == pytest.approx(1)
    assert all(0 < result["trained"][name]["measured"] < 12 for name in ("best", "recipe"))
    assert len(result["proxies"]) == 8 + 4 + 2
    assert load_recipe(result["best_recipe"]).name == "small"
    assert {path: path.read_bytes() for path in folder.steps.iterdir()} == before
    again = gristmill(*asked, home=finished_run.home)
    assert again.stdout == done.stdout[done.stdout.rindex("\nsource ") + 1 :]
