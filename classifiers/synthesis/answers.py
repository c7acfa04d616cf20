"""Answers: what a model may say at each step, declared once, as the JSON schema that holds it and as what reads it.

Invariant: a schema constrains the shape; the reading refuses what a schema cannot say or a server did not enforce:
JSON that ended early, blank strings, other keys. Nothing of an answer is trusted because it was constrained.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from classifiers.llm.asking import JsonObject, Nonsense, Reply
from storage.schema import encode

MOST_PAIRS, MOST_FACTS, MOST_SEGMENTS, MOST_STEPS = 8, 40, 64, 16
_THOUGHT_ENDS = "</think>"


class Said(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Text(Said):
    text: str


class Pair(Said):
    question: str
    answer: str


class Pairs(Said):
    pairs: list[Pair] = Field(min_length=1, max_length=MOST_PAIRS)


class Facts(Said):
    facts: list[str] = Field(min_length=1, max_length=MOST_FACTS)


class Segments(Said):
    """The number of the first sentence of each segment."""

    starts: list[int] = Field(min_length=1, max_length=MOST_SEGMENTS)


class Abstract(Said):
    abstract: str


class Reasoning(Said):
    """A question, and the steps that lead to its answer."""

    question: str
    steps: list[str] = Field(min_length=1, max_length=MOST_STEPS)


S = TypeVar("S", bound=Said)


def form_of(kind: type[Said], max_tokens: int) -> JsonObject:
    """How an answer of this kind is held."""
    return JsonObject(name=kind.__name__.lower(), schema=kind.model_json_schema(), max_tokens=max_tokens)


def read_answer(reply: Reply, kind: type[S]) -> S:
    """The answer in a reply, with or without a code fence or thoughts before it. Raises Nonsense."""
    said = reply.said.rpartition(_THOUGHT_ENDS)[2]
    first, last = said.find("{"), said.rfind("}")
    try:
        answer = kind.model_validate_json(encode(said[first : last + 1]))
    except ValidationError as error:
        raise Nonsense(reply.said) from error
    if not all(text.strip() for text in _texts(answer.model_dump())):
        raise Nonsense(reply.said)
    return answer


def _texts(value: Any) -> Iterator[str]:
    """Every string in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for held in value.values() if isinstance(value, dict) else value:
            yield from _texts(held)
