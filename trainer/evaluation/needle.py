"""Needle in a haystack: whether a sentence is found again, by the length of the text and the depth at which it lies.

The haystack is the user's own text, cut to the token; the needle says a number, and after the text the model is asked
for it. A cell passes where the model holds the true number likelier than nine others (chance is a tenth), which small
models can do long before they write it; `written` says besides whether greedy writing would give it token by token.
Deterministic for a seed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from storage.errors import InputError
from trainer.evaluation.likelihood import Ids, LikelihoodModel

NEEDLE = "\nThe secret number is {number}.\n"
QUESTION = "\nThe secret number is"
OTHERS = 9


@dataclass(frozen=True, kw_only=True)
class NeedleScore:
    """`found[length][depth]` is the share of trials in which the number was picked out; `written` greedily."""

    found: dict[str, dict[str, float]]
    written: dict[str, dict[str, float]]
    mean_found: float
    mean_written: float
    trials: int
    chance: float


@dataclass(frozen=True, kw_only=True)
class NeedleGrid:
    """Lengths in tokens, question included; depths from 0 (the beginning) to 1 (before the question)."""

    lengths: tuple[int, ...]
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    trials: int = 5
    seed: int = 0


def find_needles(model: LikelihoodModel, haystack: Sequence[str], grid: NeedleGrid) -> NeedleScore:
    """All cells of the grid. Raises InputError for lengths that the model or the haystack has not."""
    hay = [token for text in haystack for token in model.encode(text + "\n\n")]
    _check(model, hay, grid)
    dice = random.Random(grid.seed)
    found: dict[str, dict[str, float]] = {}
    written: dict[str, dict[str, float]] = {}
    for length in grid.lengths:
        for depth in grid.depths:
            hits = [_try_once(model, hay, length, depth, dice) for _ in range(grid.trials)]
            cell = f"{depth:g}"
            found.setdefault(str(length), {})[cell] = sum(hit for hit, _ in hits) / grid.trials
            written.setdefault(str(length), {})[cell] = sum(greedy for _, greedy in hits) / grid.trials
    return NeedleScore(
        found=found,
        written=written,
        mean_found=_mean(found),
        mean_written=_mean(written),
        trials=grid.trials,
        chance=1 / (1 + OTHERS),
    )


def _check(model: LikelihoodModel, hay: Sequence[int], grid: NeedleGrid) -> None:
    least = len(model.encode(NEEDLE.format(number="00000"))) + len(model.encode(QUESTION)) + 16
    longest = model.trained.model.config.max_positions
    if not all(least <= length <= longest for length in grid.lengths) or not grid.lengths:
        raise InputError(
            f"lengths are {', '.join(map(str, grid.lengths)) or 'missing'}; "
            f"they must be between {least} and the model's {longest} positions"
        )
    if len(hay) < max(grid.lengths):
        raise InputError(
            f"the haystack has {len(hay)} tokens, {max(grid.lengths)} are needed", hint="give more text with `--texts`"
        )
    if grid.trials < 1 or not all(0 <= depth <= 1 for depth in grid.depths):
        raise InputError("there must be a trial, and depths between 0 and 1")


def _try_once(
    model: LikelihoodModel, hay: Sequence[int], length: int, depth: float, dice: random.Random
) -> tuple[bool, bool]:
    """Whether the number was likeliest of ten, and whether greedy writing gives it."""
    numbers = dice.sample(range(10_000, 100_000), 1 + OTHERS)
    answers = [_answer(model, number) for number in numbers]
    needle, question = model.encode(NEEDLE.format(number=numbers[0])), model.encode(QUESTION)
    room = length - len(needle) - len(question) - max(map(len, answers))
    start = dice.randrange(len(hay) - room + 1)
    around = hay[start : start + room]
    place = round(depth * room)
    context = (*around[:place], *needle, *around[place:], *question)
    scored = model.score_tokens([(context, answer) for answer in answers])
    return max(scored, key=lambda it: it.nats) is scored[0], scored[0].greedy


def _answer(model: LikelihoodModel, number: int) -> Ids:
    return model.encode_pair(QUESTION, f" {number}")[1]


def _mean(cells: dict[str, dict[str, float]]) -> float:
    values = [value for row in cells.values() for value in row.values()]
    return sum(values) / len(values)
