"""Demand: what a stage asks of each source, and what the limits let it have.

`tokens` come first and must be met; the rest of the stage's total goes to the weights. What a source may not have goes
to the others by their weights (Hamilton's method), so the total is kept as long as anything is left. `max_epochs` holds
over all stages on the way: what earlier ones took counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from mixtures.apportion import apportion_tokens, apportion_within
from mixtures.recipe import Recipe, Source, Stage
from mixtures.wording import say_count
from storage.errors import RecipeError


@dataclass(frozen=True)
class Demand:
    """Tokens by source: asked, and the target after the limits; `limits` names the one that holds a source back."""

    asked: list[int]
    targets: list[int]
    limits: list[str | None]


@dataclass(frozen=True)
class Offer:
    """Tokens of one source: an epoch of it, what it gives while no document comes more often than `max_epochs`, and
    what earlier stages took."""

    once: int
    most: int
    taken: int

    @property
    def left(self) -> int:
        return max(0, self.most - self.taken)


def work_out_demand(recipe: Recipe, stage: Stage | None, offers: Sequence[Offer]) -> Demand:
    """Share out a stage's tokens over the sources that it takes.

    Raises RecipeError when a source's own `tokens` cannot be met.
    """
    sources = recipe.sources_of(stage)
    asked = _ask(sources, recipe if stage is None else stage, offers)
    total, targets = sum(asked), list(asked)
    caps = [min(offer.left, _share_cap(source, total)) for source, offer in zip(sources, offers, strict=True)]
    for i, source in enumerate(sources):
        if source is not None and source.tokens is not None and asked[i] > caps[i]:
            raise _too_many(recipe, stage, source, offers[i], total)
    weighted = _weighted(sources)
    weights = [_weight(sources[i], offers[i]) for i in weighted]
    shares = apportion_within(sum(asked[i] for i in weighted), weights, [caps[i] for i in weighted])
    for i, tokens in zip(weighted, shares, strict=True):
        targets[i] = tokens
    limits = [
        _limit(source, offer, total) if target < wanted else None
        for source, offer, target, wanted in zip(sources, offers, targets, asked, strict=True)
    ]
    return Demand(asked, targets, limits)


def _ask(sources: Sequence[Source | None], asker: Recipe | Stage, offers: Sequence[Offer]) -> list[int]:
    """By `tokens`, and by weight what is left of the total; without a total, `epochs` of the weighted sources."""
    asked = [source.tokens or 0 if source else 0 for source in sources]
    weighted = _weighted(sources)
    weights = [_weight(sources[i], offers[i]) for i in weighted]
    passes = math.ceil(Fraction(str(asker.epochs or 1)) * sum(offers[i].once for i in weighted))
    rest = passes if asker.tokens is None else asker.tokens - sum(asked)
    for i, tokens in zip(weighted, apportion_tokens(rest, weights), strict=True):
        asked[i] = tokens
    return asked


def _weighted(sources: Sequence[Source | None]) -> list[int]:
    return [i for i, source in enumerate(sources) if source is not None and source.tokens is None]


def _weight(source: Source | None, offer: Offer) -> Fraction:
    """Exact weights; a recipe without any takes its sources as they are."""
    return Fraction(offer.once if source is None or source.weight is None else str(source.weight))


def _share_cap(source: Source | None, total: int) -> int:
    return total if source is None or source.max_share is None else math.floor(Fraction(str(source.max_share)) * total)


def _limit(source: Source | None, offer: Offer, total: int) -> str:
    return "max_epochs" if offer.left <= _share_cap(source, total) else "max_share"


def _too_many(recipe: Recipe, stage: Stage | None, source: Source, offer: Offer, total: int) -> RecipeError:
    assert source.tokens is not None
    at = recipe.at_stage(stage, source, "tokens")
    asks = f"{_asker(stage)} asks for {say_count(source.tokens)} tokens of `{source.name}`"
    if _limit(source, offer, total) == "max_share":
        return RecipeError(
            f"{asks}, but its `max_share` of {source.max_share:g} allows {say_count(_share_cap(source, total))} "
            f"of {say_count(total)}",
            at=at,
            hint="raise `max_share`, or lower `tokens`",
        )
    needed = math.ceil(Fraction(str(source.max_epochs)) * Fraction(source.tokens + offer.taken, max(1, offer.most)))
    used = f", and earlier stages took {say_count(offer.taken)}" if offer.taken else ""
    return RecipeError(
        f"{asks}, but {say_count(offer.once)} passed the policy (`max_epochs` is {source.max_epochs:g}){used}",
        at=at,
        hint=f"set `max_epochs: {needed}`, lower `tokens`, or run `gristmill plan {recipe.file}` to see what is there",
    )


def _asker(stage: Stage | None) -> str:
    return "recipe" if stage is None else f"stage `{stage.name}`"
