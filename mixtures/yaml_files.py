"""YAML files that people write: read once into frozen models, with file and line in every error, all errors at once.

Only plain YAML 1.2 scalars are understood (`no` and `on` are words, not booleans) and no tag makes an object. A file
may be 1 MB and, aliases resolved, 100,000 values: an alias bomb is refused before it is built.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Self, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails, PydanticCustomError

from storage.errors import RecipeError
from storage.identity import fingerprint

Place = tuple[str | int, ...]
"""Where a value stands in a document: keys and list positions from the root."""

FORMAT_VERSION = 1
MAX_BYTES = 1 << 20
MAX_VALUES = 100_000
MAX_DEPTH = 32
MAX_DIGITS = 300
SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Origin:
    """Where a model came from: the file as people know it, its folder, and the line of each of its values."""

    file: str
    path: Path = Path("<memory>")
    lines: dict[Place, int] = field(default_factory=dict)

    def at(self, *place: str | int) -> str:
        """`file:line` of the value at `place`, or of the nearest one around it."""
        for length in range(len(place), -1, -1):
            if line := self.lines.get(place[:length]):
                return f"{self.file}:{line}"
        return f"{self.file}: {'.'.join(map(str, place))}" if place else self.file


class Written(BaseModel):
    """Something a person writes in YAML: unknown keys are refused, nothing is converted silently, nothing changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def one_of(*keys: str) -> ConfigDict:
    """For editors: exactly one of these keys must be there (the model's validator says it to people)."""
    return ConfigDict(json_schema_extra={"oneOf": [{"required": [key]} for key in keys]})


class WrittenFile(Written):
    """The root of such a file."""

    format_version: int = Field(
        description="Version of this file's format; this Gristmill reads 1.",
        json_schema_extra={"const": FORMAT_VERSION},
    )
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Short name, shown in plans and reports.")
    description: str = Field(default="", description="What it is for, in a sentence.")

    APART: ClassVar[tuple[str, ...]] = ("name", "description")
    """Keys that say nothing of what the file makes."""

    _origin: Origin = PrivateAttr(default=Origin("<memory>"))

    @property
    def file(self) -> str:
        return self._origin.file

    @property
    def path(self) -> str:
        """Where the file is, for processes in another folder; `file` is for people in this one."""
        return str(self._origin.path)

    @property
    def folder(self) -> Path:
        """From here the file's own paths count."""
        return self._origin.path.parent

    def at(self, *place: str | int) -> str:
        """`file:line` of a value of this file."""
        return self._origin.at(*place)

    def identity(self) -> str:
        """32 hex digits of what the file says; what is APART and where it lies do not count."""
        return fingerprint(self.model_dump(mode="json", exclude=set(self.APART), exclude_none=True))

    def came_from(self, origin: Origin) -> Self:
        self._origin = origin
        return self


FileModel = TypeVar("FileModel", bound=WrittenFile)

