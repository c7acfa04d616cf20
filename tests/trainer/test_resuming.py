"""A run goes on from any step in any layout, and ends in bounded time, in words, when one of its processes is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.distributed.fsdp
import torch.distributed.pipelining  # imported before any fork  # noqa: F401

from tests.trainer.processes import free_port, run_processes, start_process
from tests.trainer.shapes import DEEPSEEK
from trainer.checkpoints.folders import checkpoint_folder
from trainer.data.mixture import open_mixture
from trainer.metrics import read_metrics
from trainer.parallel.roll_call import LostWorker
from trainer.parallel.world import join_world
from trainer.plans import make_plan
from trainer.settings import Preset
from trainer.train import Run

MakePreset = Callable[..., Preset]


def make_run(data: Path, preset: Preset, out: Path, world: Any) -> Run:
    mixture = open_mixture(data)
    return Run(mixture, make_plan(mixture, preset, world), out, world, lambda _: None)


def run_loop(data: Path, preset: Preset, out: Path) -> list[float]:
    with join_world("cpu") as world:
        run = make_run(data, preset, out, world)
        run.resume()
        run.train()
        world.wait()
    return losses(out)


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(out / "metrics.jsonl")]


def start_at(whole: Path, step: int, out: Path) -> Path:
    """A folder that holds a run as it was after `step`."""
    out.mkdir()
    for name in ("run.json", "metrics.jsonl"):
        shutil.copy(whole / name, out)
    if step:
        shutil.copytree(checkpoint_folder(whole, step), checkpoint_folder(out, step))
    return out


RELAY: list[tuple[int, dict[str, Any]]] = [
    (1, {}),
    (2, {"tensor_parallel": 2}),
    (2, {}),
    (4, {"data_parallel_shard": 2, "tensor_parallel": 2, "sequence_parallel": True}),
    (2, {"pipeline_parallel": 2, "micro_batch": 1}),
    (1, {}),
]
LEG = 2


def test_a_run_is_handed_from_layout_to_layout(mixture_folder: Path, tmp_path: Path, make_preset: MakePreset) -> None:
    """Two steps each: alone, TP 2, DP 2, FSDP 2 × TP 2 with sequence, PP 2, alone."""
    steps = LEG * len(RELAY)
    expected = run_loop(mixture_folder, make_preset(steps=steps), tmp_path / "whole")
    found: list[float] = []
    for number, (size, settings) in enumerate(RELAY):
        notes, preset = tmp_path / f"{number}.json", make_preset(steps=steps, **settings)

        def leg(rank: int, preset: Preset = preset, notes: Path = notes) -> None:
            with join_world("cpu") as world:
                run = make_run(mixture_folder, preset, tmp_path / "relay", world)
                run.resume()
                own = [run.run_step()[0] for _ in range(LEG)]
                run.save()
                run.saver.finish()
                if rank == 0:
                    notes.write_text(json.dumps(own))
                world.wait()

        run_processes(size, leg, tmp_path / "logs") if size > 1 else leg(0)
        found += json.loads(notes.read_text())
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_thirty_steps_resumed_at_every_one_of_them(
    mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    """To the bit with as many processes, in float32 to 1e-5 with two instead of one."""
    preset = make_preset(steps=30, save_every=1, keep=40)
    whole = tmp_path / "whole"
    expected = run_loop(mixture_folder, preset, whole)
    sparse = make_preset(steps=30, save_every=30)
    for step in range(30):
        again = start_at(whole, step, tmp_path / f"one {step}")
        assert run_loop(mixture_folder, sparse, again) == expected
        for name in ("model.safetensors", "training.safetensors"):
            files = [checkpoint_folder(folder, 30) / name for folder in (again, whole)]
            assert files[0].read_bytes() == files[1].read_bytes()
        two = start_at(whole, step, tmp_path / f"two {step}")
        run_processes(2, lambda _, two=two: run_loop(mixture_folder, sparse, two), tmp_path / "logs")
        assert losses(two) == pytest.approx(expected, rel=1e-5)


def make_training(kind: str, make_preset: MakePreset, **changes: Any) -> Preset:
    preset = make_preset(steps=12, micro_batch=1, **changes)
    return Preset(name=kind, model=DEEPSEEK, training=preset.training) if kind == "deepseek_v3" else preset


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        ("llama", {}),
        ("llama", {"data_parallel_shard": 2, "tensor_parallel": 2, "sequence_parallel": True}),
        ("deepseek_v3", {"expert_parallel": 2, "data_parallel_shard": 2}),
        ("deepseek_v3", {"expert_parallel": 2, "pipeline_parallel": 2}),
    ],
    ids=["data 4", "shard 2 × tensor 2", "expert 2 × shard 2", "expert 2 × pipeline 2"],
)
def test_one_process_goes_on_from_every_step_of_four_and_four_from_every_step_of_one(
    kind: str, layout: dict[str, Any], mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    """Losses to the end within 1e-5 of the uninterrupted run's; the resumed ones of four are one start of them."""
    dense, sparse = {"save_every": 1, "keep": 20}, {"save_every": 20}
    one, four = tmp_path / "one", tmp_path / "four"
    expected = run_loop(mixture_folder, make_training(kind, make_preset, **dense), one)
    preset = make_training(kind, make_preset, **dense, **layout)
    run_processes(4, lambda _: run_loop(mixture_folder, preset, four), tmp_path / "logs")
    assert losses(four) == pytest.approx(expected, rel=1e-5)

    for step in range(1, 12):
        again = start_at(four, step, tmp_path / f"one from {step}")
        found = run_loop(mixture_folder, make_training(kind, make_preset, **sparse), again)
        assert found == pytest.approx(expected, rel=1e-5)

    folders = [start_at(one, step, tmp_path / f"four from {step}") for step in range(1, 12)]
    preset = make_training(kind, make_preset, **sparse, **layout)

    def go_on(_: int) -> None:
        with join_world("cpu") as world:
            for folder in folders:
                run = make_run(mixture_folder, preset, folder, world)
                run.resume()
                run.train()
            world.wait()

    run_processes(4, go_on, tmp_path / "logs", longest_seconds=200)
    for folder in folders:
        assert losses(folder) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("end", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
def test_a_lost_process_is_named_and_the_others_end(
    end: signal.Signals, mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    def work(rank: int) -> None:
        with join_world("cpu", timeout_minutes=0.2) as world, world.together("here"):
            run = make_run(mixture_folder, make_preset(steps=50), tmp_path / "out", world)
            run.resume()
            for step in range(1, 51):
                world.at(step)
                if step == 8 and rank == 1:
                    time.sleep(1.5)
                    os.kill(os.getpid(), end)
                run.run_step()

    port, start = free_port(), time.monotonic()
    (tmp_path / "logs").mkdir()
    first, second = (start_process(rank, 2, port, work, tmp_path / "logs") for rank in range(2))
    os.waitpid(first, 0)
    os.kill(second, signal.SIGKILL)
    os.waitpid(second, 0)
    log = (tmp_path / "logs" / "0.log").read_text()
    assert time.monotonic() - start < 60
    assert LostWorker.__name__ in log and "process 1 of 2 is gone" in log and "process 0 was waiting at step 8" in log


KILLER = """
import os, sys
from pathlib import Path
from trainer import train
from trainer.cli import main

step, marker = train.Run.run_step, Path(sys.argv.pop(1))
def run_step(self):
    if self.step == 7 and self.world.rank == 1 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), 9)
    return step(self)
train.Run.run_step = run_step
sys.exit(main())
"""


@pytest.mark.slow
def test_torchrun_restarts_a_killed_run_which_ends_the_same(
    mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    preset = tmp_path / "preset.yaml"
    model = "".join(f"  {name}: {value}\n" for name, value in make_preset().model.items())
    preset.write_text(f"model:\n{model}training:\n  steps: 12\n")
    (tmp_path / "killer.py").write_text(KILLER)
    options = [
        "train", "--data", str(mixture_folder), "--preset", str(preset), "--device", "cpu", "--precision", "fp32",
        "--sequence-length", "32", "--global-batch", "4", "--micro-batch", "2", "--threads", "1", "--save-every", "3",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    alone = [sys.executable, "-m", "trainer", *options, "--out", str(tmp_path / "alone")]
    subprocess.run(alone, check=True, env=environment, capture_output=True, timeout=120)
    torchrun = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1",
        str(tmp_path / "killer.py"), str(tmp_path / "marker"), *options, "--out", str(tmp_path / "two"),
    ]  # fmt: skip
    done = subprocess.run(torchrun, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "marker").exists() and "resumed after step 6" in done.stdout
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "alone"), rel=1e-5)
