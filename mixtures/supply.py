"""Supply: what each source of a recipe has for training, once its held-out set is set aside, and how far it is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from mixtures.apportion import effective_tokens
from mixtures.conditions import Factors, Numbers
from mixtures.corpus import Corpus, Keys, Mask, Rows, Sizes, over_parts
from mixtures.draw import (
    EPOCH,
    Candidates,
    Kinds,
    claim_groups,
    is_drawn,
    is_heldout,
    number_kinds,
    settle_ends,
    settle_thresholds,
)
from mixtures.host_limits import available_rows
from mixtures.missing import explain_empty_sources
from mixtures.recipe import FACTOR_STEPS, Recipe
from mixtures.wording import say_count
from storage.errors import RecipeError

MOST_FACTORS = 1000
"""Different factors of a source: each takes 32 KB and a look at its bins."""


@dataclass(frozen=True)
class Tally:
    """Documents, tokens, and bytes of text by source."""

    documents: list[int]
    tokens: list[int]
    bytes: list[int]

    def without(self, other: Tally) -> Tally:
        """What is left of these when those are taken away."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Tally(*([a - b for a, b in zip(mine, theirs, strict=True)] for mine, theirs in pairs))


@dataclass(frozen=True)
class Reached:
    """How far each source is used up: its end in ticks, what was given, and what that is worth in fresh tokens.

    `by_kind` are the tokens given of each kind; `highest` are the epochs of each source's most repeated documents.
    """

    ends: list[int]
    by_kind: list[int]
    tokens: list[int]
    effective: list[float]
    highest: list[float]


