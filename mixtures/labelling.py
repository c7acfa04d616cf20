"""Labelling recipes: which texts a classifier is trained on and what they are labelled, in YAML that a person writes.

Texts come from a run's documents (with SQL over its measurements, scores, decisions and annotations) or from JSONL and
Parquet files (with SQL over their columns). Either `positive` and `negative` name two classes, or `examples` give each
text a label by an expression: a number is a grade to be regressed on, a string the name of a class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from mixtures.yaml_files import Written, WrittenFile, fault, load_yaml, one_of

POSITIVE, NEGATIVE = "positive", "negative"


class Choice(Written):
    """Texts of one origin."""

    model_config = one_of("run", "files")

    run: str | None = Field(default=None, min_length=1, description="Folder of a run; paths count from this file.")
    files: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="JSONL (plain, .gz, .zst, .bz2) or Parquet files; globs are allowed."
    )
    where: str | None = Field(default=None, min_length=1, description="SQL condition (default: every text).")
    annotations: str | None = Field(
        default=None,
        min_length=1,
        description="With `run`: a folder under its `annotations`; only what is rated there, as `annotation.score`.",
    )
    dropped: bool = Field(default=False, description="With `run`: documents that its policy dropped, too.")
    text: str = Field(default="text", min_length=1, description="With `files`: the column of the text.")
    group: str | None = Field(
        default=None,
        min_length=1,
        description="SQL expression; texts of equal value are never on both sides of a split (default: none but copies "
        "and, with `run`, near-duplicates).",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.run is None) == (self.files is None):
            raise ValueError("texts come from one of `run` and `files`")
        for name in ("annotations", "dropped") if self.files else ():
            if getattr(self, name):
                raise fault(f"`{name}` goes with `run`, not with `files`", name)
        if self.run and "text" in self.model_fields_set:
            raise fault("`text` goes with `files`: a run knows its texts", "text")
        return self


class Graded(Choice):
    """Texts of one origin, each labelled by an expression."""

    label: str = Field(min_length=1, description="SQL expression: a number is a grade, a string a class.")


class Labelling(WrittenFile):
    """The root of a labelling recipe."""

    model_config = one_of("positive", "examples")

    positive: tuple[Choice, ...] | None = Field(default=None, min_length=1, description="Texts of the wanted class.")
    negative: tuple[Choice, ...] | None = Field(default=None, min_length=1, description="Texts of the other class.")
    examples: tuple[Graded, ...] | None = Field(default=None, min_length=1, description="Texts that have a label.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.positive is None) != (self.negative is None):
            raise ValueError("`positive` and `negative` go together")
        if (self.positive is None) == (self.examples is None):
            raise ValueError("write either `positive` and `negative`, or `examples`")
        return self

    def choices(self) -> list[tuple[Choice, str | None, tuple[str | int, ...]]]:
        """Every choice, the class that it stands for (None: it has an expression), and its place in the file."""
        named = ((POSITIVE, self.positive, POSITIVE), (NEGATIVE, self.negative, NEGATIVE), (None, self.examples, ""))
        return [
            (choice, name, (key or "examples", i))
            for name, choices, key in named
            for i, choice in enumerate(choices or ())
        ]


def load_labelling(path: Path) -> Labelling:
    """Raises RecipeError with every fault and its line."""
    return load_yaml(path, Labelling)
