"""A rating: what one answer of a language model says on the rubric's scale.

Invariant: the probabilities are those of the rubric's digits, given that the answer is one of them, and sum to one; the
score is their expected value. Where the server gives no probabilities, the score is the digit that was said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from classifiers.llm.asking import Nonsense, TokenChances

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, kw_only=True)
class Rating:
    """`score` is the expected value, `argmax` the likeliest digit, `said` the one that stands in the answer.

    `probabilities` has one value a digit of the scale; `mass` is the share of all probability that the digits had
    before they were made to sum to one. Both are None where the server gives no probabilities.
    """

    score: float
    argmax: int
    said: int
    probabilities: tuple[float, ...] | None = None
    mass: float | None = None


def read_rating(answer: str, places: Iterable[TokenChances], digits: Sequence[str]) -> Rating:
    """The rating of an answer whose tokens came from `places`. Raises Nonsense.

    The place that counts is the first whose own token (the first listed) is a digit of the scale.
    """
    numbers = _NUMBER.findall(answer)
    if len(numbers) != 1 or numbers[0] not in digits:
        raise Nonsense(answer)
    said = int(numbers[0])
    chances = next((place for place in places if place and place[0][0].strip() == numbers[0]), None)
    if chances is None:
        return Rating(score=float(said), argmax=said, said=said)
    return rate(chances, said=said, digits=digits)


def rate(chances: TokenChances, *, said: int, digits: Sequence[str]) -> Rating:
    """Probabilities and expected value from the tokens that could have stood where the digit stands.

    Tokens that differ in the space before the digit are added; one that is listed twice counts once.
    """
    found = {token: chance for token, chance in chances if token.strip() in digits}
    weights = [
        math.fsum(math.exp(chance) for token, chance in found.items() if token.strip() == digit) for digit in digits
    ]
    mass = math.fsum(weights)
    if not math.isfinite(mass) or mass <= 0:
        return Rating(score=float(said), argmax=said, said=said)
    probabilities = tuple(weight / mass for weight in weights)
    score = math.fsum(int(digit) * share for digit, share in zip(digits, probabilities, strict=True))
    best = max(range(len(digits)), key=lambda i: (probabilities[i], digits[i] == str(said), -i))
    return Rating(
        score=min(max(score, float(digits[0])), float(digits[-1])),
        argmax=int(digits[best]),
        said=said,
        probabilities=probabilities,
        mass=min(mass, 1.0),
    )