@dataclass(frozen=True)
class Supply:
    """The training documents of all sources by kind, the thresholds of the held-out draw, and all sides counted.

    `withheld` is what of `held` is there only because another source draws one of its group, `limited` what a limit on
    hosts leaves, and `estimated` what of train and held is not in the token store.
    """

    training: list[Candidates]
    kinds: Kinds
    kind_tokens: list[int]
    heldout: list[int | None]
    train: Tally
    held: Tally
    withheld: Tally
    limited: Tally
    estimated: Tally

    def once(self) -> list[int]:
        """The tokens of one epoch of each source: every document as often as its factor says."""
        return self._up_to([Fraction(1)] * len(self.heldout))

    def within(self, epochs: Sequence[Fraction]) -> list[int]:
        """The tokens that each source gives while none of its documents comes more often than so many epochs."""
        highest = [max(self.kinds.factor[i] for i in self.kinds.of_source(source)) for source in range(len(epochs))]
        return self._up_to([most * FACTOR_STEPS / factor for most, factor in zip(epochs, highest, strict=True)])

    def _up_to(self, epochs: Sequence[Fraction]) -> list[int]:
        """The tokens of so many epochs of each source; only with factors it takes a look at every document."""
        plain = [self._is_plain(source) for source in range(len(epochs))]
        exact = [] if all(plain) else self._tokens_by([math.floor(number * EPOCH) for number in epochs])
        return [math.floor(number * self.train.tokens[i]) if plain[i] else exact[i] for i, number in enumerate(epochs)]

    def _tokens_by(self, ends: Sequence[int]) -> list[int]:
        """Tokens of each source before its end."""
        by_kind = _count(self.training, len(self.kind_tokens), lambda rows: self.kinds.times(rows, ends) * rows.tokens)
        return [sum(by_kind[i] for i in self.kinds.of_source(source)) for source in range(len(ends))]

    def nothing(self) -> Reached:
        """Before the first stage."""
        none = [0] * len(self.heldout)
        return Reached(none, [0] * len(self.kind_tokens), none, [0.0] * len(none), [0.0] * len(none))

    def reach(self, targets: Sequence[int]) -> Reached:
        """Go on until each source has given its target of tokens in all."""
        ends = settle_ends(self.training, self.kinds, targets)
        by_kind = _count(self.training, len(self.kind_tokens), lambda rows: self.kinds.times(rows, ends) * rows.tokens)
        tokens, effective, highest = [0] * len(ends), [0.0] * len(ends), [0.0] * len(ends)
        for source, given, there in zip(self.kinds.source, by_kind, self.kind_tokens, strict=True):
            tokens[source] += given
            effective[source] += effective_tokens(there, given)
            highest[source] = max(highest[source], given / there)
        rounded = [self._round(source, end, targets[source]) for source, end in enumerate(ends)]
        return Reached(rounded, by_kind, tokens, effective, highest)

    def documents_between(self, start: Sequence[int], end: Sequence[int]) -> list[int]:
        """How many documents of each source come at least once from one end to the other."""

        def comes(rows: Candidates) -> Mask:
            more: Mask = self.kinds.times(rows, end) > self.kinds.times(rows, start)
            return more

        by_kind = _count(self.training, len(self.kind_tokens), comes)
        return [sum(by_kind[i] for i in self.kinds.of_source(source)) for source in range(len(end))]

    def _round(self, source: int, end: int, target: int) -> int:
        """A whole epoch where that was the target, rather than up to its last key."""
        whole = -(-end // EPOCH)
        return whole * EPOCH if target == whole * self.train.tokens[source] and self._is_plain(source) else end

    def _is_plain(self, source: int) -> bool:
        return [self.kinds.factor[i] for i in self.kinds.of_source(source)] == [FACTOR_STEPS]


def measure_supply(recipe: Recipe, corpus: Corpus) -> Supply:
    """Read what the sources have and draw the held-out sets. Raises RecipeError when a source has nothing left."""
    parts, beyond = available_rows(recipe, corpus)
    count = len(recipe.sources)
    everything = _tally(parts, count)
    if empty := [i for i, tokens in enumerate(everything.tokens) if tokens == 0]:
        raise explain_empty_sources(recipe, corpus, empty)
    heldout = settle_thresholds(
        [Candidates(rows.source, rows.cluster, rows.tokens) for rows in parts],
        [_heldout_target(recipe, tokens) for tokens in everything.tokens],
    )
    claimed = claim_groups(parts, heldout)
    masks = over_parts(lambda rows: is_heldout(rows, heldout, claimed), parts)
    aside = over_parts(lambda side: side[0].take(side[1]), list(zip(parts, masks, strict=True)))
    held = _tally(aside, count)
    train = everything.without(held)
    _require_training(recipe, held, train)
    kinds, candidates = _candidates(parts, masks, count)
    _require_few_kinds(recipe, kinds)
    kind_tokens = _count(candidates, len(kinds.source), lambda rows: rows.tokens)
    return Supply(
        training=candidates,
        kinds=kinds,
        kind_tokens=kind_tokens,
        heldout=heldout,
        train=train,
        held=held,
        withheld=_tally([rows.take(~is_drawn(rows, heldout)) for rows in aside], count),
        limited=_tally(beyond, count),
        estimated=_tally([rows for rows in parts if rows.estimated], count),
    )


def _candidates(parts: Sequence[Rows], aside: Sequence[Mask], sources: int) -> tuple[Kinds, list[Candidates]]:
    """What is trained on, by kind."""

    def training(side: tuple[Rows, Mask]) -> tuple[Numbers, Factors | None, Keys, Sizes]:
        rows, keep = side[0], ~side[1]
        factor = None if rows.factor is None else rows.factor[keep]
        return rows.source[keep], factor, rows.order[keep], rows.tokens[keep]

    columns = over_parts(training, list(zip(parts, aside, strict=True)))
    kinds, numbers = number_kinds([(source, factor) for source, factor, _, _ in columns], sources)
    return kinds, [Candidates(kind, *column[2:]) for kind, column in zip(numbers, columns, strict=True)]


def _require_training(recipe: Recipe, held: Tally, train: Tally) -> None:
    for i, source in enumerate(recipe.sources):
        if train.tokens[i] == 0:
            raise RecipeError(
                f"the held-out set takes all {held.documents[i]:,} documents of `{source.name}` "
                f"({say_count(held.tokens[i])} tokens), and none is left to train on",
                at=recipe.at("heldout"),
                hint="lower `heldout`, or merge this source with a larger one",
            )


def _require_few_kinds(recipe: Recipe, kinds: Kinds) -> None:
    for i, source in enumerate(recipe.sources):
        if (count := len(kinds.of_source(i))) > MOST_FACTORS:
            raise RecipeError(
                f"`repeat` gives the documents of `{source.name}` {count:,} different factors; {MOST_FACTORS:,} may be",
                at=recipe.at("sources", i, "repeat"),
                hint="round it: `round(…, 1)`",
            )


def _heldout_target(recipe: Recipe, tokens: int) -> int:
    if recipe.heldout.tokens is not None:
        return recipe.heldout.tokens
    return math.ceil(tokens * Fraction(str(recipe.heldout.share)))


def _count(parts: Sequence[Candidates], kinds: int, weigh: Callable[[Candidates], npt.NDArray[Any]]) -> list[int]:
    """The sum by kind of what each row weighs."""
    found = over_parts(lambda rows: np.bincount(rows.kind, weigh(rows), kinds), parts)
    return [int(total) for total in sum(found, np.zeros(kinds))]


def _tally(parts: Iterable[Rows], count: int) -> Tally:
    def add_up(rows: Rows) -> npt.NDArray[np.float64]:
        return np.stack([np.bincount(rows.source, weights, count) for weights in (None, rows.tokens, rows.bytes)])

    totals = sum(over_parts(add_up, parts), np.zeros((3, count)))
    return Tally(*totals.astype(np.int64).tolist())
