"""A recipe's stages are trained one after the other, each from the one that it goes on from, and none of them twice."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.commands.export import export_command
from pipelines.commands.gc import _current_folders
from pipelines.jobs.mix import write_selection
from pipelines.jobs.train import trainer_words
from pipelines.report.findings import gather
from pipelines.report.page import render
from pipelines.request import RunRequest
from pipelines.run_folder import RunFolder, StepRecord, require_step, write_step
from pipelines.steps import step_named
from pipelines.training_stages import stage_named, trained_stages, training_stages
from storage.errors import InputError
from tests.stored_run import RECIPE, make_stored_run
from trainer.cli import main
from trainer.metrics import read_metrics

STAGES = """\
stages:
  - {name: long, tokens: 800}
  - {name: anneal, tokens: 300, sources: {wiki: {weight: 1}}, seed: 9}
  - {name: longer, after: long, tokens: 300, sequence_length: 64, rope_base: 50000, learning_rate: constant}
  - {name: anew, after: long, tokens: 200, learning_rate: preset}
"""
PRESET = """\
model: {hidden_size: 32, num_layers: 2, num_heads: 4, num_kv_heads: 2, ffn_size: 48, max_positions: 32}
training: {steps: 6, sequence_length: 32, global_batch: 4, micro_batch: 2, learning_rate: 1.0e-2, schedule: SCHEDULE,
  precision: fp32, device: cpu, threads: 1, min_learning_rate: 0.0, warmup_fraction: 0.5}
"""


@dataclasses.dataclass(frozen=True)
class StagedRun:
    folder: RunFolder
    request: RunRequest

    def plan(self, step: str) -> Any:
        return step_named(step).plan(self.request, self.folder)

    def train(self, step: str) -> list[str]:
        """Do what the job does, here; returns the trainer's command."""
        plan = self.plan(step)
        out = self.folder.checkpoints(plan.identity)
        arguments = {**plan.spec, "data": str(self.folder.mixture(plan.spec["mixture"])), "out": str(out)}
        if "parent" in plan.spec:
            arguments["parent"] = str(self.folder.checkpoints(plan.spec["parent"]))
        words = trainer_words(arguments)
        assert main(words) == 0
        result = {"checkpoints": plan.identity, **json.loads((out / "evaluation.json").read_bytes())}
        write_step(self.folder, StepRecord(step=step, identity=plan.identity, result=result, costs={}))
        return words

    def rates(self, step: str) -> list[float]:
        return [row["lr"] for row in read_metrics(self.out(step) / "metrics.jsonl")]

    def out(self, step: str) -> Path:
        return self.folder.checkpoints(require_step(self.folder, step).result["checkpoints"])


def make_staged_run(root: Path, schedule: str) -> StagedRun:
    run = make_stored_run(root)
    text = RECIPE.replace("tokens: {tokens}\n", "").replace("policy: policy.yaml", f"policy: {root / 'policy.yaml'}")
    (root / "staged.yaml").write_text(text + STAGES)
    (root / "preset.yaml").write_text(PRESET.replace("SCHEDULE", schedule))
    names = {"policy": require_step(run.folder, "judge").result["policy"], "tokenizer": run.vocabulary.name}
    result = write_selection({"root": str(run.folder.root), "recipe": str(root / "staged.yaml"), **names})
    write_step(run.folder, StepRecord(step="mix", identity="m", result=result, costs={}))
    write_step(run.folder, StepRecord(step="tokenize", identity="t", result=names, costs={}))
    values = {"recipe": str(root / "staged.yaml"), "preset": str(root / "preset.yaml")}
    request = RunRequest(out=str(run.folder.root), **values)
    (run.folder.root / "run.json").write_text(json.dumps({"request": request.to_json()}))
    return StagedRun(run.folder, request)


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> StagedRun:
    """All four stages trained, the first at a constant rate."""
    run = make_staged_run(tmp_path_factory.mktemp("staged"), "constant")
    for stage in training_stages(require_step(run.folder, "mix").result):
        run.train(stage.step)
    return run


