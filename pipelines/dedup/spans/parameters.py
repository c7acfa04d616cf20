"""What is asked of repeated spans, and the words of a command line that ask for it.

Memory is asked for beside and is no part of either: the same spans are found within any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from storage.errors import InputError
from storage.identity import fingerprint, hash_file

Keep = Literal["first", "none"]
Unit = Literal["bytes", "words", "tokens"]
LineUnit = Literal["lines", "paragraphs", "sentences"]
Scope = Literal["corpus", "host"]
Letters = Literal["plain", "ccnet"]
DEFAULT_MEMORY = 1000
GUIDE = "docs/guides/deduplication.md"


def _choice(value: str, kind: Any, name: str) -> None:
    if value not in get_args(kind):
        raise ValueError(f"{name} is `{value}`; it must be {' or '.join(get_args(kind))}")


@dataclass(frozen=True, kw_only=True)
class SubstringConfig:
    """Substrings of at least `length` units that stand at another place too, in the same document or in another.

    `bytes` are those of UTF-8; `words` those of deduplication, letter case aside; `tokens` the ids of a
    `tokenizer.json`. `keep` says which of a substring's places stays: the first (by doc_id, then by place) or none.
    """

    length: int = 200
    unit: Unit = "bytes"
    tokenizer: str | None = None
    keep: Keep = "first"

    def __post_init__(self) -> None:
        _choice(self.unit, Unit, "unit")
        _choice(self.keep, Keep, "keep")
        if not 2 <= self.length <= 1_000_000:
            raise ValueError(f"length is {self.length}; it must be from 2 to 1,000,000 {self.unit}")
        if (self.tokenizer is not None) != (self.unit == "tokens"):
            raise ValueError("a tokenizer goes with `unit=tokens`, and only with it")
        if self.tokenizer and not Path(self.tokenizer).is_file():
            raise ValueError(f"there is no tokenizer.json at {self.tokenizer}")

    @property
    def width(self) -> int:
        """Bytes of a unit where they are compared."""
        return {"bytes": 1, "words": 8, "tokens": 4}[self.unit]

    def identity(self) -> str:
        """What the spans depend on: a tokenizer's content, not its path."""
        model = hash_file(self.tokenizer) if self.tokenizer else None
        return fingerprint([self.length, self.unit, model, self.keep])


@dataclass(frozen=True, kw_only=True)
class LinesConfig:
    """Lines, paragraphs or runs of `sentences` sentences that stand in at least `documents` documents of their scope.

    `plain` letters are lower-cased, white space collapses; `ccnet` also makes each digit a 0 and leaves out accents and
    punctuation. Under `keep: none` all places count as surplus, under `first` all but the first.
    """

    scope: Scope = "host"
    documents: int = 3
    unit: LineUnit = "lines"
    sentences: int = 3
    letters: Letters = "plain"
    keep: Keep = "none"

    def __post_init__(self) -> None:
        for name, kind in (("scope", Scope), ("unit", LineUnit), ("letters", Letters), ("keep", Keep)):
            _choice(getattr(self, name), kind, name)
        if self.documents < 2 or self.sentences < 1:
            raise ValueError(f"documents is {self.documents}, sentences {self.sentences}; they start at 2 and at 1")

    @property
    def window(self) -> int:
        """Units that are counted together."""
        return self.sentences if self.unit == "sentences" else 1

    def identity(self) -> str:
        return fingerprint(self)


@dataclass(frozen=True, kw_only=True)
class SpansConfig:
    """All that is asked of a run; `memory` is what a task may hold, in megabytes."""

    substrings: SubstringConfig | None = None
    lines: LinesConfig | None = None
    memory: int = field(default=DEFAULT_MEMORY)

    def identity(self) -> str:
        """The same for any memory."""
        return fingerprint([found.identity() if found else None for found in (self.substrings, self.lines)])


PRESETS: dict[str, dict[str, Any]] = {
    "c4": {"scope": "corpus", "documents": 2, "unit": "sentences", "keep": "first"},
    "ccnet": {"scope": "corpus", "documents": 2, "letters": "ccnet", "keep": "first"},
}
"""`--repeated-lines NAME`: C4's three-sentence spans, CCNet's paragraphs (which are lines)."""


def spans_config(repeated_spans: str | None, repeated_lines: str | None) -> SpansConfig:
    """What `--repeated-spans` and `--repeated-lines` ask for. Raises InputError for what is neither."""
    memory: list[int] = []
    substrings = _read("--repeated-spans", repeated_spans, lambda text: _substrings(text, memory))
    lines = _read("--repeated-lines", repeated_lines, lambda text: _lines(text, memory))
    return SpansConfig(substrings=substrings, lines=lines, memory=max(memory, default=DEFAULT_MEMORY))


def _read(option: str, text: str | None, read: Callable[[str], Any]) -> Any:
    try:
        return read(text) if text else None
    except (TypeError, ValueError) as error:
        example = "substring:200,keep=first" if option == "--repeated-spans" else "host:3"
        raise InputError(
            f"`{option} {text}`: {error}", hint=f"write `{option} {example}`; all options stand in {GUIDE}"
        ) from error


def _substrings(text: str, memory: list[int]) -> SubstringConfig:
    kind, _, rest = text.partition(":")
    if kind != "substring":
        raise ValueError(f"there is no kind `{kind}`, only `substring`")
    return SubstringConfig(**_options(rest, "length", SubstringConfig, memory))


def _lines(text: str, memory: list[int]) -> LinesConfig:
    scope, _, rest = text.partition(":")
    if scope in PRESETS:
        return LinesConfig(**{**PRESETS[scope], **_options(rest, "documents", LinesConfig, memory)})
    return LinesConfig(**{"scope": scope, **_options(rest, "documents", LinesConfig, memory)})


def _options(rest: str, number: str, config: type, memory: list[int]) -> Mapping[str, Any]:
    """`200,keep=none` as {"length": 200, "keep": "none"}; `memory` goes to its own list."""
    names = {known.name for known in fields(config)} | {"memory"}
    found: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        name, equals, value = item.partition("=") if "=" in item else (number, "=", item)
        if name not in names or not value:
            raise ValueError(f"there is no option `{item}`: there are {', '.join(sorted(names))}")
        found[name] = int(value) if name in ("length", "documents", "sentences", "memory") else value
    if (given := found.pop("memory", None)) is not None:
        if given < 16:
            raise ValueError(f"memory is {given} MB; it must be at least 16")
        memory.append(given)
    return found
