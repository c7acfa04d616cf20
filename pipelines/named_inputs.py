"""The inputs that a request names, by its options and by its recipe, with how each is to be read.

What is said nearer to an input wins: an option for its source, then the recipe, then an option for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from mixtures.inputs import KINDS, TABLES
from mixtures.recipe import Recipe, load_recipe
from pipelines.request import RunRequest
from storage.errors import InputError
from storage.schema import FIELDS


@dataclass(frozen=True, kw_only=True)
class NamedInput:
    """A path, glob or URL of a kind and a source (empty: the documents say it), and what is read as what.

    `places` says where a column was written for this very source: `my.yaml:7`, or the option.
    """

    kind: str
    source: str
    path: str
    columns: Mapping[str, str] = field(default_factory=dict)
    licence: str | None = None
    metadata_only: bool = False
    places: Mapping[str, str] = field(default_factory=dict)


def named_inputs(request: RunRequest) -> list[NamedInput]:
    """All of them, by kind. Raises RecipeError for a recipe that is none, InputError for a column of no field."""
    _refuse_columns_of_no_field(request.columns)
    found = [*_of_options(request), *_of_recipe(load_recipe(request.recipe))]
    return sorted((_with_options(request, named) for named in found), key=lambda named: KINDS.index(named.kind))


def _refuse_columns_of_no_field(columns: Mapping[str, str]) -> None:
    """Also where no input is a table: what is asked for and cannot be is told."""
    for name, column in columns.items():
        if (field_name := name.rpartition(":")[2]) not in FIELDS:
            raise InputError(
                f"no such document field: `{field_name}`",
                at=f"--column {name}={column}",
                hint=f"the fields are {', '.join(FIELDS)}, as in `--column text=content`",
            )


def _of_options(request: RunRequest) -> Iterator[NamedInput]:
    for kind, paths in request.inputs.items():
        for named in paths:
            source, path = _split_name(kind, named)
            yield NamedInput(kind=kind, source=source, path=path)


def _split_name(kind: str, named: str) -> tuple[str, str]:
    """`name=path` → (name, path); without a name the kind is the source's name, that of documents is in them."""
    name, equals, path = named.partition("=")
    if equals and name and "/" not in name and "?" not in name:
        return name, path
    if kind == "documents":
        return "", named
    return ("web" if kind == "wet" else kind), named


def _of_recipe(recipe: Recipe) -> Iterator[NamedInput]:
    for source, written in recipe.inputs.items():
        places = {name: recipe.at("inputs", source, "columns", name) for name in written.columns}
        for kind, path in written.placed(recipe.folder).named():
            table = {"columns": written.columns, "places": places} if kind in TABLES else {}
            yield NamedInput(
                kind=kind,
                source=source,
                path=path,
                licence=written.licence,
                metadata_only=written.metadata_only,
                **table,
            )


def _with_options(request: RunRequest, named: NamedInput) -> NamedInput:
    """The input with the options for all before what the recipe says, and those for its source behind it."""
    given = request.columns if named.kind in TABLES else {}
    of_all = {name: column for name, column in given.items() if ":" not in name}
    own = {name.rpartition(":")[2]: column for name, column in given.items() if name.startswith(f"{named.source}:")}
    return replace(
        named,
        columns={**of_all, **named.columns, **own},
        licence=request.license.get(named.source, named.licence),
        metadata_only=named.metadata_only or named.source in request.metadata_only,
        places={**named.places, **{name: f"--column {named.source}:{name}={own[name]}" for name in own}},
    )
