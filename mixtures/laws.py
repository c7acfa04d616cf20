"""From a mixture to the loss it leads to: laws fitted to proxies, the best chosen by cross-validation.

Three of them, since none is best for every held-out text. Exponential: y = c + exp(t · w), the data mixing law (Ye et
al., 2403.16952). Power: y = c + (s · w)^-α, a scaling law in the tokens that transfer, s_i being what a token of source
i is worth to this text. Gaussian process: smooth in √w, with noise of its own, for what follows no law. Boosted trees
(RegMix's choice) need hundreds of proxies before they interpolate as well as any of the three.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import least_squares, minimize

Floats = npt.NDArray[np.float64]
Predict = Callable[[Floats], Floats]

FOLDS = 8
PENALTY = 0.02
"""How much a source may stray from the others for nothing, in units of the values' standard deviation."""
FLOORS = (0.5, 0.8, 0.95)
"""Where the search for the loss that no mixture goes below starts, as shares of the lowest value seen."""


START_EXPONENT = 0.3


@dataclass(frozen=True)
class Law:
    """A fitted law. `predict`: shares [n, sources] to values [n]; `error`: root mean square in cross-validation."""

    kind: str
    error: float
    predict: Predict


def fit_law(shares: Floats, values: Floats) -> Law:
    """The law that cross-validation prefers for these points: shares [n, sources], values [n]."""
    errors = {kind: _cross_validate(fit, shares, values) for kind, fit in KINDS.items()}
    best = min(errors, key=lambda kind: errors[kind])
    return Law(best, errors[best], KINDS[best](shares, values))


def _cross_validate(fit: Callable[[Floats, Floats], Predict], shares: Floats, values: Floats) -> float:
    fold = np.arange(len(values)) % min(FOLDS, len(values))
    errors = [
        fit(shares[fold != number], values[fold != number])(shares[fold == number]) - values[fold == number]
        for number in np.unique(fold)
    ]
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))


def _exponential(parameters: Floats, at: Floats) -> tuple[Floats, Floats]:
    """The values of c + exp(t · w) and their derivatives; parameters: ln c, t."""
    floor, grown = np.exp(parameters[0]), np.exp(np.clip(at @ parameters[1:], -30, 30))
    return floor + grown, np.column_stack([np.full(len(at), floor), grown[:, None] * at])


def _power(parameters: Floats, at: Floats) -> tuple[Floats, Floats]:
    """The values of c + (s · w)^-α and their derivatives; parameters: ln c, ln α, ln s."""
    floor, exponent = np.exp(parameters[0]), np.exp(np.clip(parameters[1], -4, 1))
    each = at * np.exp(np.clip(parameters[2:], -20, 20))
    worth = np.maximum(each.sum(axis=1), 1e-12)
    fallen = worth**-exponent
    slopes = (-exponent * fallen / worth)[:, None] * each
    return floor + fallen, np.column_stack([np.full(len(at), floor), -exponent * np.log(worth) * fallen, slopes])


def _fit_exponential(shares: Floats, values: Floats) -> Predict:
    starts = []
    for low in np.array(FLOORS) * values.min():
        starts.append(np.array([np.log(low), *np.full(shares.shape[1], np.log(values.mean() - low))]))
    return _best_fit(_exponential, starts, 1, shares, values)


def _fit_power(shares: Floats, values: Floats) -> Predict:
    starts = []
    for low in np.array(FLOORS) * values.min():
        worth = -np.log(values.mean() - low) / START_EXPONENT
        starts.append(np.array([np.log(low), np.log(START_EXPONENT), *np.full(shares.shape[1], worth)]))
    return _best_fit(_power, starts, 2, shares, values)


def _best_fit(
    law: Callable[[Floats, Floats], tuple[Floats, Floats]],
    starts: Sequence[Floats],
    first: int,
    shares: Floats,
    values: Floats,
) -> Predict:
    """Least squares from several starts; the parameters of the sources, from `first`, are drawn towards their mean."""
    scale, sources = float(values.std()) or 1.0, shares.shape[1]
    towards_mean = np.zeros((sources, first + sources))
    towards_mean[:, first:] = PENALTY * (np.eye(sources) - 1 / sources)

    def residuals(parameters: Floats) -> Floats:
        return np.concatenate([(law(parameters, shares)[0] - values) / scale, towards_mean @ parameters])

    def slopes(parameters: Floats) -> Floats:
        return np.concatenate([law(parameters, shares)[1] / scale, towards_mean])

    fits = [least_squares(residuals, start, jac=slopes, max_nfev=200) for start in starts]
    found = min(fits, key=lambda fit: float(fit.cost)).x
    return lambda at: law(found, at)[0]


def _fit_process(shares: Floats, values: Floats) -> Predict:
    """A Gaussian process with a linear part; its four scales are those of the greatest marginal likelihood."""
    centre, scale = float(values.mean()), float(values.std()) or 1.0
    points, targets = np.sqrt(shares), (values - centre) / scale

    def kernel(logs: Floats, a: Floats, b: Floats) -> Floats:
        smooth, length, linear, _ = np.exp(logs)
        gaps = np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0.0)
        return np.asarray(smooth * np.exp(-gaps / (2 * length**2)) + linear * (a**2 @ (b**2).T))

    def factor(logs: Floats) -> tuple[Floats, bool]:
        noise = np.exp(logs[3]) + 1e-8
        return cho_factor(kernel(logs, points, points) + noise * np.eye(len(targets)), lower=True)  # type: ignore[no-any-return]

    def loss(logs: Floats) -> float:
        held = factor(logs)
        return float(targets @ cho_solve(held, targets) / 2 + np.log(np.diag(held[0])).sum() + 0.02 * (logs**2).sum())

    bounds = [(-7.0, 5.0), (-3.0, 3.0), (-7.0, 5.0), (-12.0, 1.0)]
    starts = [np.array([0.0, length, 0.0, -4.0]) for length in (-1.0, 0.0, 1.0)]
    fits = [minimize(loss, start, method="L-BFGS-B", bounds=bounds) for start in starts]
    logs = min(fits, key=lambda fit: float(fit.fun)).x
    weights = cho_solve(factor(logs), targets)
    return lambda at: np.asarray(centre + scale * (kernel(logs, np.sqrt(at), points) @ weights))


KINDS: dict[str, Callable[[Floats, Floats], Predict]] = {
    "exponential": _fit_exponential,
    "power": _fit_power,
    "process": _fit_process,
}
