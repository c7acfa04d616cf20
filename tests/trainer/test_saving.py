"""Saving while training goes on: nothing is lost to a kill, a full disk, or a step that comes too early."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from storage.errors import ResourceError
from tests.trainer.processes import free_port, run_processes, start_process
from trainer.checkpoints import sharded
from trainer.checkpoints.folders import latest_checkpoint, saved_steps
from trainer.checkpoints.pieces import Pieces
from trainer.checkpoints.saving import Saver
from trainer.data.mixture import open_mixture
from trainer.metrics import read_metrics
from trainer.parallel.roll_call import LostWorker
from trainer.parallel.world import join_world
from trainer.plans import make_plan
from trainer.settings import Preset
from trainer.train import Run

MakePreset = Callable[..., Preset]


def make_saver(out: Path, *, in_background: bool, told: list[str], group: Any = None) -> Saver:
    return Saver(
        out,
        keep=2,
        keep_every=0,
        in_background=in_background,
        group=group,
        say=told.append,
        saved=lambda folder: told.append(f"saved {folder.name}"),
    )


def slow_down(monkeypatch: pytest.MonkeyPatch, until: threading.Event) -> None:
    """Files are written only when `until` is set."""
    real = sharded.save_file

    def wait_and_save(*args: Any) -> None:
        until.wait()
        real(*args)

    monkeypatch.setattr(sharded, "save_file", wait_and_save)


def test_in_the_background_what_is_saved_is_the_state_of_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    saver, go_on = make_saver(tmp_path, in_background=True, told=told), threading.Event()
    slow_down(monkeypatch, go_on)
    weight = torch.full((64,), 5.0)
    saver.save({"step": 5}, model={"w": weight}, training={"m": Pieces.whole(weight)})
    weight += 1
    saver.tell()
    assert saved_steps(tmp_path) == [] and not told
    go_on.set()
    saver.finish()
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint and checkpoint.model()["w"].tolist() == checkpoint.training()["m"].tolist() == [5.0] * 64
    assert told == ["saved iter_0000005"]


@pytest.mark.parametrize("in_background", [False, True])
def test_a_full_disk_is_told_and_only_the_last_save_must_succeed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_background: bool
) -> None:
    def fail(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    told: list[str] = []
    saver = make_saver(tmp_path, in_background=in_background, told=told)
    tensors = {"w": torch.zeros(8)}
    saver.save({"step": 5}, model=tensors, training=tensors)
    saver.finish()
    with monkeypatch.context() as patch:
        patch.setattr(sharded, "save_file", fail)
        saver.save({"step": 10}, model=tensors, training=tensors)
        saver.finish()
        assert "a checkpoint was not saved, and training goes on: the disk is full" in told[-1]
        with pytest.raises(ResourceError, match="the disk is full"):
            saver.save({"step": 15}, model=tensors, training=tensors, is_last=True)
    assert saved_steps(tmp_path) == [5] and not list(tmp_path.glob(".tmp-*"))
    saver.save({"step": 15}, model=tensors, training=tensors)
    saver.finish()
    assert saved_steps(tmp_path) == [15, 5]


def test_killed_while_the_background_writes_the_checkpoint_before_stays(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        saver = make_saver(tmp_path, in_background=True, told=[])
        saver.save({"step": 5}, model={"w": torch.full((8,), 5.0)}, training={})
        saver.finish()
        sharded.save_file = lambda *_: time.sleep(60)
        saver.save({"step": 10}, model={"w": torch.full((8,), 10.0)}, training={})
        while not list(tmp_path.glob(".tmp-*")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint and checkpoint.step == 5 and checkpoint.model()["w"].tolist() == [5.0] * 8


def test_pieces_of_two_processes_are_one_checkpoint_and_any_cut_of_it_is_read(tmp_path: Path) -> None:
    whole = torch.arange(48.0).view(6, 8)

    def save(rank: int) -> None:
        with join_world("cpu") as world:
            rows = Pieces((6, 8), [((3 * rank, 0), whole[3 * rank : 3 * rank + 3])])
            saver = make_saver(tmp_path / "out", in_background=True, told=[], group=world.files)
            saver.save({"step": 5}, model={"w": rows, "same": torch.ones(4)}, training={"m": rows})
            saver.finish()
            checkpoint = latest_checkpoint(tmp_path / "out")
            assert checkpoint
            half = torch.empty(6, 4)
            columns = Pieces((6, 8), [((0, 4 * rank), half)])
            checkpoint.restore(model={"w": columns}, training={}, group=world.files)
            assert torch.equal(half, whole[:, 4 * rank : 4 * rank + 4])
            world.wait()

    run_processes(2, save, tmp_path / "logs")
    checkpoint = latest_checkpoint(tmp_path / "out")
    assert checkpoint and torch.equal(checkpoint.model()["w"], whole)
    assert sorted(checkpoint.state["files"]) == [
        f"{kind}-0000{rank}-of-00002.safetensors" for kind in ("model", "training") for rank in (1, 2)
    ]


@pytest.mark.parametrize(
    "victims", [(0, 1), pytest.param((1,), marks=pytest.mark.slow), pytest.param((0,), marks=pytest.mark.slow)]
)
def test_killed_while_two_processes_write_in_the_background_the_run_goes_on_from_the_checkpoint_before(
    victims: tuple[int, ...], mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    """One has written its file of step 8 and the other not yet; those that are left end by themselves."""
    preset = make_preset(steps=12, save_every=4, async_save=True)
    expected = run_loop(mixture_folder, preset, tmp_path / "alone")
    out, logs, go_on = tmp_path / "out", tmp_path / "logs", tmp_path / "go on"

    def train_slowly(rank: int) -> None:
        real = sharded.save_file

        def save_slowly(tensors: Any, path: Path) -> None:
            while rank == 1 and "0000008" in str(path) and not go_on.exists():
                time.sleep(0.01)
            real(tensors, path)

        sharded.save_file = save_slowly
        with pytest.raises(LostWorker):
            run_loop(mixture_folder, preset, out)
        for thread in threading.enumerate():
            if thread.name == "checkpoint":
                thread.join(20)
                assert not thread.is_alive()

    logs.mkdir()
    port = free_port()
    children = [start_process(rank, 2, port, train_slowly, logs, 60) for rank in range(2)]
    while not list(out.glob(".tmp-iter_0000008/model-00001-of-00002*")):
        time.sleep(0.01)
    for rank in victims:
        os.kill(children[rank], signal.SIGKILL)
    go_on.touch()
    for rank, child in enumerate(children):
        assert os.waitpid(child, 0)[1] == (signal.SIGKILL if rank in victims else 0), (logs / f"{rank}.log").read_text()
    checkpoint = latest_checkpoint(out)
    assert checkpoint and checkpoint.step == 4 and saved_steps(out) == [4]

    run_processes(2, lambda _: run_loop(mixture_folder, preset, out), logs)
    found = read_metrics(out / "metrics.jsonl")
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in expected], rel=1e-5)
    assert saved_steps(out) == [12, 8] and not list(out.glob(".tmp-*"))


def run_loop(data: Path, preset: Preset, out: Path, timeout_minutes: float = 0.3) -> list[dict[str, Any]]:
    mixture = open_mixture(data)
    with join_world("cpu", timeout_minutes) as world, world.together(str(out)):
        run = Run(mixture, make_plan(mixture, preset, world), out, world, lambda _: None)
        run.resume()
        run.train()
        world.wait()
    return read_metrics(out / "metrics.jsonl")


def test_a_run_that_saves_in_the_background_is_the_same_run(
    mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    expected = run_loop(mixture_folder, make_preset(steps=8, save_every=2), tmp_path / "at once")
    found = run_loop(mixture_folder, make_preset(steps=8, save_every=2, async_save=True), tmp_path / "behind")
    assert [row["loss"] for row in found] == [row["loss"] for row in expected]
    assert saved_steps(tmp_path / "behind") == [8, 6]
