"""Shares of sources drawn at random, for proxies to learn from: Dirichlet draws, none above what there is.

As RegMix does (Liu et al., 2407.01492): draws lie around the sizes of the sources, evened out by a square root, and how
far they stray is itself drawn, so that both balanced and lopsided mixtures are seen. What is above a source's cap goes
to the others in proportion, so that every draw could be trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from storage.errors import RecipeError

Floats = npt.NDArray[np.float64]

SMOOTHING = 0.5
STRENGTHS = (0.3, 8.0)
"""Least and greatest sum of a draw's Dirichlet parameters, for each source: from one source that outweighs all others
to nearly the sizes themselves."""
SMALLEST_SHARE = 0.002
"""A smaller share counts as none: it would be a sample or two."""


def draw_mixtures(sizes: Sequence[float], caps: Sequence[float], count: int, *, seed: int) -> Floats:
    """Shares, [count, sources], each row adding up to 1. `sizes`: of the sources, in any unit; `caps`: their greatest
    shares. Raises RecipeError where the caps leave no mixture."""
    limits = _feasible(caps)
    random = np.random.default_rng(seed)
    centre = np.asarray(sizes, np.float64) ** SMOOTHING
    centre /= centre.sum()
    low, high = np.log(STRENGTHS)
    strength = np.exp(random.uniform(low, high, size=(count, 1))) * len(centre)
    draws = random.standard_gamma(strength * centre, size=(count, len(centre)))
    draws = np.maximum(draws, np.finfo(np.float64).tiny)  # parameters near 0 underflow
    return cap_shares(draws / draws.sum(axis=1, keepdims=True), limits)


def cap_shares(shares: Floats, caps: Sequence[float] | Floats) -> Floats:
    """The rows with no share above its cap and none below SMALLEST_SHARE, what is taken going to the others."""
    limits = _feasible(caps)
    capped = np.where(shares < SMALLEST_SHARE, 0.0, shares)
    for _ in range(len(limits) + 1):
        over = capped >= limits
        fixed = np.where(over, limits, 0.0)
        free = np.where(over, 0.0, capped)
        room = 1.0 - fixed.sum(axis=1, keepdims=True)
        total = free.sum(axis=1, keepdims=True)
        scaled = np.divide(free * room, total, out=np.zeros_like(free), where=total > 0)
        capped = fixed + scaled
    missing = 1.0 - capped.sum(axis=1, keepdims=True)
    spare = np.maximum(limits - capped, 0.0)
    return np.asarray(np.maximum(capped + missing * spare / np.maximum(spare.sum(axis=1, keepdims=True), 1e-12), 0.0))


def _feasible(caps: Sequence[float] | Floats) -> Floats:
    limits = np.minimum(np.asarray(caps, np.float64), 1.0)
    if limits.sum() < 1.0 - 1e-9:
        raise RecipeError(
            f"the sources can make up {100 * limits.sum():.1f} % of the target's tokens, by their `max_epochs` and "
            "`max_share`",
            hint="lower the target's tokens, or raise those limits",
        )
    return limits
