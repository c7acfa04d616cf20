"""Laws recover what losses were made by, and sampled mixtures keep to what there is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from mixtures.laws import KINDS, fit_law
from mixtures.simplex import SMALLEST_SHARE, cap_shares, draw_mixtures
from storage.errors import RecipeError

SIZES = [5.0, 2.0, 1.0, 0.5]
CAPS = [1.0, 0.9, 0.4, 0.2]


def transferring(shares: np.ndarray, noise: float = 0.0) -> np.ndarray:
    """Bits per byte of a text that learns from its own source, from a second a little, from others hardly."""
    worth = shares @ np.array([1.2, 0.3, 0.05, 0.02])
    return np.asarray(1.5 + 0.6 * worth**-0.25 + np.random.default_rng(5).normal(0, noise, len(shares)))


def test_a_law_ranks_mixtures_that_it_has_not_seen() -> None:
    shares = draw_mixtures(SIZES, CAPS, 96, seed=0)
    values = transferring(shares, 0.003)
    law = fit_law(shares[:32], values[:32])
    assert spearmanr(law.predict(shares[32:]), transferring(shares[32:])).statistic > 0.97
    assert 0.001 < law.error < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_law_fits(kind: str) -> None:
    shares = draw_mixtures(SIZES, CAPS, 64, seed=1)
    predict = KINDS[kind](shares[:32], transferring(shares[:32]))
    assert np.sqrt(np.mean((predict(shares[32:]) - transferring(shares[32:])) ** 2)) < 0.02


def test_a_process_follows_what_no_law_describes() -> None:
    shares = draw_mixtures(SIZES, [1.0] * 4, 160, seed=2)
    values = 2 + (np.sqrt(shares[:, 0]) - 0.6) ** 2
    assert fit_law(shares[:96], values[:96]).kind == "process"


def test_losses_that_are_all_alike_make_a_law_too() -> None:
    shares = draw_mixtures(SIZES, CAPS, 16, seed=3)
    assert fit_law(shares, np.full(16, 2.0)).predict(shares) == pytest.approx(np.full(16, 2.0), abs=1e-3)


@given(
    sizes=st.lists(st.floats(1e-3, 1e6), min_size=2, max_size=12),
    slack=st.floats(1.0, 20.0),
    seed=st.integers(0, 2**31),
)
def test_drawn_mixtures_are_shares_within_the_caps(sizes: list[float], slack: float, seed: int) -> None:
    caps = [slack * size / sum(sizes) for size in sizes]
    rows = draw_mixtures(sizes, caps, 20, seed=seed)
    assert rows.sum(axis=1) == pytest.approx(np.ones(20)) and (rows >= 0).all()
    assert (rows <= np.array(caps) + 1e-9).all()
    assert np.array_equal(rows, draw_mixtures(sizes, caps, 20, seed=seed))


def test_draws_are_both_balanced_and_lopsided() -> None:
    largest = draw_mixtures(SIZES, [1.0] * 4, 400, seed=4).max(axis=1)
    assert (largest > 0.9).any() and (largest < 0.45).any()


def test_what_is_capped_goes_to_the_others_in_proportion() -> None:
    assert cap_shares(np.array([[0.8, 0.15, 0.05]]), [0.6, 1, 1])[0] == pytest.approx([0.6, 0.3, 0.1])
    assert cap_shares(np.array([[1 - SMALLEST_SHARE / 2, SMALLEST_SHARE / 2]]), [1, 1])[0].tolist() == [1, 0]
    with pytest.raises(RecipeError, match=r"can make up 70\.0 %"):
        cap_shares(np.array([[0.5, 0.5]]), [0.3, 0.4])
