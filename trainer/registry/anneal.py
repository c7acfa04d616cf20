"""The settings of a stage that goes on from a checkpoint, as OLMo anneals: from the rate where it stopped to zero.

The learning rate is that of the checkpoint's last step, so an anneal that starts in the middle of another one begins
where that one was. There is no warm-up, data start anew in the order of the seed, and everything else is as it was;
what is told besides wins over all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd
from pathlib import Path
from typing import Any

from storage.errors import ModelError
from trainer.registry.origin import read_origin
from trainer.registry.record import read_state, row_of
from trainer.settings import FALLS, LENGTHS, WARMUPS, Preset, TrainingConfig, load_preset, make_preset, overlay

SCHEDULE = ("schedule", "learning_rate", "min_learning_rate", "decay", *WARMUPS, *FALLS)
OF_THE_RUN = ("init_from", "init_optimizer", "stage", "ingredient", "skip_iterations", *LENGTHS, *WARMUPS, *FALLS)
"""Settings of a run that do not hold for the stage after it."""


def anneal_preset(
    checkpoint: Path,
    overrides: Mapping[str, Any],
    *,
    rope_base: float | None = None,
    schedule_of: str | None = None,
) -> Preset:
    """How to train on from the folder of a checkpoint, with a preset's schedule anew where `schedule_of` names one.

    Longer sequences than the model had raise its positions; a step has as many tokens as before, if nothing is told.

    Raises ModelError where the learning rate cannot be inferred, RecipeError for settings that do not fit.
    """
    run = read_state(checkpoint)["run"]
    told = read_origin(checkpoint.parent).training or run["training"]
    known = {
        name: told[name] for name in told if name in TrainingConfig.__dataclass_fields__ and name not in OF_THE_RUN
    }
    if schedule_of:
        anew = load_preset(schedule_of).training
        schedule = {name: getattr(anew, name) for name in SCHEDULE}
    else:
        rate = {} if "learning_rate" in overrides else {"learning_rate": last_rate(checkpoint)}
        schedule = {"schedule": "linear", "min_learning_rate": 0.0, "warmup_fraction": 0.0, **rate}
    batch = _same_tokens(known, overrides)
    training = overlay({**known, **schedule, **batch, "init_from": str(checkpoint.resolve())}, overrides)
    model = lengthened(run["model"], training["sequence_length"], rope_base)
    return make_preset(run["preset"], model, training, at=checkpoint)


def _same_tokens(known: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, int]:
    """The batch in samples of this length, with as many tokens as it had in those of the length before.

    How many samples a process took at once is no part of what a run is, and may be unknown.
    """
    before, batch = (int(known[name]) for name in ("sequence_length", "global_batch"))
    length = int(overrides.get("sequence_length", before))
    micro = int(known.get("micro_batch", TrainingConfig.micro_batch))
    scaled = max(1, batch * before // length)
    at_once = gcd(scaled, max(1, micro * before // length))
    return {"global_batch": scaled, "micro_batch": at_once}


def last_rate(checkpoint: Path) -> float:
    """The learning rate where a checkpoint stopped. Raises ModelError where that is zero."""
    row = row_of(checkpoint)
    if row.lr <= 0:
        raise ModelError(
            f"{row.name} stopped at a learning rate of {row.lr:g}: there is nothing left to fall from",
            at=str(checkpoint),
            hint="tell `--learning-rate`, or start from an earlier checkpoint of the run (`python -m trainer list`)",
        )
    return row.lr


def lengthened(model: Mapping[str, Any], sequence_length: int, rope_base: float | None) -> dict[str, Any]:
    """A model's shape for sequences of this length: more positions where it had fewer, another base if one is told."""
    positions = max(int(model["max_positions"]), sequence_length)
    base = {} if rope_base is None else {"rope_base": rope_base}
    return {**model, "max_positions": positions, **base}
