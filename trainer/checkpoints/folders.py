"""Checkpoints as folders `iter_%07d`: safetensors and JSON beside them, whole or absent, never unpickled.

Every process writes its part under a temporary name and syncs it; the folder is then renamed, and only then named in
Megatron's tracker file `latest_checkpointed_iteration.txt`. Processes killed at any moment leave the previous
checkpoint as it was. Every file's size and sha256 stand in `state.json` and are checked before anything is loaded
(about 1 GB/s a file, eight at once); a damaged checkpoint is passed over for the one before it, with a warning.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor
from torch.distributed import ProcessGroup

from storage.commit import TEMPORARY_PREFIX, sync_folder, write_atomically
from storage.errors import ModelError, ResourceError, disk_errors
from storage.identity import fingerprint, hash_file
from trainer.checkpoints.pieces import Pieces, Tensors, as_pieces
from trainer.checkpoints.tensor_files import read_whole

TRACKER_FILE = "latest_checkpointed_iteration.txt"
STATE_FILE = "state.json"
FORMAT_VERSION = 1
FOLDER_NAME = re.compile(r"iter_(\d{7,})$")
HASHED_AT_ONCE = 8

Group = ProcessGroup | None
Files = Mapping[str, Mapping[str, Any]]


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
        """The whole model's weights, however many processes wrote them."""
        return read_whole(self.folder, self.state["files"], "model")

    def training(self) -> dict[str, Tensor]:
        """Optimizer moments and random states."""
        return read_whole(self.folder, self.state["files"], "training")

    def restore(self, *, model: Tensors, training: Tensors, group: Group = None) -> None:
        """Fill these tensors, or pieces of them, in place; every process of the group calls, each reads its own.

        Raises ModelError where the checkpoint has no such tensors, or others of that name.
        """
        from trainer.checkpoints.sharded import read_pieces

        try:
            read_pieces(self.folder, self.state["files"], _named(model, training), group)
        except (RuntimeError, ValueError, OSError, SafetensorError) as error:
            raise ModelError(f"{self.folder.name} cannot be loaded: {error}", at=str(self.folder)) from error


def checkpoint_folder(out: Path, step: int) -> Path:
    """Megatron's name for a step's checkpoint."""
    return out / f"iter_{step:07d}"


def save_checkpoint(
    out: Path,
    state: Mapping[str, Any],
    *,
    model: Tensors,
    training: Tensors,
    keep: int,
    keep_every: int = 0,
    group: Group = None,
) -> Path:
    """Commit one checkpoint, name it in the tracker, and drop those up to it that are not to be kept.

    Kept are the newest `keep`, and every one whose step is a multiple of `keep_every`.

    `state` is JSON and has `step`. Every process of `group` calls with its own pieces. Raises ResourceError, on all of
    them, when one finds the disk full; the earlier checkpoints stay.
    """
    target = checkpoint_folder(out, int(state["step"]))
    temporary = target.with_name(f"{TEMPORARY_PREFIX}{target.name}")

    def commit(files: Files) -> None:
        _commit(temporary, target, {"format_version": FORMAT_VERSION, **state, "files": dict(sorted(files.items()))})
        for step in [step for step in saved_steps(out) if step <= state["step"]][keep:]:
            if not keep_every or step % keep_every:
                _move_aside(checkpoint_folder(out, step))

    from trainer.checkpoints.sharded import write_pieces

    try:
        with _save_errors(target):
            write_pieces(temporary, _named(model, training), group, commit)
    except BaseException:
        if group is None or group.rank() == 0:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
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
    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:
        sound = list(pool.map(lambda name: _is_sound(folder / name, files[name]), files))
    for name in (name for name, is_sound in zip(files, sound, strict=True) if not is_sound):
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


def _commit(temporary: Path, target: Path, row: Mapping[str, Any]) -> None:
    """Everything is written and synced but the facts: add these, give the folder its name, and name it as the last."""
    with open(temporary / STATE_FILE, "w", encoding="utf-8") as file:
        file.write(json.dumps(row, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    sync_folder(temporary)
    _move_aside(target)
    os.rename(temporary, target)
    sync_folder(target.parent)
    write_atomically(target.parent / TRACKER_FILE, f"{row['step']}\n".encode())


def _is_sound(file: Path, facts: Mapping[str, Any]) -> bool:
    return file.is_file() and file.stat().st_size == facts["bytes"] and hash_file(file) == facts["sha256"]


def _named(model: Tensors, training: Tensors) -> dict[str, Pieces]:
    return {
        **{f"model/{name}": pieces for name, pieces in as_pieces(model).items()},
        **{f"training/{name}": pieces for name, pieces in as_pieces(training).items()},
    }


def _move_aside(folder: Path) -> None:
    """Remove a checkpoint in one instant: renamed first, so that half a deletion never looks like damage."""
    if folder.exists():
        aside = _temporary(folder)
        os.rename(folder, aside)
        shutil.rmtree(aside, ignore_errors=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY_PREFIX}{path.name}-{uuid.uuid4().hex[:12]}")


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
