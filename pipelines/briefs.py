"""Briefs as files: YAML that people write, read into a Brief; and the JSON Schema by which editors check it.

`python -m pipelines.briefs` writes the schema anew; a test says when it is behind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

import classifiers.synthesis
from classifiers.synthesis.brief import Brief, Kind, SourceText, Wording
from mixtures.json_schemas import schema_of
from mixtures.yaml_files import Written, WrittenFile, fault, find_file, load_yaml
from storage.commit import write_atomically
from storage.errors import RecipeError

FOLDER = Path(classifiers.synthesis.__file__).parent
SHIPPED = FOLDER / "briefs"
SCHEMA = FOLDER / "schemas" / "brief.json"


class WordingFile(Written):
    """What is asked in one language."""

    system: str = Field(default="", description="The system message, if there is to be one.")
    prompts: dict[str, str] = Field(
        description="By step, with its places in braces: `write` ({text}); of a chain `segment` ({sentences}), "
        "`abstract` ({text}) and `question` ({text}, {abstracts})."
    )
    question_label: str = Field(default="Question: ", description="What stands before a question of pairs.")
    answer_label: str = Field(default="Answer: ", description="What stands before an answer of pairs.")


class BriefFile(WrittenFile):
    """A brief file."""

    kind: Kind = Field(description="What is written: a text, pairs of question and answer, a list, or a chain.")
    where: str | None = Field(default=None, description="The documents that it is for, an SQL condition.")
    source_text: SourceText = Field(default="none", description="Where the source stands beside what was written.")
    passage_tokens: int = Field(
        default=1000, ge=1, description="Longer texts are cut, at paragraphs where they can be."
    )
    least_tokens: int = Field(default=30, ge=1, description="Shorter texts are left out.")
    answer_tokens: int = Field(default=1000, ge=1, description="The most that an answer may have.")
    temperature: float = Field(default=0.7, ge=0, description="How freely the model draws; 0: what is likeliest.")
    most_copied: float | None = Field(
        default=0.5, ge=0, le=1, description="Share of 8-grams of the source above which a text is dropped; null: none."
    )
    wordings: dict[str, WordingFile] = Field(
        min_length=1, description="By language (`en`, `zh`); the first is for texts of all others."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            self.to_brief()
        except RecipeError as error:
            raise fault(f"{error.what}; {error.hint}" if error.hint else error.what, "wordings") from error
        return self

    def to_brief(self) -> Brief:
        values = self.model_dump(exclude={"format_version", "description", "wordings"})
        wordings = {language: Wording(**wording.model_dump()) for language, wording in self.wordings.items()}
        return Brief(**values, wordings=wordings)


def load_brief(reference: str) -> Brief:
    """A brief by its path or by the name of a shipped one. Raises RecipeError with file and line of each fault."""
    return load_yaml(find_file(reference, SHIPPED), BriefFile).to_brief()


def brief_schema() -> str:
    return schema_of(BriefFile)


if __name__ == "__main__":
    write_atomically(SCHEMA, brief_schema().encode())
