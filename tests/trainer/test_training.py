"""Runs: golden losses, resuming at every step, killed and finished runs, several processes, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from storage.errors import DatasetError, EnvironmentMismatch, ModelError, ResourceError
from trainer import plans
from trainer.checkpoints.folders import Checkpoint, checkpoint_folder, latest_checkpoint
from trainer.data.mixture import open_mixture
from trainer.metrics import read_metrics
from trainer.parallel.layout import LayoutError
from trainer.parallel.world import join_world
from trainer.plans import TrainingError, make_plan
from trainer.settings import Preset
from trainer.train import Run, train

GOLDEN = Path(__file__).with_name("golden_losses.json")
MakePreset = Callable[..., Preset]


def silent(_: str) -> None:
    return None


def run_loop(data: Path, preset: Preset, out: Path, tell: Callable[[str], None] = silent) -> list[dict[str, Any]]:
    """Resume and train without the evaluation; the metrics of all steps."""
    mixture = open_mixture(data)
    with join_world("cpu") as world:
        run = Run(mixture, make_plan(mixture, preset, world), out, world, tell)
        run.resume()
        run.train()
    return read_metrics(out / "metrics.jsonl")


def latest(out: Path) -> Checkpoint:
    checkpoint = latest_checkpoint(out)
    assert checkpoint
    return checkpoint


def losses(rows: list[dict[str, Any]]) -> list[float]:
    return [row["loss"] for row in rows]


def test_twenty_steps_give_the_golden_loss(mixture_folder: Path, tmp_path: Path, make_preset: MakePreset) -> None:
    """Renew with `RENEW_GOLDEN=1 pytest tests/trainer`, and review the difference."""
    found = losses(run_loop(mixture_folder, make_preset(), tmp_path))
    if os.environ.get("RENEW_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=2) + "\n")
    assert found == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-4)
    assert found[0] == pytest.approx(5.95, abs=0.05)  # ln 384


def test_restored_at_every_step_a_run_equals_the_uninterrupted(
    mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    preset = make_preset(steps=12, save_every=1, keep=20)
    whole = tmp_path / "whole"
    expected = run_loop(mixture_folder, preset, whole)
    last = checkpoint_folder(whole, 12)
    for step in range(12):
        again = tmp_path / str(step)
        again.mkdir()
        for name in ("run.json", "metrics.jsonl"):
            shutil.copy(whole / name, again)
        if step:
            shutil.copytree(checkpoint_folder(whole, step), checkpoint_folder(again, step))
        rows = run_loop(mixture_folder, preset, again)
        assert [row["step"] for row in rows] == list(range(1, 13))
        assert losses(rows) == losses(expected)
        for name in ("model.safetensors", "training.safetensors"):
            assert (checkpoint_folder(again, 12) / name).read_bytes() == (last / name).read_bytes()


def test_accumulated_micro_batches_equal_one_batch(
    mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    whole = run_loop(mixture_folder, make_preset(micro_batch=4, eod_mask_loss=True), tmp_path / "whole")
    parts = run_loop(mixture_folder, make_preset(micro_batch=1, eod_mask_loss=True), tmp_path / "parts")
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-4)


def test_the_model_learns_more_than_frequencies(trained: Path) -> None:
    evaluation = json.loads((trained / "evaluation.json").read_text())
    assert evaluation["step"] == 150 and evaluation["tokens"] == 150 * 4 * 32
    assert set(evaluation["sources"]) == {"a", "b"}
    for score in evaluation["sources"].values():
        assert 0 < score["bits_per_byte"] < 0.6 * score["unigram_bits_per_byte"]
    prompts = [sample["prompt"] for sample in evaluation["samples"]]
    assert prompts[0] == "" and len(prompts) == 3
    assert any(word in evaluation["samples"][0]["text"] for word in ("miller", "river", "Mühle", "水车"))


def test_a_finished_run_returns_at_once(trained: Path, mixture_folder: Path, make_preset: MakePreset) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    told: list[str] = []
    train(mixture_folder, make_preset(steps=150, save_every=100), trained, tell=told.append)
    assert told == [f"finished already: 150 steps in {trained}"]
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_another_plan_is_refused_with_all_that_differs(
    trained: Path, mixture_folder: Path, make_preset: MakePreset
) -> None:
    with pytest.raises(DatasetError) as caught:
        train(mixture_folder, make_preset(steps=140, learning_rate=0.5), trained, tell=silent)
    told = str(caught.value)
    assert "training.steps: 150 there, 140 now" in told and "training.learning_rate: 0.01 there, 0.5 now" in told


def test_a_run_of_a_version_that_knew_less_goes_on(
    mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    """What its `run.json` does not know is as if it had been told the default; another value is another plan."""
    preset = make_preset(steps=4, save_every=2)
    train(mixture_folder, preset, tmp_path / "out", tell=silent)
    plan = tmp_path / "out/run.json"
    row = json.loads(plan.read_text())
    del row["parent"], row["training"]["z_loss"], row["model"]["qk_norm"], row["model"]["kind"]
    plan.write_text(json.dumps(row))
    told: list[str] = []
    train(mixture_folder, preset, tmp_path / "out", tell=told.append)
    assert told == [f"finished already: 4 steps in {tmp_path / 'out'}"]
    (tmp_path / "out/evaluation.json").unlink()
    train(mixture_folder, preset, tmp_path / "out", tell=silent)
    plan.write_text(json.dumps(row))
    with pytest.raises(DatasetError, match="training.z_loss: 0.0 there, 0.001 now"):
        train(mixture_folder, make_preset(steps=4, save_every=2, z_loss=1e-3), tmp_path / "out", tell=silent)


def test_a_damaged_last_checkpoint_is_told_and_replayed(
    mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    expected = losses(run_loop(mixture_folder, make_preset(), tmp_path))
    last = checkpoint_folder(tmp_path, 20)
    good = (last / "model.safetensors").read_bytes()
    (last / "model.safetensors").write_bytes(good[:-9])
    told: list[str] = []
    assert losses(run_loop(mixture_folder, make_preset(), tmp_path, told.append)) == expected
    assert "iter_0000020 is damaged: model.safetensors is not what was saved; going back to iter_0000015" in told[0]
    assert (last / "model.safetensors").read_bytes() == good


def test_a_loss_that_is_no_number_names_its_step(mixture_folder: Path, tmp_path: Path, make_preset: MakePreset) -> None:
    wild = make_preset(learning_rate=1e30, warmup_fraction=0.0, clip=0.0, save_every=1)
    with pytest.raises(
        TrainingError, match=r"(?s)step \d+: the loss is .*, the gradient norm nan.*--learning-rate"
    ) as caught:
        run_loop(mixture_folder, wild, tmp_path)
    stopped = int(str(caught.value).split()[1].rstrip(":"))
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint and checkpoint.step == stopped - 1
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == stopped - 1


def test_a_vocabulary_larger_than_the_models_is_refused(mixture_folder: Path, make_preset: MakePreset) -> None:
    preset = make_preset()
    small = Preset(name="x", model={**preset.model, "vocabulary_size": 128}, training=preset.training)
    with pytest.raises(ModelError, match="the vocabulary has .* entries, the model 128"):
        train(mixture_folder, small, Path("unused"), tell=silent)


def test_a_mixture_packed_for_another_length_is_told(
    fresh_mixture: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    blend = json.loads((fresh_mixture / "blend.json").read_bytes())
    for length in (32, 64):
        packing = {"method": "best-fit", "sequence_length": length}
        (fresh_mixture / "blend.json").write_text(json.dumps({**blend, "packing": packing}))
        told: list[str] = []
        train(fresh_mixture, make_preset(steps=1), tmp_path / str(length), tell=told.append)
        assert any("packed into sequences of 64 tokens" in line for line in told) == (length == 64)


def test_batches_that_do_not_divide_are_refused(mixture_folder: Path, make_preset: MakePreset) -> None:
    with pytest.raises(LayoutError, match="4 samples cannot be shared by 1 processes in batches of 3") as caught:
        train(mixture_folder, make_preset(micro_batch=3), Path("unused"), tell=silent)
    assert "`--micro-batch 1`" in str(caught.value)


def test_no_room_for_the_checkpoints_is_told_before_the_first_step(
    mixture_folder: Path, tmp_path: Path, make_preset: MakePreset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(ResourceError, match="3 more checkpoints take 1 MB, 0 MB are free"):
        train(mixture_folder, make_preset(), tmp_path, tell=silent)


def test_a_run_starts_from_the_weights_of_another(
    trained: Path, mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    still = {"steps": 1, "learning_rate": 1e-9, "warmup_fraction": 0.0}
    last = read_metrics(trained / "metrics.jsonl")[-1]["loss"]
    told: list[str] = []
    rows = run_loop(mixture_folder, make_preset(**still, init_from=str(trained)), tmp_path / "on", told.append)
    assert (
        rows[0]["loss"] == pytest.approx(last, abs=0.4)
        and rows[0]["loss"] < 3 < losses(run_loop(mixture_folder, make_preset(**still), tmp_path / "new"))[0]
    )
    assert f"starting from {checkpoint_folder(trained, 150)}, step 150" in told
    weights = [latest(folder).model()["norm.weight"] for folder in (trained, tmp_path / "on")]
    assert weights[0].allclose(weights[1])


@pytest.mark.parametrize("with_optimizer", [False, True])
def test_the_moments_come_along_when_asked_for(
    trained: Path, mixture_folder: Path, tmp_path: Path, make_preset: MakePreset, with_optimizer: bool
) -> None:
    preset = make_preset(steps=1, init_from=str(trained), init_optimizer=with_optimizer)
    run_loop(mixture_folder, preset, tmp_path)
    assert latest(tmp_path).training()["optimizer.norm.weight.step"].item() == (151 if with_optimizer else 1)


def test_the_parent_counts_by_its_content(
    trained: Path, mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    """A moved parent resumes the same run; another parent is another run."""
    shutil.copytree(trained, tmp_path / "moved")
    shutil.rmtree(checkpoint_folder(tmp_path / "moved", 150))
    preset = make_preset(steps=1, init_from=str(trained))
    run_loop(mixture_folder, preset, tmp_path / "out")
    shutil.copytree(checkpoint_folder(trained, 150), tmp_path / "elsewhere")
    (tmp_path / "elsewhere").rename(checkpoint_folder(tmp_path, 150))
    run_loop(mixture_folder, make_preset(steps=1, init_from=str(checkpoint_folder(tmp_path, 150))), tmp_path / "out")
    earlier = make_preset(steps=1, init_from=str(checkpoint_folder(tmp_path / "moved", 100)))
    with pytest.raises(DatasetError, match="parent: .* there, .* now"):
        run_loop(mixture_folder, earlier, tmp_path / "out")


def test_a_parent_of_another_tokenizer_is_refused(
    trained: Path, fresh_mixture: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    path = fresh_mixture / "tokenizer.json"
    path.write_text(path.read_text() + "\n")
    vocabulary = json.loads((fresh_mixture / "vocabulary.json").read_bytes())
    changed = {**vocabulary, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    (fresh_mixture / "vocabulary.json").write_text(json.dumps(changed))
    with pytest.raises(ModelError, match="the model to start from learned tokenizer"):
        run_loop(fresh_mixture, make_preset(init_from=str(trained)), tmp_path)


def test_compiling_without_a_compiler_is_refused(
    mixture_folder: Path, tmp_path: Path, make_preset: MakePreset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(EnvironmentMismatch, match="needs a C\\+\\+ compiler"):
        train(mixture_folder, make_preset(compile=True), tmp_path / "out", tell=silent)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_model_learns_the_same(
    mixture_folder: Path, tmp_path: Path, make_preset: MakePreset, precision: str
) -> None:
    found = [
        losses(
            run_loop(
                mixture_folder, make_preset(steps=8, compile=compile, precision=precision), tmp_path / str(compile)
            )
        )
        for compile in (False, True)
    ]
    assert found[1] == pytest.approx(found[0], rel=1e-5 if precision == "fp32" else 2e-2)


def test_bfloat16_products_keep_float32_weights_and_gradients(
    mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    """Weights, gradients and moments are float32; a step's gradient is the float64 one within bfloat16's products."""
    gradients = {}
    for precision, dtype in (("bf16", torch.float32), ("fp32", torch.float32), ("fp64", torch.float64)):
        told = "fp32" if precision == "fp64" else precision
        mixture = open_mixture(mixture_folder)
        preset = make_preset(precision=told, micro_batch=1)
        with join_world("cpu") as world:
            run = Run(mixture, make_plan(mixture, preset, world), tmp_path, world, silent)
            (model,) = run.share.models
            model.to(dtype)
            run.optimizer.step = lambda: None  # type: ignore[method-assign, assignment]
            run.optimizer.zero_grad = lambda set_to_none: None  # type: ignore[method-assign, assignment]
            run.run_step()
        found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert {parameter.dtype for parameter in model.parameters()} == {grad.dtype for grad in found} == {dtype}
        gradients[precision] = torch.cat([grad.flatten().double() for grad in found])
    exact = gradients["fp64"]
    off = {name: float((gradients[name] - exact).norm() / exact.norm()) for name in ("fp32", "bf16")}
    assert off["fp32"] < 1e-5 and 1e-5 < off["bf16"] < 1e-2