_COUNT = re.compile(r"(\d[\d_]*(?:\.\d+)?)\s*([kMBT]?)")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def parse_count(value: object) -> object:
    """Whole numbers as people write them: 2000000, 2_000_000, 2M, 1.5 B. Anything else is passed on to be refused."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, str) or not (match := _COUNT.fullmatch(value.strip())):
        return value
    whole, _, part = match[1].replace("_", "").partition(".")
    scaled = int(whole + part) * _UNITS[match[2]]
    return value if scaled % 10 ** len(part) else scaled // 10 ** len(part)


Count = Annotated[
    int,
    BeforeValidator(parse_count),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^\d[\d_]*(\.\d+)?\s*[kMBT]?$"}]}
    ),
]
"""A number of tokens or entries: 2000000, 2_000_000, 2M, 1.5B."""


def fault(message: str, *place: str | int) -> PydanticCustomError:
    """For a validator that looks at several values: what is wrong, and the place to point at."""
    return PydanticCustomError("fault", "{message}", {"message": message, "place": place})


def find_file(reference: str, shipped: Path, *, beside: Path | None = None) -> Path:
    """The file that `reference` names: a path (from `beside`, if given), or a shipped file by its bare name.

    Raises RecipeError when there is none, with the shipped names.
    """
    named_path = reference.endswith(SUFFIXES) or "/" in reference
    path = (beside or Path()) / reference if named_path else shipped / f"{reference}.yaml"
    if path.is_file():
        return path
    names = sorted(file.stem for file in shipped.glob("*.yaml"))
    near = difflib.get_close_matches(reference, names, 1)
    kind = {"policies": "policy"}.get(shipped.name, shipped.name.removesuffix("s"))
    raise RecipeError(
        f"there is no {kind} `{reference}`",
        at=_shown(path),
        hint=(f"did you mean `{near[0]}`? " if near else "")
        + f"give the path of a .yaml file, or one of the shipped names: {', '.join(names)}",
    )


def load_yaml(path: Path, model: type[FileModel]) -> FileModel:
    """Read `path` into `model`. Raises RecipeError with every fault of the file and its line."""
    shown = _shown(path)
    values, origin = _read(path, shown)
    version = values.get("format_version")
    if version != FORMAT_VERSION:
        what = "has no format_version" if version is None else f"has format_version {version!r}"
        raise RecipeError(
            f"this {model.__name__.lower()} {what}; this Gristmill reads {FORMAT_VERSION}",
            at=origin.at("format_version"),
            hint=f"write `format_version: {FORMAT_VERSION}` at its top, if it was written for this version",
        )
    try:
        return model.model_validate_json(json.dumps(values)).came_from(origin)
    except ValidationError as error:
        raise _gather(error, model, origin) from error


def _shown(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _read(path: Path, shown: str) -> tuple[dict[str, Any], Origin]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"cannot read the file: {error.strerror}", at=shown) from error
    if len(data) > MAX_BYTES:
        raise RecipeError(f"the file has {len(data):,} bytes; a recipe or policy may have {MAX_BYTES:,}", at=shown)
    try:
        root = yaml.compose(data, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"this is not YAML: {error.problem}", at=f"{shown}:{line}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError(
            f"this is not YAML: {str(error)[:200] or 'nested too deeply'}",
            at=shown,
            hint="name a text file in YAML; the shipped ones show how it is written",
        ) from error
    if not isinstance(root, yaml.MappingNode):
        raise RecipeError("the file holds no `key: value` lines", at=f"{shown}:1")
    origin = Origin(shown, path.resolve())
    values = _Builder(origin).build(root, ())
    assert isinstance(values, dict)
    return values, origin


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars: no `yes`/`on` booleans, no base-60 numbers, no dates."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


for _tag, _pattern, _first in (
    ("bool", r"true|false|True|False", "tfTF"),
    ("int", r"[-+]?[0-9][0-9_]*", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf)|\.(nan|NaN)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|", "~nN\0"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first) + [""])


_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class _Builder:
    """Turns YAML nodes into plain values and remembers the line of each."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.count = 0

    def build(self, node: yaml.Node, place: Place) -> Any:
        line = node.start_mark.line + 1
        self.origin.lines.setdefault(place, line)
        self.count += 1
        if self.count > MAX_VALUES or len(place) > MAX_DEPTH:
            self._refuse(f"the file holds more than {MAX_VALUES:,} values or {MAX_DEPTH} levels", line)
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _COLLECTIONS:
            self._refuse(f"the tag `{node.tag}` is not allowed here", line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*place, i)) for i, item in enumerate(node.value)]
        return self._scalar(node, line)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse("a key must be a word", line)
            key = str(key_node.value)
            if key in values:
                self._refuse(f"the key `{key}` stands here twice", line)
            self.origin.lines[(*place, key)] = line
            values[key] = self.build(value_node, (*place, key))
        return values

    def _scalar(self, node: yaml.Node, line: int) -> Any:
        kind, text = node.tag.removeprefix("tag:yaml.org,2002:"), str(node.value)
        if kind == "str":
            return text
        if kind == "bool":
            return text.lower() == "true"
        if kind == "null":
            return None
        if kind == "int" and len(text) <= MAX_DIGITS:
            return int(text.replace("_", ""))
        if kind == "float":
            return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
        what = "a number of that many digits" if kind == "int" else f"the tag `{node.tag}`"
        self._refuse(f"{what} is not allowed here", line)

    def _refuse(self, what: str, line: int) -> Any:
        raise RecipeError(what, at=f"{self.origin.file}:{line}")


