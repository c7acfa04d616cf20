"""What a run will compute, settled before it starts: preset, data and processes fitted together, a folder claimed.

The plan is written to `run.json`. A folder is only resumed by the same plan, since a change of steps, batch or data
changes the order of every sample; what merely changes how a run is done (threads, how often to save) may differ.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from storage.commit import write_atomically
from storage.errors import CurationError, DatasetError, ModelError, ResourceError, disk_errors
from trainer.checkpoints.folders import read_tracker, remove_leftovers, saved_steps
from trainer.checkpoints.parents import find_parent
from trainer.compute import choose_precision
from trainer.data.mixture import TOKENIZER_FILE, VOCABULARY_FILE, Mixture
from trainer.models.contract import ModelConfig
from trainer.models.kinds import DEFAULT_KIND, build_model, count_parameters, find_kind
from trainer.parallel.layout import Layout, plan_layout
from trainer.parallel.world import World
from trainer.schedules import effective_steps
from trainer.settings import Preset, TrainingConfig

RUN_FILE = "run.json"
EVALUATION_FILE = "evaluation.json"
FORMAT_VERSION = 1


class TrainingError(CurationError):
    """Training cannot go on with these settings and this data."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that decides what a run computes."""

    preset: str
    model: ModelConfig
    training: TrainingConfig
    steps: int
    mixture: str
    vocabulary: str
    layout: Layout = Layout()
    """Of the processes; may be another one when the run is resumed."""
    parent: str = ""
    """Identity of the checkpoint that the weights come from; empty for a run from random ones."""

    def row(self) -> dict[str, Any]:
        """The plan as JSON, without the settings that change nothing but the manner."""
        outcomes = {item.name for item in fields(TrainingConfig) if item.metadata["outcome"]}
        training = {name: value for name, value in asdict(self.training).items() if name in outcomes}
        row = {"format_version": FORMAT_VERSION, **asdict(self), "training": {**training, "steps": self.steps}}
        del row["steps"], row["layout"]
        return row


def make_plan(mixture: Mixture, preset: Preset, world: World) -> Plan:
    """Fit preset, data and processes together; everything that does not fit is an error here, before any step."""
    config = preset.training
    precision = choose_precision(world.device) if config.precision == "auto" else config.precision
    model = preset.model_config(mixture.vocabulary.padded_size)
    if mixture.vocabulary.size > model.vocabulary_size:
        raise ModelError(
            f"the vocabulary has {mixture.vocabulary.size} entries, the model {model.vocabulary_size}",
            at=str(mixture.folder / VOCABULARY_FILE),
            hint=f"use a preset without `vocabulary_size`, or one of at least {mixture.vocabulary.padded_size}",
        )
    parent = find_parent(config.init_from, mixture.vocabulary.sha256)
    return Plan(
        preset=preset.name,
        model=model,
        training=replace(config, precision=precision),
        layout=plan_layout(config, model, world.size),
        steps=effective_steps(config, mixture.train_tokens),
        mixture=mixture.identity,
        vocabulary=mixture.vocabulary.sha256,
        parent=parent.identity if parent else "",
    )


def is_finished(out: Path, plan: Plan) -> bool:
    """The last step's checkpoint and its evaluation are there, and belong to this plan."""
    try:
        same_plan = completed(json.loads((out / RUN_FILE).read_bytes())) == plan.row()
        evaluated = json.loads((out / EVALUATION_FILE).read_bytes())["step"]
    except (OSError, ValueError, LookupError, AttributeError, TypeError, ModelError):
        return False
    return bool(same_plan and evaluated == plan.steps == read_tracker(out))


def claim_folder(out: Path, plan: Plan, mixture: Mixture) -> None:
    """Make `out` this plan's folder, with the tokenizer beside the checkpoints; refuse one of another plan."""
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    path = out / RUN_FILE
    if path.is_file():
        _refuse_another(path, plan)
    remove_leftovers(out)
    for name in (TOKENIZER_FILE, VOCABULARY_FILE):
        write_atomically(out / name, (mixture.folder / name).read_bytes())
    write_atomically(path, (json.dumps(plan.row(), indent=2) + "\n").encode())
    _check_room(out, plan)


def _refuse_another(path: Path, plan: Plan) -> None:
    try:
        before, now = _flat(completed(json.loads(path.read_bytes()))), _flat(plan.row())
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise DatasetError(f"not a run's plan: {error}", at=str(path), hint="choose another `--out`") from error
    changed = [f"    {key}: {before.get(key)} there, {now[key]} now" for key in now if before.get(key) != now[key]]
    if changed:
        raise DatasetError(
            "this folder holds a run with other settings:\n" + "\n".join(changed),
            at=str(path.parent),
            hint="give the same settings to resume it, or another folder with `--out`",
        )


def completed(row: Mapping[str, Any]) -> dict[str, Any]:
    """A plan as it was written, with the defaults of what its version did not know: a new setting's changes nothing."""
    model, training = row["model"], row["training"]
    outcomes = [item for item in fields(TrainingConfig) if item.metadata["outcome"]]
    return {
        **_defaults(fields(Plan)),
        **row,
        "model": {**_defaults(fields(find_kind(model.get("kind", DEFAULT_KIND)).config)), **model},
        "training": {**_defaults(outcomes), **training},
    }


def _defaults(items: Iterable[Field[Any]]) -> dict[str, Any]:
    return {item.name: item.default for item in items if item.name != "layout" and item.default is not MISSING}


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _check_room(out: Path, plan: Plan) -> None:
    """Refuse to start when the disk cannot hold the checkpoints: weights and two moments, one more than are kept."""
    every = plan.training.keep_every
    permanent = plan.steps // every if every else 0
    with torch.device("meta"):
        size_bytes = 12 * count_parameters(build_model(plan.model))
    missing = max(0, plan.training.keep + 1 + permanent - len(saved_steps(out)))
    needed, free = missing * size_bytes, shutil.disk_usage(out).free
    if free < needed:
        raise ResourceError(
            f"{missing} more checkpoints take {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free",
            at=str(out),
            hint="free some space, or choose another folder with `--out`",
        )
