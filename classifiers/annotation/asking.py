"""One document's rating, from its text to an answer: asked by a rubric, held to one digit, asked again for nonsense.

Invariant: each question gets exactly one answer, a rating or a failure; a text that does not fit the model's context is
halved until it does, down to 64 characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from classifiers.annotation.rating import Rating, read_rating
from classifiers.annotation.rubric import Rubric
from classifiers.llm.asking import TOO_LONG, Failed, LanguageModel, Nonsense, OneOf, Prompt, Reply, Sampling, Talk

ASKED = 2
"""Times that a document is asked about whose answers are no ratings."""
_SHORTEST_TEXT = 64


@dataclass(frozen=True, kw_only=True)
class Question:
    """A document to be rated; `key` is the asker's own."""

    key: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to the question of that key. Tokens are those of the request that was answered."""

    key: int
    outcome: Rating | Failed
    attempts: int
    characters: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


def rate_texts(
    model: LanguageModel, rubric: Rubric, sampling: Sampling, questions: Iterable[Question]
) -> Iterator[Answer]:
    """Answers in the order in which they are ready."""
    return model.hold(rate_text(question, rubric, sampling) for question in questions)


def rate_text(question: Question, rubric: Rubric, sampling: Sampling) -> Talk[Answer]:
    """The talk about one document."""
    text, attempts = question.text[: rubric.text_characters], 0
    nothing = Failed(reason="empty_text", said="")
    came: Reply | Failed = nothing
    outcome: Rating | Failed = nothing
    for again in range(ASKED if text.strip() else 0):
        text, came = yield from _ask_fitting(rubric, text, replace(sampling, seed=sampling.seed + again))
        attempts += came.attempts
        outcome = came if isinstance(came, Failed) else _read(came, rubric)
        if isinstance(came, Failed) or isinstance(outcome, Rating):
            break
    return _answer(question.key, outcome, came, attempts, len(text))


def _ask_fitting(rubric: Rubric, text: str, sampling: Sampling) -> Talk[tuple[str, Reply | Failed]]:
    """What came of the text, halved until it fits, and as much of it as was shown; attempts are those of all sizes."""
    attempts = 0
    while True:
        came = yield _prompt(rubric, text, sampling)
        attempts += came.attempts
        if not (isinstance(came, Failed) and came.reason == TOO_LONG) or len(text) < 2 * _SHORTEST_TEXT:
            return text, replace(came, attempts=attempts)
        text = text[: len(text) // 2]


def _prompt(rubric: Rubric, text: str, sampling: Sampling) -> Prompt:
    form = OneOf(options=rubric.digits)
    return Prompt(messages=rubric.messages(text), form=form, temperature=sampling.temperature, seed=sampling.seed)


def _read(reply: Reply, rubric: Rubric) -> Rating | Failed:
    try:
        return read_rating(reply.said, reply.places, rubric.digits)
    except Nonsense as error:
        return Failed(reason="nonsense", said=str(error))


def _answer(key: int, outcome: Rating | Failed, came: Reply | Failed, attempts: int, characters: int) -> Answer:
    tokens = (came.prompt_tokens, came.completion_tokens) if isinstance(came, Reply) else (0, 0)
    return Answer(
        key=key,
        outcome=outcome,
        attempts=attempts,
        characters=characters,
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
    )
