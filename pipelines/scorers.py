"""The scorers of a run, as `--score NAME=MODEL[:OPTION=VALUE,…]` asks for them: a model, and what is told of it.

Invariant: a name is told once, and everything about it that can be wrong is found without opening a model's weights.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from classifiers.encoders.classifier import ClassifierConfig
from classifiers.scorers.stage import is_fasttext, open_fasttext, read_labels, scorer_stage
from classifiers.scorers.told import Telling, check_telling, gives_value, told_type
from storage.errors import InputError, RecipeError
from storage.identity import fingerprint
from storage.stage import Stage

EXAMPLE = "--score edu=models/fineweb-edu-classifier:clip=0..5"
_ASKED = re.compile(r"(?P<name>[^=]*)=(?P<model>.+?)(?::(?P<options>[a-z_]+=[^:]*))?")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_OF_MODEL = ("max_tokens", "dtype", "batch_tokens")
_OF_TELLING = ("positive", "scale", "clip", "probabilities")


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """One scorer: its name in `scores.NAME`, the classifier, and what is told of its outputs."""

    name: str
    model: str
    config: ClassifierConfig
    telling: Telling

    def labels(self) -> tuple[str, ...]:
        """The model's classes; () where it gives a number."""
        return read_labels(self.model)

    def stage(self) -> Stage:
        """What reads the text. Two scorers of one model share it."""
        return scorer_stage(self.model, self.config)

    def has_buckets(self) -> bool:
        return gives_value(self.labels(), self.telling)

    def told(self) -> pa.StructType:
        """The struct that `scores.NAME` is."""
        return told_type(self.labels(), self.telling)

    def value_identity(self, stage: str) -> str:
        """What its bucket thresholds belong to, given its stage's identity: scale and clip move no bucket."""
        return fingerprint({"stage": stage, "positive": self.telling.positive})


def scorers_of(asked: Sequence[str]) -> tuple[Scorer, ...]:
    """The scorers of a request. Raises InputError for what is none, ModelError for a model that is none."""
    scorers = tuple(parse_scorer(text) for text in asked)
    names = [scorer.name for scorer in scorers]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"two scorers are called `{twice[0]}`", hint="names tell them apart: `scores.NAME.value`")
    return scorers


def check_scorers(asked: Sequence[str]) -> None:
    """Raises InputError or ModelError for the first scorer that could not score; no weights are opened."""
    for text, scorer in zip(asked, scorers_of(asked), strict=True):
        labels = scorer.labels()
        scorer.stage()
        try:
            check_telling(labels, scorer.telling)
        except InputError as error:
            raise _no_scorer(text, error.what, error.hint) from error


def told_schema(asked: Sequence[str]) -> pa.Schema:
    """The column `scores` that a request's scorers will give; no column without any."""
    told = [pa.field(scorer.name, scorer.told()) for scorer in scorers_of(asked)]
    return pa.schema([pa.field("scores", pa.struct(told))] if told else [])


def parse_scorer(text: str) -> Scorer:
    """`NAME=MODEL` or `NAME=MODEL:option=value,…`. Raises InputError."""
    match = _ASKED.fullmatch(text)
    if match is None:
        raise _no_scorer(text, "this is not NAME=MODEL")
    name, model, options = match["name"], match["model"], match["options"]
    if not _NAME.fullmatch(name):
        raise _no_scorer(text, f"the name `{name}` is not a word of a-z, 0-9 and _")
    try:
        given = _read_options(options or "")
        if wrong := sorted(set(_OF_MODEL) & set(given)) if is_fasttext(model) else []:
            raise ValueError(f"`{wrong[0]}` is of encoders; fastText reads the whole text")
        config = ClassifierConfig(**{key: given[key] for key in _OF_MODEL if key in given})
        telling = Telling(**{key: given[key] for key in _OF_TELLING if key in given})
    except (InputError, RecipeError) as error:
        raise _no_scorer(text, error.what, error.hint) from error
    except ValueError as error:
        raise _no_scorer(text, str(error)) from error
    model = os.path.expanduser(model)
    return Scorer(name=name, model=model, config=config, telling=_with_own_class(model, telling))


def _with_own_class(model: str, telling: Telling) -> Telling:
    """The telling, with the class that a fastText folder was trained for where none is named."""
    if telling.positive or not (os.path.isdir(model) and is_fasttext(model)):
        return telling
    own = open_fasttext(model).positive
    return replace(telling, positive=(own,)) if own else telling


def _read_options(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in filter(None, text.split(",")):
        key, equals, value = item.partition("=")
        if not (equals and value):
            raise ValueError(f"`{item}` is not OPTION=VALUE")
        if key not in _READERS:
            raise ValueError(f"there is no option `{key}`: there are {', '.join(sorted(_READERS))}")
        found[key] = _READERS[key](value)
    return found


def _read_range(text: str) -> tuple[float, float]:
    low, dots, high = text.partition("..")
    if not dots:
        raise ValueError(f"`clip={text}` is not LOW..HIGH")
    return float(low), float(high)


def _read_truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"`probabilities={text}` is neither true nor false")
    return text == "true"


def _read_dtype(text: str) -> str:
    if text not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"`dtype={text}` is none of auto, float32, bfloat16")
    return text


def _read_classes(text: str) -> tuple[str, ...]:
    return tuple(name.removeprefix("__label__") for name in text.split("+"))


_READERS: Mapping[str, Any] = {
    "positive": _read_classes,
    "scale": float,
    "clip": _read_range,
    "probabilities": _read_truth,
    "max_tokens": int,
    "dtype": _read_dtype,
    "batch_tokens": int,
}


def _no_scorer(text: str, what: str, hint: str | None = None) -> InputError:
    return InputError(f"`--score {text}`: {what}", hint=hint or f"write `{EXAMPLE}`, say")
