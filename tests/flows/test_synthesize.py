"""Synthesis for real: the command, Prefect, Ray, a server; and a run that mixes what was written with a crawl."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipelines.run_folder import RunFolder, require_step
from storage.manifests import open_dataset
from tests.flows.conftest import RECIPE, FinishedRun, gristmill, run_options
from tests.rating_server import rating_server
from tests.writer import write_answer

SOURCE = "synthetic/chain_of_thought"
MIXED = "\n  - {name: reasoned, where: \"source = 'synthetic/chain_of_thought'\", weight: 1, max_epochs: 4}\n"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_is_written_is_mixed_into_another_run(finished_run: FinishedRun, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "copy")
    shutil.copytree(finished_run.folder.root, folder.root, symlinks=True)
    with rating_server() as server:
        server.say = write_answer
        asked = ["synthesize", "--out", str(folder.root), "--server", server.url, "--where", "text_bytes > 500"]
        done = gristmill(*asked, home=finished_run.home, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        first = server.asked.total()
        again = gristmill(*asked, home=finished_run.home)
        assert server.asked.total() == first
    documents = Path(done.stdout.split("documents:")[1].strip())
    assert f"documents: {documents}" in again.stdout
    dataset = open_dataset(documents)
    assert dataset.manifest.rows == dataset.manifest.facts["documents"] > 20
    assert dataset.manifest.facts["tokens"].keys() == {"segment", "abstract", "question"}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("\nsources:", f"\nsources:{MIXED}"))
    shutil.copy(finished_run.inputs.web / "policy.yaml", tmp_path)
    out = RunFolder(tmp_path / "mixed")
    mixed = ["--documents", str(documents), "--recipe", str(recipe)]
    done = gristmill(*run_options(finished_run.inputs, out.root, *mixed), home=finished_run.home, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    read = open_dataset(out.documents)
    rows = [row for part in read.parts for row in read.read(part, ["doc_id", "source"]).to_pylist()]
    written = {row["doc_id"] for row in rows if row["source"] == SOURCE}
    known = {row for part in dataset.parts for row in dataset.read(part, ["doc_id"])["doc_id"].to_pylist()}
    assert written == known
    assert "reasoned" in json.dumps(dict(require_step(out, "mix").result)) + done.stdout
