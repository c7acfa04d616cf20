"""A run of one recipe file: what its licences hold back is measured, planned, explained, and in no bin."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.run_folder import RunFolder, require_step
from storage.manifests import open_dataset
from tests.flows.conftest import POLICY, gristmill
from tokenizer.encode import Encoder
from tokenizer.vocabulary import read_vocabulary

RECIPE = """\
format_version: 1
name: one_file
seed: 7
sequence_length: 64
policy: policy.yaml
tokenizer: {train: {vocabulary_size: 500}}
heldout: {share: 0.1}
inputs:
  open: {jsonl: open.jsonl, columns: {text: body, url: meta.link}, licence: CC-BY-4.0}
  forum: {jsonl: forum.jsonl, licence: CC-BY-NC-4.0}
  feed: {text: "feed.txt?separator=<|endoftext|>", metadata_only: true}
sources:
  - {name: all, where: "true"}
"""


def story(number: int, words: str) -> str:
    """Sixty words and more, no two alike."""
    return " ".join(f"{word} {number * 7 + i}" for i, word in enumerate((words * 20).split())) + "."


def write_inputs(folder: Path) -> None:
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "recipe.yaml").write_text(RECIPE)
    posts = [{"body": story(i, "a girl went home"), "meta": {"link": f"https://e.org/{i}"}} for i in range(60)]
    (folder / "open.jsonl").write_text("".join(json.dumps(post) + "\n" for post in posts))
    forum = [{"text": story(i, "the zyxwvut of it"), "url": f"https://forum.org/{i}"} for i in range(20)]
    (folder / "forum.jsonl").write_text("".join(json.dumps(post) + "\n" for post in forum))
    (folder / "feed.txt").write_text("<|endoftext|>".join(story(i, "the qponmlk of it") for i in range(20)))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_token_of_what_is_held_back_is_in_any_bin(prefect_home: Path, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    out, recipe = tmp_path / "run", str(tmp_path / "recipe.yaml")
    done = gristmill(
        "run", "--recipe", recipe, "--train-steps", "2", "--out", str(out), home=prefect_home, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = RunFolder(out)
    assert require_step(folder, "ingest").result["documents"] == 100
    assert sum(part.rows for part in open_dataset(folder.measured).parts) == 100
    vocabulary = read_vocabulary(folder.vocabulary(require_step(folder, "tokenize").result["tokenizer"]))
    bins = [np.fromfile(path, vocabulary.vocabulary.dtype) for path in (out / "tokens").rglob("*.bin")]
    text = "".join(Encoder(vocabulary, fast=False).decode(ids) for ids in bins)
    assert "girl" in text and "zyxwvut" not in text and "qponmlk" not in text

    planned = json.loads(gristmill("plan", recipe, "--out", str(out), "--json", home=prefect_home).stdout)
    decided = require_step(folder, "judge").result["decided"]
    told = {(row["source"], row["rule"]): row["documents"] for row in planned["held_back"]}
    rules = {("feed", "metadata_only"), ("forum", "licence_not_permissive")}
    assert told == {(source, rule): decided[rule] for source, rule in rules} and min(told.values()) > 5
    reasons = open_dataset(folder.decisions(require_step(folder, "judge").result["policy"]) / "reasons")
    held = [
        row
        for part in reasons.parts
        for row in reasons.read(part).to_pylist()
        if row["rule"] == "licence_not_permissive"
    ]
    why = gristmill("why", held[0]["doc_id"].hex(), "--out", str(out), home=prefect_home).stdout
    assert "licence_not_permissive" in why and "licence=CC-BY-NC-4.0" in why
