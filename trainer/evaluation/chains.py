"""Paired chains of reasoning: an item passes if the model holds the correct chain likelier, token for token.

As in OpenSeek's adversarial reasoning test: passed is PPL(correct) < PPL(incorrect), each the perplexity of the chain's
own tokens after its question; the price is told as 6·n·T floating-point operations, n the model's parameters and T the
tokens read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from storage.errors import InputError
from trainer.evaluation.likelihood import Likelihood, Score
from trainer.evaluation.questions import benchmark_name
from trainer.evaluation.rows import Row

COLUMNS = ("correct", "incorrect")
QUESTION_COLUMNS = ("question", "query", "prompt")


@dataclass(frozen=True, kw_only=True)
class Chain:
    question: str
    correct: str
    incorrect: str


@dataclass(frozen=True, kw_only=True)
class Chains:
    name: str
    chains: tuple[Chain, ...]


@dataclass(frozen=True, kw_only=True)
class ChainScore:
    """Share of items that pass, its standard error; perplexities over all chains' tokens; 6nT of reading them."""

    passed: float
    passed_error: float | None
    correct_perplexity: float
    incorrect_perplexity: float
    flops: float
    items: int


def read_chains(path: Path, rows: Sequence[Row]) -> Chains:
    """The pairs in a table that has COLUMNS and a question. Raises InputError."""
    question = next((name for name in QUESTION_COLUMNS if name in rows[0]), None)
    if question is None:
        raise InputError("the chains have no question", at=str(path), hint=f"name it {' or '.join(QUESTION_COLUMNS)}")
    for number, row in enumerate(rows, 1):
        if not all(isinstance(row.get(name), str) and row[name].strip() for name in (question, *COLUMNS)):
            raise InputError(f"row {number} has no text in `{question}`, `correct` or `incorrect`", at=str(path))
    chains = tuple(Chain(question=row[question], correct=row["correct"], incorrect=row["incorrect"]) for row in rows)
    return Chains(name=benchmark_name(path), chains=chains)


def compare_chains(chains: Chains, score: Score, parameters: int, limit: int | None = None) -> ChainScore:
    """Score both chains of each item after its question, on a line of their own."""
    chosen = chains.chains[:limit]
    found = score([(it.question, f"\n{chain}") for it in chosen for chain in (it.correct, it.incorrect)])
    correct, incorrect = found[::2], found[1::2]
    passed = [_perplexity([right]) < _perplexity([wrong]) for right, wrong in zip(correct, incorrect, strict=True)]
    return ChainScore(
        passed=float(np.mean(passed)),
        passed_error=float(np.std(passed, ddof=1) / math.sqrt(len(passed))) if len(passed) > 1 else None,
        correct_perplexity=_perplexity(correct),
        incorrect_perplexity=_perplexity(incorrect),
        flops=6.0 * parameters * sum(likelihood.tokens for likelihood in found),
        items=len(chosen),
    )


def _perplexity(likelihoods: Sequence[Likelihood]) -> float:
    nats, tokens = sum(it.nats for it in likelihoods), sum(it.tokens for it in likelihoods)
    return math.exp(min(700.0, -nats / max(1, tokens)))
