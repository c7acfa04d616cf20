"""Two texts side by side: what differs is marked, nothing else, and nothing is lost."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.report.differences import LEFT_OUT, MOST_WORDS, SHOWN_AROUND, compare_texts


def marked(pieces: list[tuple[str, bool]]) -> str:
    return "".join(f"[{text}]" if differs else text for text, differs in pieces)


def test_words_that_the_other_side_lacks_are_marked() -> None:
    left, right = compare_texts("the quick brown fox", "the slow brown fox jumps")
    assert (marked(left), marked(right)) == ("the [quick ]brown fox", "the [slow ]brown fox [jumps]")


def test_scripts_without_spaces_are_compared_by_character() -> None:
    left, right = compare_texts("我喜欢红茶。", "我喜欢绿茶。")
    assert (marked(left), marked(right)) == ("我喜欢[红]茶。", "我喜欢[绿]茶。")


def test_long_equal_runs_are_left_out_around_the_differences() -> None:
    words = [f"w{i}" for i in range(400)]
    other = [*words[:200], "new", *words[200:]]
    left, right = compare_texts(" ".join(words), " ".join(other))
    assert marked(right).count("[") == 1 and "[new ]" in marked(right)
    assert marked(right).count(LEFT_OUT) == 2 and len(marked(right).split()) == 2 * SHOWN_AROUND + 3
    assert marked(left).count("[") == 0
    same, _ = compare_texts(" ".join(words), " ".join(words))
    assert len(marked(same).split()) < 60


def test_texts_beyond_the_limit_are_cut_and_cost_little() -> None:
    started = time.process_time()
    left, right = compare_texts("spam " * 5000, "spam " * 4000 + "eggs")
    assert left[-1].text == right[-1].text == LEFT_OUT.strip()
    compare_texts(" ".join("ab"[i % 2] for i in range(MOST_WORDS)), " ".join("abc"[i % 3] for i in range(MOST_WORDS)))
    assert time.process_time() - started < 5


@settings(max_examples=200, deadline=None)
@given(*[st.lists(st.sampled_from(["a ", "b\n", "c", " ", "漢", "<i>"]), max_size=12).map("".join)] * 2)
def test_short_texts_are_shown_whole(left: str, right: str) -> None:
    for text, pieces in zip((left, right), compare_texts(left, right), strict=True):
        assert "".join(piece.text for piece in pieces) == text.lstrip()
