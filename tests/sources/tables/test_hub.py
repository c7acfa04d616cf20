"""Datasets of the hub: a revision is resolved once and exactly its commit is read; what is not there is listed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.sources.tables.fake_hub import Hub, serve

OLD, NEW = "a" * 40, "b" * 40
README = b"""---
configs:
- config_name: en
  default: true
  data_files:
  - {split: train, path: en/train.jsonl}
  - {split: test, path: en/test.jsonl}
- config_name: zh
  data_files:
  - {split: train, path: zh/train.jsonl}
---
"""
READ = """
import dataclasses, json, sys
from sources.tables.huggingface import read_huggingface
from sources.inputs import expand_inputs, identify
from sources.reading import ReadConfig
from storage.errors import InputError

for name in sys.argv[1:]:
    try:
        [raw] = expand_inputs("s", [name], kind="huggingface")
        readings = list(read_huggingface(raw, ReadConfig()))
        print(json.dumps({"name": raw.name, "identity": identify(raw), "texts": [reading.text for reading in readings],
                          "ids": [reading.doc_id.hex() for reading in readings]}))
    except InputError as error:
        print(json.dumps({"error": str(error)}))
"""


def lines(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


def commit(mark: str) -> dict[str, bytes]:
    return {
        "README.md": README,
        "en/train.jsonl": lines(f"{mark} one", f"{mark} two"),
        "en/test.jsonl": lines(f"{mark} test"),
        "zh/train.jsonl": lines(f"{mark} 磨"),
    }


GOOD = (
    "owner/name",
    "owner/name?revision=v1",
    f"owner/name?revision={OLD}",
    "owner/name?subset=zh&split=train",
    "owner/name?split=test&revision=v1",
)
BAD = ("owner/name?subset=fr", "owner/name?split=dev", "owner/name?revision=v9", "owner/other")


@pytest.fixture(scope="module")
def asked_and_found(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, Any]]:
    """The paths that a process asked its hub for, and what it read of each name; one process, for it opens torch."""
    with serve(Hub("owner/name", {"main": NEW, "v1": OLD}, {OLD: commit("old"), NEW: commit("new")})) as hub:
        home = str(tmp_path_factory.mktemp("hf"))
        done = subprocess.run(
            [sys.executable, "-c", READ, *GOOD, *BAD],
            env={**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": home, "HF_HUB_OFFLINE": "0"},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return hub.asked, dict(zip((*GOOD, *BAD), answers, strict=True))


def test_the_commit_that_a_revision_is_now_is_what_is_read(asked_and_found: tuple[list[str], dict[str, Any]]) -> None:
    asked, found = asked_and_found
    main, tagged, pinned, subset, split = (found[name] for name in GOOD)
    assert (main["texts"], main["identity"], main["name"]) == (["new one", "new two"], f"commit:{NEW}", "owner/name")
    assert tagged == pinned and tagged["texts"] == ["old one", "old two"] and tagged["identity"] == f"commit:{OLD}"
    assert tagged["ids"] == main["ids"]
    assert (subset["name"], subset["texts"]) == ("owner/name?subset=zh", ["new 磨"])
    assert (split["name"], split["texts"]) == ("owner/name?split=test", ["old test"])
    read_at = {path.split("/")[5] for path in asked if "/resolve/" in path}
    assert read_at == {OLD, NEW}, "files are asked for by commit alone, never by a branch that may have moved"


def test_what_is_not_there_is_answered_with_what_is(asked_and_found: tuple[list[str], dict[str, Any]]) -> None:
    subset, split, revision, owner = (asked_and_found[1][name]["error"] for name in BAD)
    assert "has no subset `fr`; it has `en`, `zh`" in subset and "?subset=en" in subset
    assert "has no split `dev`; it has `train`, `test`" in split
    assert "has no revision `v9`" in revision and "`main`, `v1`" in revision
    assert "no dataset `owner/other`" in owner
