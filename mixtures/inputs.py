"""A recipe's inputs: the files that each source's documents are read from, by which columns, under which licence.

Paths count from the recipe's folder, so that a recipe and its data can be moved together; a name of the hub and a URL
stay as they are.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from mixtures.yaml_files import Written, fault
from storage.schema import FIELDS

KINDS = ("web", "wet", "encyclopedia", "jsonl", "parquet", "text", "dataset", "documents")
"""Keys that name files, as the options of `gristmill run` do."""
TABLES = ("jsonl", "parquet", "dataset")
"""Those of them that have columns."""
_ELSEWHERE = ("cc:", "cdx:", "~", "/")


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


Paths = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(_as_tuple),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "items": {"type": "string"}}]}),
]
"""A path, a glob, a folder or a URL, or several of them."""


class RecipeInput(Written):
    """Where one source's documents come from: files of one kind or of several, and what is the same for all of them."""

    web: Paths | None = Field(default=None, description="WARC files, `cc:CRAWL` or `cdx:FILE`.")
    wet: Paths | None = Field(default=None, description="WET files.")
    encyclopedia: Paths | None = Field(default=None, description="MediaWiki XML dumps.")
    jsonl: Paths | None = Field(default=None, description="JSON lines.")
    parquet: Paths | None = Field(default=None, description="Parquet files.")
    text: Paths | None = Field(
        default=None, description="Text files, a document each, or `stories.txt?separator=<|endoftext|>`."
    )
    dataset: Paths | None = Field(
        default=None, description="Hugging Face datasets, e.g. `owner/name?subset=en&split=test&revision=v1`."
    )
    documents: Paths | None = Field(default=None, description="Folders of documents that Gristmill wrote.")
    columns: dict[str, Annotated[str, Field(min_length=1)]] = Field(
        default_factory=dict,
        description="Which column of a table is what, such as `{text: body, url: meta.link}` (default: the same name); "
        "a dot reaches into nested values.",
        json_schema_extra={"propertyNames": {"enum": list(FIELDS)}},
    )
    licence: str | None = Field(
        default=None, min_length=1, description="Licence of its documents, but for those that state their own."
    )

    metadata_only: bool = Field(
        default=False, description="Its texts are measured, and never written to shards or exports."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        kinds = [kind for kind, _ in self.named()]
        if not kinds:
            raise ValueError(f"this input names no file; name some under one of {', '.join(KINDS)}")
        if self.columns and not any(kind in TABLES for kind in kinds):
            raise fault(f"`columns` goes with {', '.join(TABLES)}; {kinds[0]} has none", "columns")
        for name in self.columns:
            if name not in FIELDS:
                near = difflib.get_close_matches(name, FIELDS, 1)
                meant = f"did you mean `{near[0]}`? " if near else ""
                raise fault(f"a document has no `{name}`; {meant}it has {', '.join(FIELDS)}", "columns", name)
        return self

    def named(self) -> Iterator[tuple[str, str]]:
        """(kind, path) of all that it names, as written."""
        for kind in KINDS:
            yield from ((kind, path) for path in getattr(self, kind) or ())

    def placed(self, folder: Path) -> Self:
        """The same with paths that no longer count from the recipe's folder."""
        placed = {kind: tuple(_place(kind, path, folder) for path in getattr(self, kind) or ()) for kind in KINDS}
        return self.model_copy(update={kind: paths or None for kind, paths in placed.items()})


def _place(kind: str, path: str, folder: Path) -> str:
    if path.startswith("cdx:"):
        return f"cdx:{_place(kind, path.removeprefix('cdx:'), folder)}"
    if "://" in path or path.startswith(_ELSEWHERE):
        return path
    is_hub_name = kind == "dataset" and not (folder / path.partition("?")[0]).exists()
    return path if is_hub_name else str(folder / path)
