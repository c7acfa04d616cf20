"""The same run with one input more searches what is new, and decides as a run of everything at once does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.run_folder import RunFolder, require_step
from storage.manifests import read_manifest
from tests.flows.conftest import FinishedRun, gristmill, run_options


def verdicts(folder: RunFolder) -> list[str]:
    """The checksums of the verdicts, part by part."""
    decisions = folder.decisions(require_step(folder, "judge").result["policy"])
    return [part.sha256 for part in read_manifest(decisions / "verdicts").parts]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_with_one_input_more_compares_only_what_is_new(finished_run: FinishedRun, tmp_path: Path) -> None:
    out, inputs = tmp_path / "growing", finished_run.inputs
    every, one = str(inputs.web / "*.warc.gz"), str(inputs.web / "a.warc.gz")
    first = [one if option == every else option for option in run_options(inputs, out)]
    done = gristmill(*first, home=finished_run.home, check=False, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    before = require_step(RunFolder(out), "deduplicate").result
    done = gristmill(*run_options(inputs, out), home=finished_run.home, check=False, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    after = require_step(RunFolder(out), "deduplicate").result
    assert after["anew"] == "" and 0 < after["added"] == after["documents"] - before["documents"]
    assert re.search(rf"{after['added']:,} documents compared", done.stdout)
    assert verdicts(RunFolder(out)) == verdicts(finished_run.folder)
