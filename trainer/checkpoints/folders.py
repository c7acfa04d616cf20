"""Checkpoints as folders `iter_%07d`: safetensors and JSON beside them, whole or absent, never unpickled.

A checkpoint is written under a temporary name, synced, renamed, and only then named in Megatron's tracker file
`latest_checkpointed_iteration.txt`. A process killed at any moment leaves the previous checkpoint as it was. Every
file's size and sha256 stand in `state.json` and are checked before anything is loaded (about 1 GB/s); a damaged
checkpoint is passed over for the one before it, with a warning.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from storage.commit import TEMPORARY_PREFIX, sync_folder, write_atomically
from storage.errors import ModelError, ResourceError, disk_errors
from storage.identity import fingerprint, hash_file

TRACKER_FILE = "latest_checkpointed_iteration.txt"
STATE_FILE = "state.json"
MODEL_FILE = "model.safetensors"
TRAINING_FILE = "training.safetensors"
FORMAT_VERSION = 1
FOLDER_NAME = re.compile(r"iter_(\d{7,})$")

Tensors = Mapping[str, Tensor]


class DamagedCheckpointWarning(UserWarning):
    """The last checkpoint cannot be used; an earlier one is."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose files were verified; tensors are read when asked for."""

    folder: Path
    state: Mapping[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])

    @property
    def identity(self) -> str:
        """32 hex digits of the content of its files, wherever they lie."""
        return fingerprint(self.state["files"])

    def model(self) -> dict[str, Tensor]:
        return _load(self.folder / MODEL_FILE)

    def training(self) -> dict[str, Tensor]:
        """Optimizer moments and random states."""
        return _load(self.folder / TRAINING_FILE)


def checkpoint_folder(out: Path, step: int) -> Path:
    """Megatron's name for a step's checkpoint."""
    return out / f"iter_{step:07d}"


def save_checkpoint(out: Path, state: Mapping[str, Any], *, model: Tensors, training: Tensors, keep: int) -> Path:
    """Commit one checkpoint, name it in the tracker, and drop all up to it but the newest `keep`.

    `state` is JSON and has `step`. Raises ResourceError when the disk is full; the earlier checkpoints stay.
    """
    target = checkpoint_folder(out, int(state["step"]))
    temporary = _temporary(target)
    try:
        with _save_errors(target):
            temporary.mkdir(parents=True)
            save_file(dict(model), temporary / MODEL_FILE)
            save_file(dict(training), temporary / TRAINING_FILE)
            _write_state(temporary, state)
            for file in temporary.iterdir():
                _sync_file(file)
            sync_folder(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _move_aside(target)
    os.rename(temporary, target)
    sync_folder(out)
    write_atomically(out / TRACKER_FILE, f"{state['step']}\n".encode())
    for step in [step for step in saved_steps(out) if step <= state["step"]][keep:]:
        _move_aside(checkpoint_folder(out, step))
    return target


def latest_checkpoint(out: Path) -> Checkpoint | None:
    """The checkpoint that the tracker names, or the newest sound one before it; None where there is none at all.

    Without a tracker the newest folder is taken. Warns (DamagedCheckpointWarning) for each that is passed over;
    raises ModelError when there are checkpoints but none is sound.
    """
    tracked = read_tracker(out)
    steps = [step for step in saved_steps(out) if tracked is None or step <= tracked]
    faults = [] if tracked is None or tracked in steps else [f"{checkpoint_folder(out, tracked).name} is missing"]
    for step in steps:
        try:
            checkpoint = open_checkpoint(checkpoint_folder(out, step))
        except ModelError as error:
            faults.append(error.what)
            continue
        if faults:
            told = "; ".join(faults)
            warnings.warn(f"{told}; going back to {checkpoint.folder.name}", DamagedCheckpointWarning, stacklevel=2)
        return checkpoint
    if faults:
        raise ModelError(
            f"no checkpoint here can be used: {'; '.join(faults)}",
            at=str(out),
            hint=f"train anew: remove {out}, or choose another folder with `--out`",
        )
    return None


def open_checkpoint(folder: Path) -> Checkpoint:
    """Verify one checkpoint folder. Raises ModelError that says what is wrong with it."""
    path = folder / STATE_FILE
    try:
        state = json.loads(path.read_bytes())
        version, files = state["format_version"], state["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder.name} is damaged: no readable {STATE_FILE}", at=str(folder)) from error
    if version != FORMAT_VERSION:
        raise ModelError(f"{folder.name} has format_version {version}; only {FORMAT_VERSION} is known", at=str(folder))
    for name, facts in files.items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != facts["bytes"] or hash_file(file) != facts["sha256"]:
            raise ModelError(f"{folder.name} is damaged: {name} is not what was saved", at=str(folder))
    return Checkpoint(folder=folder, state=state)


def find_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`: an `iter_…` folder, or the latest in a folder of them; ModelError without one."""
    if (path / STATE_FILE).is_file():
        return open_checkpoint(path)
    found = latest_checkpoint(path) if path.is_dir() else None
    if found is None:
        raise ModelError(
            "there is no checkpoint here",
            at=str(path),
            hint="give the folder that `python -m trainer train --out` wrote",
        )
    return found


def saved_steps(out: Path) -> list[int]:
    """Steps of the checkpoint folders in `out`, the newest first; whether they are sound is not asked."""
    matches = [FOLDER_NAME.match(entry.name) for entry in out.iterdir()] if out.is_dir() else []
    return sorted((int(match[1]) for match in matches if match), reverse=True)


def read_tracker(out: Path) -> int | None:
    """The step that the tracker file names; None without a readable one."""
    try:
        return int((out / TRACKER_FILE).read_text())
    except (OSError, ValueError):
        return None


def remove_leftovers(out: Path) -> None:
    """Delete what killed processes left half-written; only one process may write to `out`."""
    for entry in out.glob(f"{TEMPORARY_PREFIX}*"):
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _write_state(folder: Path, state: Mapping[str, Any]) -> None:
    files = {file.name: {"bytes": file.stat().st_size, "sha256": hash_file(file)} for file in sorted(folder.iterdir())}
    row = {"format_version": FORMAT_VERSION, **state, "files": files}
    (folder / STATE_FILE).write_text(json.dumps(row, indent=2) + "\n", "utf-8")


def _move_aside(folder: Path) -> None:
    """Remove a checkpoint in one instant: renamed first, so that half a deletion never looks like damage."""
    if folder.exists():
        aside = _temporary(folder)
        os.rename(folder, aside)
        shutil.rmtree(aside, ignore_errors=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY_PREFIX}{path.name}-{uuid.uuid4().hex[:12]}")


def _sync_file(path: Path) -> None:
    path.chmod(0o644)  # safetensors makes files that only their owner can read
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _load(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path.name} cannot be read: {error}", at=str(path.parent)) from error
    return tensors


@contextmanager
def _save_errors(target: Path) -> Iterator[None]:
    """safetensors wraps the system's error in its own; both mean that there is no room."""
    try:
        with disk_errors(target):
            yield
    except SafetensorError as error:
        raise ResourceError(
            f"the checkpoint could not be written: {error}",
            at=str(target),
            hint="free some space and start again: the run resumes from the checkpoint before",
        ) from error
