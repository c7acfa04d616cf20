"""Multiple choice by log-likelihood: the model's answer is the choice that it holds likeliest after the question.

`acc` compares whole likelihoods, `acc_norm` those divided by the choice's characters, `acc_bytes` by its UTF-8 bytes,
as lm-eval defines them, with the standard error of the mean (n − 1). With `shots`, the first others of the example
file stand before each question; a question is never its own example.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from storage.errors import InputError
from trainer.evaluation.likelihood import Likelihood, Score
from trainer.evaluation.questions import Benchmark, Question

BETWEEN_EXAMPLES = "\n\n"


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """A share of right answers and its standard error; `chance` is what guessing gives."""

    acc: float
    acc_error: float | None
    acc_norm: float
    acc_norm_error: float | None
    acc_bytes: float
    acc_bytes_error: float | None
    chance: float
    questions: int
    shots: int


def answer_benchmark(
    benchmark: Benchmark,
    score: Score,
    *,
    shots: int = 0,
    examples: Benchmark | None = None,
    limit: int | None = None,
) -> Accuracy:
    """Let `score` answer the questions (the first `limit` of them), after `shots` examples each."""
    questions = benchmark.questions[:limit]
    prompts = word_prompts(benchmark, questions, examples or benchmark, shots)
    pairs = [
        (prompt, question.delimiter + choice)
        for prompt, question in zip(prompts, questions, strict=True)
        for choice in question.choices
    ]
    likelihoods = iter(score(pairs))
    right = np.array([_judge(question, list(islice(likelihoods, len(question.choices)))) for question in questions])
    chance = sum(1 / len(question.choices) for question in questions) / len(questions)
    return _accuracy(right, chance, shots)


def word_prompts(benchmark: Benchmark, questions: Sequence[Question], examples: Benchmark, shots: int) -> list[str]:
    """Opening, examples and question for each. Raises InputError where there are too few examples.

    Examples are of the question's own subject where that has enough of them.
    """
    by_subject: dict[str, list[Question]] = defaultdict(list)
    for example in examples.questions:
        by_subject[example.subject].append(example)
    prompts = []
    for question in questions:
        own = by_subject[question.subject]
        chosen = _others(question, own if len(_others(question, own, shots)) == shots else examples.questions, shots)
        if len(chosen) < shots:
            raise InputError(
                f"{shots} examples are asked for, `{examples.name}` has {len(chosen)} besides the question",
                hint="lower `--shots`, or give a file with more by `--examples`",
            )
        solved = [example.solved for example in chosen]
        prompts.append(benchmark.opening_of(question) + BETWEEN_EXAMPLES.join([*solved, question.prompt]))
    return prompts


def _others(question: Question, examples: Sequence[Question], count: int) -> list[Question]:
    return list(islice((example for example in examples if example != question), count))


def _judge(question: Question, likelihoods: Sequence[Likelihood]) -> tuple[bool, bool, bool]:
    """Whether the answer is right: as it is, by characters, by bytes."""
    nats = np.array([likelihood.nats for likelihood in likelihoods])
    characters = np.array([len(choice) for choice in question.choices], dtype=float)
    num_bytes = np.array([len(choice.encode()) for choice in question.choices], dtype=float)
    return (
        int(nats.argmax()) == question.gold,
        int((nats / characters).argmax()) == question.gold,
        int((nats / num_bytes).argmax()) == question.gold,
    )


def _accuracy(right: npt.NDArray[np.bool_], chance: float, shots: int) -> Accuracy:
    means, count = right.mean(axis=0).tolist(), len(right)
    errors = (right.std(axis=0, ddof=1) / math.sqrt(count)).tolist() if count > 1 else [None] * 3
    return Accuracy(
        acc=means[0],
        acc_error=errors[0],
        acc_norm=means[1],
        acc_norm_error=errors[1],
        acc_bytes=means[2],
        acc_bytes_error=errors[2],
        chance=chance,
        questions=count,
        shots=shots,
    )
