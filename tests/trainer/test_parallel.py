"""Several processes give the single one's losses in every layout, and read each other's checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trainer.processes import run_processes
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


def test_two_processes_give_the_single_ones_losses(
    mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    preset = make_preset(steps=STEPS, save_every=2, keep=9)
    expected = run_loop(mixture_folder, preset, tmp_path / "alone")
    run_processes(2, lambda rank: run_loop(mixture_folder, preset, tmp_path / "two"), tmp_path / "logs")
    found = [row["loss"] for row in read_metrics(tmp_path / "two" / "metrics.jsonl")]
    assert found == pytest.approx(expected, rel=1e-5)
