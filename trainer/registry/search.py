"""Checkpoints found again: all of some folders, or the one that a path or a name means.

A name is looked for below the folder that stands before it (`runs/first/stage1-step300-tokens2M`), else below the
current one. Two checkpoints of one name are an error that lists both: a path says which.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from storage.errors import ModelError
from trainer.checkpoints.folders import STATE_FILE, checkpoint_folder, latest_checkpoint, saved_steps
from trainer.registry.names import parse_name
from trainer.registry.record import row_of
from trainer.registry.rows import Found, read_rows, run_folders


def list_checkpoints(places: Iterable[Path]) -> list[Found]:
    """Every checkpoint in and below `places`, those that only their row is left of included, by stage and step."""
    found = [one for out in run_folders(places) for one in _of_run(out)]
    return sorted(found, key=lambda one: (one.row.stage, one.row.ingredient or 0, one.row.step, str(one.out)))


def located(path: Path) -> Path:
    """The path itself where there is something, else the folder of the checkpoint that it names. Raises ModelError."""
    return path if path.exists() or parse_name(path.name) is None else _by_name(path)


def resolve(reference: str) -> Path:
    """The checkpoint folder that a path (of it, or of its run: the latest) or a name means. Raises ModelError."""
    path = Path(reference)
    if (path / STATE_FILE).is_file():
        return path
    if path.is_dir() and (latest := latest_checkpoint(path)):
        return latest.folder
    if parse_name(path.name) is None:
        raise ModelError(
            "there is no checkpoint here",
            at=reference,
            hint="give the folder of a run, one of its `iter_…`, or FOLDER/NAME as `python -m trainer list` shows it",
        )
    return _by_name(path)


def _by_name(path: Path) -> Path:
    there = [one for one in list_checkpoints([path.parent]) if one.is_there]
    matching = [one for one in there if one.row.name == path.name]
    if len(matching) == 1:
        return matching[0].folder
    shown = [str(one.folder) for one in matching] or sorted({one.row.name for one in there})[:20]
    told = "\n".join(f"    {item}" for item in shown) or "    none"
    what = f"{len(matching)} checkpoints are called `{path.name}`" if matching else f"no checkpoint is `{path.name}`"
    raise ModelError(
        f"{what}; there are:\n{told}", at=str(path.parent), hint="give the path of one" if matching else None
    )


def _of_run(out: Path) -> list[Found]:
    steps = sorted(saved_steps(out))
    there = [checkpoint_folder(out, step) for step in steps]
    found = [Found(row=row_of(folder), out=out) for folder in there if (folder / STATE_FILE).is_file()]
    names = {folder.name for folder in there}
    return found + [Found(row=row, out=out) for row in read_rows(out) if row.path not in names]