def test_each_stage_goes_on_from_the_one_before(staged: StagedRun) -> None:
    stages = training_stages(require_step(staged.folder, "mix").result)
    assert [(stage.step, stage.parent) for stage in stages] == [
        ("train", None), ("train-anneal", "train"), ("train-longer", "train"), ("train-anew", "train"),
    ]  # fmt: skip
    first = json.loads((staged.out("train") / "run.json").read_text())
    for stage in stages[1:]:
        run = json.loads((staged.out(stage.step) / "run.json").read_text())
        origin = json.loads((staged.out(stage.step) / "origin.json").read_text())
        assert run["mixture"] == stage.mixture != first["mixture"] and run["parent"]
        assert origin["stage"] == 2 and origin["parents"][0]["name"].startswith("stage1-step6-")


def test_rates_are_as_the_recipe_says(staged: StagedRun) -> None:
    assert staged.rates("train")[3:] == [1e-2] * 3
    anneal = staged.rates("train-anneal")
    assert anneal == pytest.approx([1e-2 * (1 - step / len(anneal)) for step in range(1, len(anneal) + 1)])
    assert set(staged.rates("train-longer")) == {1e-2}
    anew = staged.rates("train-anew")
    assert anew[-1] == 1e-2 and (len(anew) == 1 or anew[0] < 1e-2)


def test_seed_length_and_base_are_as_the_recipe_says(staged: StagedRun) -> None:
    run = json.loads((staged.out("train-longer") / "run.json").read_text())
    assert (run["model"]["rope_base"], run["model"]["max_positions"]) == (50_000, 64)
    assert (run["training"]["sequence_length"], run["training"]["global_batch"]) == (64, 2)
    assert json.loads((staged.out("train-anneal") / "run.json").read_text())["training"]["seed"] == 9


def test_a_finished_stage_keeps_its_identity_when_a_later_one_changes(staged: StagedRun, tmp_path: Path) -> None:
    recipe = Path(staged.request.recipe)
    other = recipe.with_name("other.yaml")
    other.write_text(recipe.read_text().replace("seed: 9", "seed: 10"))
    changed = StagedRun(staged.folder, dataclasses.replace(staged.request, recipe=str(other)))
    for step in ("train", "train-longer", "train-anew"):
        assert changed.plan(step).identity == staged.plan(step).identity == staged.out(step).name
    assert changed.plan("train-anneal").identity != staged.plan("train-anneal").identity


def test_the_report_and_gc_know_every_stage(staged: StagedRun) -> None:
    found = gather(staged.folder.root)
    assert [one["stage"] for one in found["trainings"]] == ["long", "anneal", "longer", "anew"]
    page = render(
        {"name": "run", "run": found["run"], "funnel": [], "costs": [], "results": {}}
        | {name: found[name] for name in ("trainings", "evaluation")}
    )
    assert "After each stage" in page and "Training loss of stage anneal by step" in page
    kept = set(_current_folders(staged.folder))
    assert {staged.out(stage.step) for stage, _ in trained_stages(staged.folder)} <= kept


def test_after_a_stage_that_fell_to_zero_the_next_begins_at_a_tenth(tmp_path: Path) -> None:
    run = make_staged_run(tmp_path, "linear")
    run.train("train")
    assert run.rates("train")[-1] == 0.0
    words = run.train("train-anneal")
    assert words[words.index("--learning-rate") + 1] == "0.001"
    assert run.rates("train-anneal")[-1] == 0.0


@pytest.mark.parametrize("form", ["shards", "megatron"])
def test_any_stage_is_exported_by_its_name(staged: StagedRun, tmp_path: Path, form: str) -> None:
    tokens = {}
    for stage in training_stages(require_step(staged.folder, "mix").result):
        export_command(staged.folder.root, tmp_path / str(stage.name), form, stage=stage.name)
        own = json.loads((staged.folder.mixture(stage.mixture) / "blend.json").read_text())["train_tokens"]
        tokens[stage.name] = own
        written = tmp_path / str(stage.name) / ("blend.json" if form == "shards" else "README.md")
        assert (f'"train_tokens": {own}' if form == "shards" else f"{own:,} tokens") in written.read_text()
    assert len(set(tokens.values())) > 1
    with pytest.raises(InputError, match="no stage `cool`"):
        export_command(staged.folder.root, tmp_path / "cool", form, stage="cool")


def test_a_stage_that_there_is_not_is_refused(staged: StagedRun) -> None:
    mixed = require_step(staged.folder, "mix").result
    assert stage_named(mixed, "longer").mixture == mixed["stages"][2]["mixture"]
    with pytest.raises(InputError, match="no stage `cool`") as caught:
        stage_named(mixed, "cool")
    assert caught.value.hint == "its stages: long, anneal, longer, anew"
