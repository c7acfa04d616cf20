"""What is asked and what comes back: one protocol for every way to a language model.

Invariant: each question gets exactly one answer, a rating or a failure, in any order; nothing that a document or a
server says raises. Questions are pulled only as fast as they are answered, so texts are held by the window and not by
the sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from classifiers.annotation.rating import Rating


@dataclass(frozen=True, kw_only=True)
class Question:
    """A document to be rated; `key` is the asker's own."""

    key: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Why there is no rating: a short snake_case `reason`, and the beginning of what was said instead."""

    reason: str
    said: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to the question of that key. Tokens are those of the request that was answered."""

    key: int
    outcome: Rating | Failed
    attempts: int
    characters: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the model draws its answer. At temperature 0 it says its likeliest digit."""

    temperature: float = 0.0
    seed: int = 0


class Annotator(Protocol):
    """A language model that rates texts by one rubric."""

    def annotate(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """Answers in the order in which they are ready."""
        ...
