"""Copied shares against a plain count on words, and what they must not depend on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers.synthesis.copying import GRAM_UNITS, copied_shares

WORDS = st.lists(st.sampled_from(["ab", "cd", "ef"]), max_size=40)


def plain(text: list[str], source: list[str]) -> float:
    size = min(GRAM_UNITS, len(text))
    grams = [tuple(text[i : i + size]) for i in range(len(text) - size + 1)] if size else []
    known = {tuple(source[i : i + size]) for i in range(len(source) - size + 1)}
    return sum(gram in known for gram in grams) / len(grams) if grams else 0.0


@settings(deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS), max_size=4))
def test_shares_are_those_of_a_plain_count(pairs: list[tuple[list[str], list[str]]]) -> None:
    found = copied_shares([" ".join(text) for text, _ in pairs], [" ".join(source) for _, source in pairs])
    assert found.tolist() == pytest.approx([plain(text, source) for text, source in pairs])


def test_case_accents_and_punctuation_do_not_hide_a_copy() -> None:
    source = "The café on the corner was closed, so we went home at last."
    assert copied_shares(["the CAFE on the corner — was closed so we went home at last"], [source]).tolist() == [1.0]


def test_chinese_is_counted_by_characters() -> None:
    source = "长江是亚洲第一长河，也是世界第三长河。"
    shares = copied_shares(["长江是亚洲第一长河也是", "世界上有很多长的河流，其中一条在中国"], [source, source])
    assert shares.tolist() == [1.0, 0.0]
