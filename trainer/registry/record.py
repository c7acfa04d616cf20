"""A checkpoint's row, made from the state that was saved with it, and written as soon as it is committed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.errors import ModelError
from storage.identity import fingerprint
from trainer.checkpoints.folders import STATE_FILE, find_checkpoint
from trainer.registry.names import name_checkpoint
from trainer.registry.origin import Origin, find_branch, follow, read_origin, write_origin
from trainer.registry.rows import Row, now, read_row, write_row
from trainer.schedules import learning_rate_at
from trainer.settings import TrainingConfig

if TYPE_CHECKING:
    from trainer.plans import Plan  # plans know of parents, which are found by the registry


def record_origin(out: Path, plan: Plan, data: Path) -> None:
    """Write where the run in `out` comes from: the stage after its parent's, unless its settings say another."""
    config = plan.training
    parent = _parent_folder(Path(config.init_from)) if config.init_from else None
    row = row_of(parent) if parent else None
    stage = config.stage or (row.stage + 1 if row else 1)
    origin = Origin(
        stage=stage,
        ingredient=config.ingredient or (find_branch(out, parent, stage) if parent else None),
        parents=() if row is None or parent is None else (follow(row, parent, out),),
        tokens_before=row.tokens_in_all if row else 0,
        data=os.path.relpath(data.resolve(), out.resolve()),
        training={name: getattr(config, name) for name in config.__dataclass_fields__},
    )
    write_origin(out, origin)


def _parent_folder(path: Path) -> Path:
    from trainer.registry.search import located

    return find_checkpoint(located(path)).folder


def record_checkpoint(folder: Path) -> Row:
    """Write the row of a checkpoint that was committed a moment ago."""
    row = make_row(folder, saved_at=now())
    write_row(folder.parent, row)
    return row


def record_scores(folder: Path, bits_per_byte: Mapping[str, float]) -> None:
    """Note in a checkpoint's row what it was measured to be, by held-out source."""
    write_row(folder.parent, replace(row_of(folder), bits_per_byte=dict(bits_per_byte)))


def row_of(folder: Path) -> Row:
    """The row of a checkpoint: the one that was written if it is of this content, else one made from its state.

    Raises ModelError where there is no readable state.
    """
    written = read_row(folder.parent, folder.name)
    made = make_row(folder)
    return written if written and written.identity == made.identity else made


def make_row(folder: Path, *, saved_at: str = "") -> Row:
    """The row of a checkpoint, from its state and its run's origin. Raises ModelError without a readable state."""
    state, origin = read_state(folder), read_origin(folder.parent)
    run, step, tokens = state["run"], int(state["step"]), int(state["tokens"])
    name = name_checkpoint(
        stage=origin.stage, ingredient=origin.ingredient, step=step, tokens=tokens, soup=origin.kind == "soup"
    )
    return Row(
        name=str(name),
        stage=origin.stage,
        ingredient=origin.ingredient,
        kind=origin.kind,
        step=step,
        steps=int(run["training"]["steps"]),
        tokens=tokens,
        tokens_in_all=tokens + origin.tokens_before,
        consumed_samples=int(state["consumed_samples"]),
        lr=_learning_rate(step, run["training"]),
        loss=state.get("loss"),
        mixture=run["mixture"],
        data=origin.data,
        vocabulary=run["vocabulary"],
        seed=run["training"]["seed"],
        preset=run["preset"],
        parents=origin.parents,
        run=fingerprint(run),
        identity=fingerprint(state["files"]),
        path=folder.name,
        saved_at=saved_at,
    )


def read_state(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself; its tensors are not looked at."""
    try:
        state: dict[str, Any] = json.loads((folder / STATE_FILE).read_bytes())
        return state
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder.name} is damaged: no readable {STATE_FILE}", at=str(folder)) from error


def _learning_rate(step: int, training: Mapping[str, Any]) -> float:
    """The rate of the step that was done last."""
    return learning_rate_at(step, int(training["steps"]), TrainingConfig(**training)) if step else 0.0
