"""Studies of a run: proxies trained on its documents to answer one question, beside the run's own path.

A study judges by its own policy and mixes by its own recipe, over the run's datasets and with the run's tokenizer. It
is written under a folder of its own, or in folders named by what is in them, so the run's records, decisions and
mixtures stay as they are.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipelines.request import RunRequest
from pipelines.run_folder import RunFolder, find_step, require_step
from pipelines.steps import STEPS, preset_file
from storage.commit import write_atomically
from storage.errors import DatasetError, InputError, RecipeError
from storage.identity import fingerprint, hash_file

REFERENCE = "reference"
"""The source that is measured on and learned from by none."""
NEEDED = ("judge", "vocabulary")
SHORT_IDENTITY = 12

DescribeRecipe = Callable[[str, int], dict[str, Any]]
"""From the tokenizer's path and the sequence length to a recipe as YAML has it; its policy is POLICY_FILE."""
POLICY_FILE = "policy.yaml"


@dataclass(frozen=True)
class StudyFolder(RunFolder):
    """The run's datasets, with the records of a study's own steps apart from the run's; `place` is below the root."""

    place: str

    @property
    def home(self) -> Path:
        return self.root / self.place

    @property
    def steps(self) -> Path:
        return self.home / "steps"

    @property
    def result(self) -> Path:
        return self.home / "result.json"

    @property
    def recipe(self) -> Path:
        return self.home / "recipe.yaml"

    @property
    def policy(self) -> Path:
        return self.home / POLICY_FILE


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question with everything looked up. `steps`: of every proxy; `training`: what its trainer is told."""

    run: RunRequest
    folder: StudyFolder
    identity: str
    steps: int
    training: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """One small model: the shares of the sources that it learns from (None: the mixture's own), and its seed.

    Where they differ from the study's: the mixture that it learns from, its preset's path, its steps, and its folder
    below the run's.
    """

    name: str
    weights: Mapping[str, float] | None
    seed: int
    mixture: str | None = None
    preset: str | None = None
    steps: int | None = None
    folder: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What is said about it, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def prepare_study(
    kind: str,
    asked: Mapping[str, Any],
    *,
    run: RunRequest,
    folder: RunFolder,
    tokens: int,
    preset: str,
    policy: dict[str, Any],
    recipe: DescribeRecipe,
) -> Study:
    """Look up run and preset, and write the policy and the recipe that the proxies' mixture comes from.

    `asked` decides the result, with the run's datasets. Raises a CurationError for what is not there or cannot be.
    """
    judged, vocabulary = (require_step(folder, step).result for step in NEEDED)
    model = preset_file(preset)
    basis = {"judged": judged["identity"], "tokenizer": vocabulary["tokenizer"], "preset": hash_file(model)}
    identity = fingerprint({**asked, **basis, "policy": policy})
    apart = StudyFolder(folder.root, f"{kind}/{identity[:SHORT_IDENTITY]}")
    training = training_of(model)
    steps = tokens // (training["sequence_length"] * training["global_batch"])
    if not steps:
        raise InputError(f"{tokens:,} tokens are less than one step of `{preset}`", hint="raise --tokens")
    tokenizer = folder.vocabulary(vocabulary["tokenizer"]) / "tokenizer.json"
    write_yaml(apart.policy, policy)
    write_yaml(apart.recipe, recipe(str(tokenizer), training["sequence_length"]))
    _borrow_records(folder, apart)
    return Study(
        run=replace(run, policy=str(apart.policy), recipe=str(apart.recipe), preset=preset),
        folder=apart,
        identity=identity,
        steps=steps,
        training={"preset": str(model), "steps": steps},
    )


def training_of(preset: Path) -> dict[str, int]:
    """What of a preset makes steps of tokens. Raises RecipeError for what is no preset."""
    try:
        training = yaml.safe_load(preset.read_text(encoding="utf-8"))["training"]
        return {name: int(training[name]) for name in ("sequence_length", "global_batch")}
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise RecipeError(f"this is no preset of a model: {error!r}", at=str(preset)) from error


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=1000)
    write_atomically(path, text.encode())


def _borrow_records(folder: RunFolder, apart: StudyFolder) -> None:
    """Copy the run's records of the steps before judging: the study begins where they end."""
    apart.steps.mkdir(parents=True, exist_ok=True)
    for step in list(STEPS)[: list(STEPS).index("judge")]:
        if find_step(folder, step):
            shutil.copyfile(folder.steps / f"{step}.json", apart.steps / f"{step}.json")


def find_finished(study: Study) -> dict[str, Any] | None:
    """The result of the same question, if it was written. Raises DatasetError when it cannot be read."""
    if not study.folder.result.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(study.folder.result.read_bytes())
    except ValueError as error:
        raise DatasetError(
            f"the result of a study cannot be read: {error}", at=str(study.folder.result), hint="remove it"
        ) from error
    return found if found.get("identity") == study.identity else None


def write_result(study: Study, result: Mapping[str, Any]) -> None:
    write_atomically(study.folder.result, (json.dumps(result, indent=1) + "\n").encode())


def mean_of(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 5) if len(values) else None


def spread_of(values: Sequence[float]) -> float | None:
    """The standard deviation over seeds; None for one seed."""
    return round(float(np.std(values, ddof=1)), 5) if len(values) > 1 else None
