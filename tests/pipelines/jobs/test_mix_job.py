"""The mixing job on a recipe in stages: what it writes, says and records, and what `gc` leaves of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mixtures.policy import load_policy
from pipelines.commands.gc import find_garbage
from pipelines.jobs.mix import work_out, write_selection
from pipelines.request import REQUEST_FILE, RunRequest
from pipelines.run_folder import RunFolder, StepRecord, write_step
from pipelines.steps import STEPS
from tests.mixtures.tiny_run import KEEP_ALL, Doc, Run

TOKENIZER = "0" * 32
RECIPE = """\
format_version: 1
name: two
seed: 1
policy: policy.yaml
tokenizer: {load: t.json}
heldout: {tokens: 10}
sources:
  - {name: all, where: 'true'}
stages:
  - {name: long, tokens: 60}
  - {name: short, tokens: 30, sequence_length: 64, learning_rate: linear_to_zero}
"""


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, str]:
    run = Run(tmp_path / "run", [Doc(f"d{i}", tokens=10) for i in range(12)], 5)
    (tmp_path / "policy.yaml").write_text(KEEP_ALL)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    policy, folder = load_policy("policy.yaml", beside=tmp_path), RunFolder(run.root)
    run.judge(policy)
    run.tokenize()
    run.vocabulary()
    for made, wanted in (("tokens", folder.tokens(TOKENIZER)), ("vocabulary", folder.vocabulary(TOKENIZER))):
        shutil.move(run.root / made, run.root / "made")
        wanted.parent.mkdir(exist_ok=True)
        shutil.move(run.root / "made", wanted)
    request = RunRequest(out=str(run.root), recipe=str(tmp_path / "recipe.yaml"))
    (run.root / REQUEST_FILE).write_text(json.dumps({"request": request.to_json()}))
    return {
        "root": str(run.root),
        "recipe": str(tmp_path / "recipe.yaml"),
        "policy": policy.identity(),
        "tokenizer": TOKENIZER,
    }


def test_a_plan_of_stages_is_a_table_each_and_a_sum_of_all(arguments: dict[str, str]) -> None:
    found = work_out(arguments)
    assert "stage `long`, sequences of 1,024 tokens\n" in found["text"]
    assert "stage `short` after `long`, sequences of 64 tokens, learning rate: linear_to_zero\n" in found["text"]
    assert found["totals"]["given"] == found["tokens"] == 90
    assert [row["stage"] for row in found["rows"]] == ["long", "long", "short", "short"]


def test_every_stage_is_written_and_none_of_them_is_garbage(arguments: dict[str, str]) -> None:
    result, folder = write_selection(arguments), RunFolder(Path(arguments["root"]))
    assert [stage["stage"] for stage in result["stages"]] == ["long", "short"]
    assert result["mixture"] == result["stages"][0]["mixture"] and result["stages"][1]["after"] == "long"
    written = STEPS["mix"].outputs(folder, result)
    assert len({*written}) == 2 and all(path.exists() for path in written)
    assert STEPS["mix"].summarise(result) == "60 tokens as indices over the store, the first of 2 stages"
    write_step(folder, StepRecord(step="mix", identity="m", result=result, costs={}))
    earlier = folder.mixture("earlier")
    earlier.mkdir()
    assert [path for path in find_garbage(folder) if path.parent == earlier.parent] == [earlier]
