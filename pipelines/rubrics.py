"""Rubrics as files: YAML that people write, read into a Rubric; and the JSON Schema by which editors check it.

`python -m pipelines.rubrics` writes the schema anew; a test says when it is behind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

import classifiers.annotation
from classifiers.annotation.rubric import PLACE, Rubric
from mixtures.json_schemas import schema_of
from mixtures.yaml_files import WrittenFile, fault, find_file, load_yaml
from storage.commit import write_atomically
from storage.errors import RecipeError

FOLDER = Path(classifiers.annotation.__file__).parent
SHIPPED = FOLDER / "rubrics"
SCHEMA = FOLDER / "schemas" / "rubric.json"


class RubricFile(WrittenFile):
    """A rubric file."""

    prompt: str = Field(min_length=1, description=f"What the model is asked; `{PLACE}` once, where the text goes.")
    system: str = Field(default="", description="The system message, if there is to be one.")
    lowest: int = Field(default=0, ge=0, le=9, description="The worst rating, a digit.")
    highest: int = Field(default=5, ge=0, le=9, description="The best rating, a digit.")
    threshold: float = Field(default=3.0, description="From this score on a text counts as good.")
    text_characters: int = Field(default=8192, ge=1, description="What of a text is shown to the model.")
    best: str = Field(min_length=1, description="What the best rating stands for: `text that teaches its subject`.")
    worst: str = Field(min_length=1, description="What the worst rating stands for.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            self.to_rubric()
        except RecipeError as error:
            raise fault(error.what, "prompt" if PLACE in error.what else "highest") from error
        return self

    def to_rubric(self) -> Rubric:
        return Rubric(**self.model_dump(exclude={"format_version", "description"}))


def load_rubric(reference: str) -> Rubric:
    """A rubric by its path or by the name of a shipped one. Raises RecipeError with file and line of each fault."""
    return load_yaml(find_file(reference, SHIPPED), RubricFile).to_rubric()


def rubric_schema() -> str:
    return schema_of(RubricFile)


if __name__ == "__main__":
    write_atomically(SCHEMA, rubric_schema().encode())
