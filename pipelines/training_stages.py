"""The stages that a run trains one after the other: for each its mixture, what it goes on from, and how its rate falls.

The first stage is the step `train`, as that of a recipe without stages is; each other is a step `train-NAME` of its
own, whose identity has its parent's in it: a stage that is done is not trained again, whatever comes after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixtures.recipe import Recipe, Stage
from pipelines.run_folder import RunFolder, StepRecord, find_step
from storage.errors import InputError

FIRST = "train"
FALL: Mapping[str, Any] = {"schedule": "linear", "min-learning-rate": 0.0}
FLAT: Mapping[str, Any] = {"schedule": "constant"}


@dataclass(frozen=True, kw_only=True)
class TrainingStage:
    """One stage as it is trained: the step that does it, the step of the stage before, and its mixture."""

    step: str
    mixture: str
    name: str | None = None
    parent: str | None = None

    def options(self, recipe: Recipe, preset: str) -> dict[str, Any]:
        """What the recipe says of it, as options of the trainer."""
        stage = next((one for one in recipe.stages or () if one.name == self.name), None)
        return {} if stage is None else _told(stage, preset, goes_on=self.parent is not None)


def step_of(stages: list[Mapping[str, Any]], name: str) -> str:
    """The step that trains the stage of this name."""
    return FIRST if name == stages[0]["stage"] else f"{FIRST}-{name}"


def training_stages(mixed: Mapping[str, Any]) -> list[TrainingStage]:
    """The stages of a mix step's result, each after the one that it goes on from."""
    stages = list(mixed.get("stages", ()))
    if not stages:
        return [TrainingStage(step=FIRST, mixture=mixed["mixture"])]
    return [
        TrainingStage(
            step=step_of(stages, one["stage"]),
            name=one["stage"],
            parent=step_of(stages, one["after"]) if one["after"] else None,
            mixture=one["mixture"],
        )
        for one in stages
    ]


def trained_stages(folder: RunFolder) -> list[tuple[TrainingStage, StepRecord]]:
    """The stages of the run's mixtures that were trained, with their records."""
    mixed = find_step(folder, "mix")
    stages = training_stages(mixed.result) if mixed else []
    return [(stage, record) for stage in stages if (record := find_step(folder, stage.step))]


def stage_named(mixed: Mapping[str, Any], name: str) -> TrainingStage:
    """The stage of this name. Raises InputError that lists those there are."""
    stages = training_stages(mixed)
    for stage in stages:
        if stage.name == name:
            return stage
    names = ", ".join(stage.name for stage in stages if stage.name) or "none: its recipe has no `stages`"
    raise InputError(f"there is no stage `{name}` in this run", hint=f"its stages: {names}")


def _told(stage: Stage, preset: str, *, goes_on: bool) -> dict[str, Any]:
    rate = stage.learning_rate or ("linear_to_zero" if goes_on else "preset")
    anew: Mapping[str, Any] = {"schedule-of": preset} if goes_on else {}
    schedule: Mapping[str, Any] = {"linear_to_zero": FALL, "constant": FLAT, "preset": anew}[rate]
    told = {"seed": stage.seed, "sequence-length": stage.sequence_length, "rope-base": stage.rope_base}
    return {**schedule, **{name: value for name, value in told.items() if value is not None}}
