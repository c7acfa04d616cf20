"""A checkpoint is whole or absent: killed at every step of a save, on a full disk, damaged afterwards."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from safetensors import SafetensorError

from storage.errors import ModelError, ResourceError
from trainer.checkpoints import sharded
from trainer.checkpoints.folders import (
    DamagedCheckpointWarning,
    find_checkpoint,
    latest_checkpoint,
    read_tracker,
    remove_leftovers,
    save_checkpoint,
    saved_steps,
)


def save(out: Path, step: int, keep: int = 2) -> None:
    tensors = {"w": torch.full((64,), float(step))}
    save_checkpoint(out, {"step": step, "note": "x"}, model=tensors, training=tensors, keep=keep)


def assert_sound(out: Path, steps: set[int]) -> None:
    """The latest checkpoint is one of `steps`, and holds what was saved for it."""
    checkpoint = latest_checkpoint(out)
    assert checkpoint is not None and checkpoint.step in steps
    assert checkpoint.model()["w"].tolist() == [float(checkpoint.step)] * 64
    assert checkpoint.training()["w"].tolist() == [float(checkpoint.step)] * 64


def test_saved_is_loaded_and_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save(tmp_path, step)
    assert saved_steps(tmp_path) == [15, 10]
    assert (tmp_path / "latest_checkpointed_iteration.txt").read_text() == "15\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "iter_0000010", "iter_0000015", "latest_checkpointed_iteration.txt"
    ]  # fmt: skip
    assert_sound(tmp_path, {15})
    assert find_checkpoint(tmp_path / "iter_0000010").step == 10


CALLS = [(os, "fsync"), (os, "rename"), (os, "replace"), (sharded, "save_file"), (shutil, "rmtree")]


def dying(real: Callable[..., Any], countdown: list[int]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        countdown[0] -= 1
        if countdown[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    return call


def save_and_die(out: Path, step: int, calls: int) -> bool:
    """In a child: save, killed -9 before its `calls`-th call of the system. True when it got through."""
    child = os.fork()
    if child == 0:
        countdown = [calls]
        for owner, name in CALLS:
            setattr(owner, name, dying(getattr(owner, name), countdown))
        save(out, step)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def test_killed_at_any_step_of_a_save_nothing_is_lost(tmp_path: Path) -> None:
    for calls in range(100):
        out = tmp_path / str(calls)
        save(out, 5)
        save(out, 10)
        through = save_and_die(out, 15, calls)
        assert_sound(out, {15} if through else {10, 15})
        remove_leftovers(out)
        save(out, 15)
        assert_sound(out, {15})
        assert not list(out.glob(".tmp-*"))
        if through:
            break
    assert 8 < calls < 99


def damage_tensors(folder: Path) -> None:
    path = folder / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def truncate_tensors(folder: Path) -> None:
    os.truncate(folder / "training.safetensors", 40)


def lose_state(folder: Path) -> None:
    (folder / "state.json").write_text("{")


def lose_folder(folder: Path) -> None:
    shutil.rmtree(folder)


@pytest.mark.parametrize("damage", [damage_tensors, truncate_tensors, lose_state, lose_folder])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_says_so(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    save(tmp_path, 5)
    save(tmp_path, 10)
    damage(tmp_path / "iter_0000010")
    with pytest.warns(DamagedCheckpointWarning, match="iter_0000010 is .*going back to iter_0000005"):
        assert_sound(tmp_path, {5})


def test_when_all_are_damaged_training_does_not_start_anew_in_silence(tmp_path: Path) -> None:
    save(tmp_path, 5)
    damage_tensors(tmp_path / "iter_0000005")
    with pytest.raises(ModelError, match="no checkpoint here can be used: iter_0000005 is damaged: model.safetensors"):
        latest_checkpoint(tmp_path)


def test_the_tracker_rolls_back(tmp_path: Path) -> None:
    save(tmp_path, 5)
    save(tmp_path, 10)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("5")
    assert_sound(tmp_path, {5})
    save(tmp_path, 7)
    assert saved_steps(tmp_path) == [10, 7, 5] and read_tracker(tmp_path) == 7


def test_no_checkpoint_is_none_but_asking_for_one_is_an_error(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "nowhere") is None
    with pytest.raises(ModelError, match="there is no checkpoint here"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left on device")]
)
def test_a_full_disk_is_told_and_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    save(tmp_path, 5)

    def fail(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(sharded, "save_file", fail)
    with pytest.raises(ResourceError) as caught:
        save(tmp_path, 10)
    assert caught.value.hint and "free some space" in caught.value.hint
    monkeypatch.undo()
    assert not list(tmp_path.glob(".tmp-*"))
    assert_sound(tmp_path, {5})
