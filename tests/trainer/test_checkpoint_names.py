"""Checkpoints are named as OLMo names its own: all last branches that it published are read and, by rule, made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.registry.names import UNITS, name_checkpoint, parse_name

TOKENS_A_STEP = {"1B-0425": 512 * 4096, "7B-1124": 1024 * 4096, "13B-1124": 2048 * 4096, "32B-0325": 2048 * 4096}
ROUNDED_UP = (
    ("1B-0425", "stage1-step1907359-tokens4001B", (1, None, 1907359, 4001)),
    ("1B-0425", "stage2-ingredient1-step23852-tokens51B", (2, 1, 23852, 51)),
    ("1B-0425", "stage2-ingredient3-step23852-tokens51B", (2, 3, 23852, 51)),
    ("7B-1124", "stage1-step928646-tokens3896B", (1, None, 928646, 3896)),
    ("13B-1124", "stage1-step596057-tokens5001B", (1, None, 596057, 5001)),
    ("32B-0325", "stage1-step721901-tokens6056B", (1, None, 721901, 6056)),
    ("32B-0325", "stage2-ingredient1-step11921-tokens101B", (2, 1, 11921, 101)),
    ("32B-0325", "stage2-ingredient3-step35763-tokens301B", (2, 3, 35763, 301)),
)
NOMINAL = (
    ("stage2-ingredient2-step11931-tokens50B", (2, 2, 11931, 50)),
    ("stage2-ingredient1-step11931-tokens100B", (2, 1, 11931, 100)),
    ("stage2-ingredient4-step35773-tokens300B", (2, 4, 35773, 300)),
    ("stage1-step1000-tokens4B", (1, None, 1000, 4)),
)


@pytest.mark.parametrize(("text", "parts"), [row[1:] for row in ROUNDED_UP] + list(NOMINAL))
def test_olmos_names_are_read_and_written_back(text: str, parts: tuple[int, int | None, int, int]) -> None:
    name = parse_name(text)
    assert name is not None and str(name) == text and name.unit == "B" and not name.soup
    assert (name.stage, name.ingredient, name.step, name.tokens) == parts


@pytest.mark.parametrize(("model", "text", "parts"), ROUNDED_UP)
def test_names_made_from_steps_are_olmos(model: str, text: str, parts: tuple[int, int | None, int, int]) -> None:
    stage, ingredient, step, _ = parts
    made = name_checkpoint(stage=stage, ingredient=ingredient, step=step, tokens=step * TOKENS_A_STEP[model])
    assert str(made) == text


@pytest.mark.parametrize(
    ("tokens", "written"),
    [(1, "1K"), (640_000, "640K"), (640_001, "641K"), (999_999, "1000K"), (1_000_000, "1M"), (12_000_001, "13M")],
)
def test_less_than_a_billion_is_written_in_smaller_units(tokens: int, written: str) -> None:
    assert str(name_checkpoint(stage=1, step=7, tokens=tokens)) == f"stage1-step7-tokens{written}"


def test_a_soup_has_a_name_and_what_is_none_has_not() -> None:
    soup = name_checkpoint(stage=2, step=11931, tokens=50_042_000_000, soup=True)
    assert str(soup) == "stage2-soup-step11931-tokens51B" and parse_name(str(soup)) == soup
    for text in (
        "main",
        "step1000-tokens4B",
        "stage0-step1-tokens1B",
        "stage1-step1-tokens1",
        "stage1-step1-tokens1Ba",
    ):
        assert parse_name(text) is None


@given(
    stage=st.integers(1, 9),
    ingredient=st.none() | st.integers(1, 99),
    step=st.integers(0, 10**7),
    tokens=st.integers(0, 10**14),
)
def test_every_name_is_read_as_what_was_written(stage: int, ingredient: int | None, step: int, tokens: int) -> None:
    name = name_checkpoint(stage=stage, ingredient=ingredient, step=step, tokens=tokens)
    assert parse_name(str(name)) == name
    assert 0 <= name.tokens * UNITS[name.unit] - tokens < UNITS[name.unit]