_TOO_SHORT = re.compile(r"(?:Tuple|List|Dictionary) should have (.*) after validation, not \d+")


def _gather(error: ValidationError, model: type[WrittenFile], origin: Origin) -> RecipeError:
    """One RecipeError that says all that pydantic found."""
    items = error.errors(include_url=False)
    places = [_place(item) for item in items]
    causes = [item for item, at in zip(items, places, strict=True) if not any(_is_inside(p, at) for p in places)]
    faults = sorted(
        ((origin.at(*_place(item)), *_describe(item, model)) for item in causes),
        key=lambda fault: int(fault[0].rpartition(":")[2]) if fault[0].rpartition(":")[2].isdigit() else 0,
    )
    if len(faults) == 1:
        at, what, hint = faults[0]
        return RecipeError(what, at=at, hint=hint)
    lines = [f"{at}: {what}" + (f" ({hint})" if hint else "") for at, what, hint in faults]
    return RecipeError(f"{len(faults)} things are wrong\n  " + "\n  ".join(lines), at=origin.file)


def _place(item: ErrorDetails) -> Place:
    return (*(step for step in item["loc"] if step != "[key]"), *item.get("ctx", {}).get("place", ()))


def _is_inside(inner: Place, outer: Place) -> bool:
    """A fault in a list's item also makes the list too short: only the inner one is the cause."""
    return len(inner) > len(outer) and inner[: len(outer)] == outer


def _describe(item: ErrorDetails, model: type[WrittenFile]) -> tuple[str, str | None]:
    place = _place(item)
    name = next((step for step in reversed(place) if isinstance(step, str)), model.__name__.lower())
    if item["type"] == "extra_forbidden":
        keys = sorted(_keys_at(model, place[:-1]))
        near = difflib.get_close_matches(name, keys, 1, 0.5)
        return f"unknown key `{name}`", f"did you mean `{near[0]}`?" if near else f"keys here: {', '.join(keys)}"
    if item["type"] == "missing":
        return f"`{name}` is missing", None
    if item["type"] == "value_error":
        return str(item["ctx"]["error"]), None
    if item["type"] == "fault":
        return item["msg"], None
    wanted = _TOO_SHORT.sub(r"it should have \1", item["msg"].replace("Input should be", "it should be"))
    shown = json.dumps(item["input"], ensure_ascii=False, default=str)
    return f"`{name}` is {shown[:80]}: {wanted}", None


def _keys_at(model: type[BaseModel], place: Sequence[str | int]) -> set[str]:
    """The keys that the mapping at `place` may have."""
    found: list[Any] = [model]
    for step in place:
        found = [inner for kind in found for inner in _step(kind, step)]
    return {
        key for kind in found if isinstance(kind, type) and issubclass(kind, BaseModel) for key in kind.model_fields
    }


def _step(kind: Any, step: str | int) -> Iterator[Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if step in kind.model_fields:
            yield from _members(kind.model_fields[str(step)].annotation)
    elif get_origin(kind) in (tuple, list):
        yield from _members(get_args(kind)[0])
    elif get_origin(kind) is dict:
        yield from _members(get_args(kind)[1])


def _members(kind: Any) -> Iterator[Any]:
    if get_origin(kind) in (Union, UnionType):
        for inner in get_args(kind):
            yield from _members(inner)
    elif get_origin(kind) is Annotated:
        yield from _members(get_args(kind)[0])
    else:
        yield kind
