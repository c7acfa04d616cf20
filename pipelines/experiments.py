"""Experiments: which models are compared, as a list of recipes and policies or as a matrix in YAML.

A matrix has axes (`data`, and any field of a preset as `model.…` or `training.…`) and means all combinations of their
values, or it lists its experiments one by one. Invariant: all experiments of a matrix learn from equally many tokens
with the same seeds, so neither can be an axis. Trade-off: a field's name and type are checked by the trainer when the
first model with it starts, because the data side does not know the trainer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, model_validator

from mixtures.policy import SHIPPED as POLICIES
from mixtures.policy import Policy, load_policy
from mixtures.recipe import SHIPPED as RECIPES
from mixtures.recipe import Recipe, load_recipe, policy_folder
from mixtures.withheld import identify_withheld
from mixtures.yaml_files import SUFFIXES, Count, WrittenFile, fault, load_yaml, one_of
from storage.errors import InputError, RecipeError

DATA = "data"
Value = str | int | float | bool
Values = Mapping[str, Value]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]

_FIELD = re.compile(r"(model|training)\.[a-z0-9_]+")
_EQUAL = ("steps", "train_tokens", "train_samples", "seed")
MOST_EXPERIMENTS = 1000
LABEL_CHARACTERS = 80


class Matrix(WrittenFile):
    """A matrix file."""

    model_config = one_of("axes", "experiments")

    preset: str | None = Field(default=None, min_length=1, description="The model that fields are laid on.")
    tokens: Count | None = Field(default=None, gt=0, description="Tokens that each model learns from.")
    seeds: int | None = Field(default=None, gt=0, description="Models of each experiment.")
    measure_on: dict[Name, str] | None = Field(
        default=None, min_length=1, description="Held-out texts by name: conditions (SQL)."
    )
    axes: dict[str, tuple[Value, ...]] | None = Field(
        default=None, min_length=1, description="Values by axis; all combinations are trained."
    )
    experiments: tuple[dict[str, Value], ...] | None = Field(
        default=None, min_length=1, description="In place of `axes`: each experiment by its axes."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.axes is None) == (self.experiments is None):
            raise ValueError("a matrix needs one of `axes` and `experiments`")
        for axis, values in (self.axes or {}).items():
            _check_axis(axis, ("axes", axis))
            if len(set(map(str, values))) != len(values) or not values:
                raise fault(f"the values of `{axis}` must be there, and each once", "axes", axis)
        for i, experiment in enumerate(self.experiments or ()):
            for axis in experiment:
                _check_axis(axis, ("experiments", i, axis))
        return self

    def combinations(self) -> list[Values]:
        """The experiments, the first axis slowest."""
        if self.experiments is not None:
            return list(self.experiments)
        assert self.axes is not None
        return [dict(zip(self.axes, values, strict=True)) for values in itertools.product(*self.axes.values())]


def _check_axis(axis: str, place: tuple[str | int, ...]) -> None:
    if axis != DATA and not _FIELD.fullmatch(axis):
        raise fault(f"`{axis}` is no axis; there are `data`, `model.FIELD` and `training.FIELD`", *place)
    if axis.partition(".")[2] in _EQUAL:
        raise fault(f"`{axis}` is the same for all experiments of a matrix: see `tokens` and `seeds`", *place)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Data to learn from: a recipe's mixture of what a policy keeps. `reference` is what it was asked for by."""

    reference: str
    name: str
    recipe: Recipe
    policy: Policy

    def identity(self) -> dict[str, str]:
        """What decides its documents and their shares."""
        named = {"recipe": self.recipe.identity(), "policy": self.policy.identity()}
        return {**named, **identify_withheld(self.recipe)}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A model of the comparison: its name in tables, its folder's name, its data and the preset's fields it changes."""

    name: str
    slug: str
    arm: Arm
    values: Values

    @property
    def fields(self) -> dict[str, Value]:
        return {axis: value for axis, value in self.values.items() if axis != DATA}


def is_matrix(reference: str) -> bool:
    """Whether a file is a matrix; what is no file, or none of YAML, is not."""
    return bool({"axes", "experiments"} & _keys_of(Path(reference)))


def load_matrix(reference: str) -> Matrix:
    """Raises RecipeError with every fault and its line."""
    return load_yaml(Path(reference), Matrix)


def list_experiments(combinations: Sequence[Values], own: Recipe, policy: Policy, beside: Path) -> list[Experiment]:
    """The experiments with their data looked up: `own` and `policy` are the run's, paths count from `beside`.

    Raises InputError for fewer than two, for too many, or for one that stands twice; RecipeError for their files.
    """
    if not 2 <= len(combinations) <= MOST_EXPERIMENTS:
        raise InputError(f"there are {len(combinations)} experiments; 2 to {MOST_EXPERIMENTS:,} can be compared")
    references = list(dict.fromkeys(str(values[DATA]) for values in combinations if DATA in values))
    arms = {arm.reference: arm for arm in _load_arms(references, own, policy, beside)}
    whole = Arm(reference="", name=own.name, recipe=own, policy=policy)
    named = [(values, arms[str(values[DATA])] if DATA in values else whole) for values in combinations]
    names = [_label(values, arm) for values, arm in named]
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise InputError(f"`{twice[0]}` stands there twice", hint="compare what differs")
    return [
        Experiment(name=name, slug=_slug(i, name), arm=arm, values=values)
        for i, (name, (values, arm)) in enumerate(zip(names, named, strict=True))
    ]


def _load_arms(references: Sequence[str], own: Recipe, policy: Policy, beside: Path) -> list[Arm]:
    """Each with a name of its own: its file's, else all that was asked for."""
    loaded = [load_arm(reference, own, policy, beside) for reference in references]
    shared = {arm.name for i, arm in enumerate(loaded) if arm.name in [other.name for other in loaded[:i]]}
    return [
        Arm(**{**vars(arm), "name": Path(arm.reference).stem if arm.name in shared else arm.name}) for arm in loaded
    ]


