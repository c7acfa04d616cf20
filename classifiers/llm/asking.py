"""What is asked of a language model and what comes back: one protocol for every way to reach one.

A *talk* is a generator that yields prompts, is sent what came of each, and returns its outcome: one prompt for a
rating, a chain of them for a synthetic document. It knows neither threads nor batches, and the way to the model knows
nothing of what is asked. Invariant: each talk is held to its end once, in any order, and nothing that a document or a
server says raises. Talks begin only as fast as others end, so texts are held by the window, not by the sample.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

TOO_LONG = "too_long"
"""The reason where a prompt does not fit the model's context: the talk may go on with a shorter one."""
SAID_CHARACTERS = 300
"""What is kept of an answer that is none."""

Messages = Sequence[Mapping[str, str]]
TokenChances = Sequence[tuple[str, float]]
"""Tokens that could stand at one place of the answer, its own first, and the logarithms of their probabilities."""


@dataclass(frozen=True, kw_only=True)
class OneOf:
    """The answer is one of these words, a token or two each; the chances of its tokens are told."""

    options: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class JsonObject:
    """The answer is JSON by this schema, and ends after `max_tokens` tokens."""

    name: str
    schema: Mapping[str, Any]
    max_tokens: int


Form = OneOf | JsonObject


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One question. At temperature 0 the model says what is likeliest."""

    messages: Messages
    form: Form
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the model said. `attempts` are the requests that it took; tokens are those of the last of them."""

    said: str
    places: Sequence[TokenChances] = field(default=(), repr=False)
    is_cut: bool = False
    attempts: int = 1
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Why there is no answer: a short snake_case `reason`, and the beginning of what was said instead."""

    reason: str
    said: str
    attempts: int = 0


class Nonsense(ValueError):
    """An answer that is not what was asked for; its text is the beginning of what was said."""

    def __init__(self, answer: str) -> None:
        super().__init__(answer[:SAID_CHARACTERS])


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the model draws its answers."""

    temperature: float = 0.0
    seed: int = 0


T = TypeVar("T")
U = TypeVar("U")
Talk = Generator[Prompt, Reply | Failed, T]


@dataclass(frozen=True)
class Ended(Generic[T]):
    """A talk that has its outcome."""

    outcome: T


def go_on(talk: Talk[T], came: Reply | Failed | None) -> Prompt | Ended[T]:
    """The next prompt of a talk that was sent what came of its last one (None: it has not begun), or its outcome."""
    try:
        return next(talk) if came is None else talk.send(came)
    except StopIteration as end:
        return Ended(end.value)


class LanguageModel(Protocol):
    """A way to a language model."""

    def hold(self, talks: Iterable[Talk[U]]) -> Iterator[U]:
        """The outcomes of the talks, in the order in which they are ready."""
        ...
