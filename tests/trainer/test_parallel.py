"""Several processes give the single one's losses in every layout, and read each other's checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.trainer.processes import run_processes
from trainer.checkpoints.folders import latest_checkpoint
from trainer.data.mixture import open_mixture
from trainer.metrics import read_metrics
from trainer.parallel.world import join_world
from trainer.plans import make_plan
from trainer.settings import Preset
from trainer.train import Run

MakePreset = Callable[..., Preset]
STEPS = 6


def run_loop(data: Path, preset: Preset, out: Path) -> list[float]:
    mixture = open_mixture(data)
    with join_world("cpu") as world:
        run = Run(mixture, make_plan(mixture, preset, world), out, world, lambda _: None)
        run.resume()
        run.train()
        world.wait()
    return [row["loss"] for row in read_metrics(out / "metrics.jsonl")]


EXPERTS = {
    "kind": "deepseek_v3", "hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_positions": 64,
    "kv_latent_size": 16, "qk_size": 8, "qk_rope_size": 4, "v_size": 8, "ffn_size": 48, "num_dense_layers": 0,
    "expert_ffn_size": 16, "shared_ffn_size": 16, "num_experts": 8, "experts_per_token": 2, "num_predictors": 1,
    "bias_update_rate": 0.05, "balance_coefficient": 0.01,
}  # fmt: skip


def test_experts_are_balanced_by_the_load_of_all_processes_and_batches(
    mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    alone, shared = (
        Preset(name="experts", model=EXPERTS, training=make_preset(steps=STEPS, micro_batch=size).training)
        for size in (4, 1)
    )
    expected = run_loop(mixture_folder, alone, tmp_path / "alone")
    run_processes(2, lambda rank: run_loop(mixture_folder, shared, tmp_path / "two"), tmp_path / "logs")
    found = [row["loss"] for row in read_metrics(tmp_path / "two" / "metrics.jsonl")]
    assert found == pytest.approx(expected, rel=1e-5)
    biases = [
        {name: tensor for name, tensor in latest_checkpoint(tmp_path / run).model().items() if "bias_E" in name}  # type: ignore[union-attr]
        for run in ("alone", "two")
    ]
    assert len(biases[0]) == 3
    for name, tensor in biases[0].items():
        assert float(tensor.abs().max()) > 0.09 and torch.equal(tensor, biases[1][name])


def test_two_processes_give_the_single_ones_losses(
    mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    preset = make_preset(steps=STEPS, save_every=2, keep=9)
    expected = run_loop(mixture_folder, preset, tmp_path / "alone")
    run_processes(2, lambda rank: run_loop(mixture_folder, preset, tmp_path / "two"), tmp_path / "logs")
    found = [row["loss"] for row in read_metrics(tmp_path / "two" / "metrics.jsonl")]
    assert found == pytest.approx(expected, rel=1e-5)