def load_arm(reference: str, own: Recipe, policy: Policy, beside: Path) -> Arm:
    """A recipe with its policy, or a policy for the run's own recipe. Raises RecipeError for what is neither."""
    named_path = reference.endswith(SUFFIXES) or "/" in reference
    is_policy = "rules" in _keys_of(beside / reference) if named_path else _is_shipped(reference, POLICIES)
    is_recipe = "sources" in _keys_of(beside / reference) if named_path else _is_shipped(reference, RECIPES)
    if is_policy and not is_recipe:
        chosen = load_policy(reference, beside=beside)
        return Arm(reference=reference, name=chosen.name, recipe=own, policy=chosen)
    if not is_recipe and not (named_path and (beside / reference).is_file()):
        raise RecipeError(
            f"there is no recipe or policy `{reference}`",
            hint="give the path of a .yaml file, or the name of a shipped recipe or policy",
        )
    recipe = load_recipe(reference, beside=beside)
    return Arm(
        reference=reference,
        name=recipe.name,
        recipe=recipe,
        policy=load_policy(recipe.policy, beside=policy_folder(recipe)),
    )


def _is_shipped(name: str, folder: Path) -> bool:
    return (folder / f"{name}.yaml").is_file()


def _keys_of(path: Path) -> set[str]:
    """The keys at the top of a YAML file; none where it cannot be read, which its own reader will say."""
    try:
        values: Any = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return set()
    return set(values) if isinstance(values, dict) else set()


def _label(values: Values, arm: Arm) -> str:
    told = [f"{axis.partition('.')[2]} {value}" for axis, value in values.items() if axis != DATA]
    return ", ".join([*([arm.name] if DATA in values else []), *told])


def _slug(number: int, name: str) -> str:
    return f"{number:03}-{re.sub(r'[^a-z0-9._-]+', '-', name.lower())[:LABEL_CHARACTERS].strip('-')}"
