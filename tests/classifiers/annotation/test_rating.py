"""Ratings against numbers worked out by hand, and what holds of any distribution."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers.annotation.rating import Nonsense, rate, read_rating

DIGITS = tuple("012345")


def chances(**shares: float) -> list[tuple[str, float]]:
    return [(token.removeprefix("t"), math.log(share)) for token, share in shares.items()]


def test_the_expected_value_is_the_one_worked_out_by_hand() -> None:
    """0.5 of 3, 0.25 of 4, 0.05 of 0, the rest elsewhere: (1.5 + 1.0) / 0.8 = 3.125."""
    found = read_rating("3", [chances(t3=0.5, t4=0.25, t0=0.05, tThe=0.2)], DIGITS)
    assert found.score == pytest.approx(3.125)
    assert found.mass == pytest.approx(0.8)
    assert found.probabilities == pytest.approx((0.0625, 0, 0, 0.625, 0.3125, 0))
    assert (found.argmax, found.said) == (3, 3)


def test_what_is_said_and_what_is_likeliest_may_differ() -> None:
    found = read_rating("2", [chances(t2=0.3, t5=0.7)], DIGITS)
    assert (found.said, found.argmax) == (2, 5) and found.score == pytest.approx(4.1)


def test_digits_after_a_space_count_and_repeated_tokens_do_not_count_twice() -> None:
    place = [("1", math.log(0.2)), (" 1", math.log(0.2)), ("1", math.log(0.2)), ("3", math.log(0.4))]
    assert read_rating("1", [place], DIGITS).score == pytest.approx(2.0)


def test_the_place_of_the_digit_is_found_in_a_json_answer() -> None:
    places = [chances(t0=0.01, t5=0.9)[::-1][1:] and [('{"score":', -0.1), ("5", -3.0)], chances(t4=0.8, t0=0.2)]
    assert read_rating('{"score": 4}', places, DIGITS).score == pytest.approx(3.2)


def test_without_probabilities_the_digit_is_the_score() -> None:
    found = read_rating("Score: 4", [], DIGITS)
    assert (found.score, found.argmax, found.probabilities, found.mass) == (4.0, 4, None, None)


@pytest.mark.parametrize("said", ["", "none", "7", "3 or 4", "3/5", "10", "3.5", "٣", "05"])
def test_what_is_no_single_digit_of_the_scale_is_nonsense(said: str) -> None:
    with pytest.raises(Nonsense):
        read_rating(said, [], DIGITS)


def test_nonsense_is_quoted_in_part() -> None:
    with pytest.raises(Nonsense) as told:
        read_rating("words " * 1000, [], DIGITS)
    assert len(str(told.value)) == 300


@given(
    st.lists(st.tuples(st.sampled_from([*DIGITS, " 2", "a"]), st.floats(-1e4, 0)), min_size=1), st.sampled_from(DIGITS)
)
def test_any_distribution_gives_a_score_on_the_scale(place: list[tuple[str, float]], said: str) -> None:
    found = rate(place, said=int(said), digits=DIGITS)
    assert 0 <= found.score <= 5 and str(found.argmax) in DIGITS
    if found.probabilities is not None:
        assert math.fsum(found.probabilities) == pytest.approx(1)
        assert found.probabilities[found.argmax] == max(found.probabilities)
    else:
        assert found.score == int(said)


@given(st.sampled_from(DIGITS), st.floats(-50, 0))
def test_certainty_gives_the_digit(digit: str, chance: float) -> None:
    assert rate([(digit, chance)], said=int(digit), digits=DIGITS).score == pytest.approx(int(digit))
