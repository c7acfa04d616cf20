"""Passages and sentences of any text: exact slices, in order, nothing lost but white space."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers.synthesis.passages import BYTES_A_TOKEN, Span, cut_passages, cut_sentences, trim
from classifiers.synthesis.writing import segments_fault, take_segments
from pipelines.jobs.synthesize import leave_out

TEXTS = st.text(st.sampled_from("ab .!?。！\n\t ”)é中文😀\u200b"), max_size=300)


@given(TEXTS, st.integers(1, 40))
def test_passages_are_exact_slices_that_lose_only_white_space(text: str, tokens: int) -> None:
    data = text.encode()
    passages = cut_passages(text, tokens)
    for passage in passages:
        assert data[passage.span.start : passage.span.end] == passage.text.encode()
        assert 0 < len(passage.text.encode()) <= max(tokens * BYTES_A_TOKEN, 4)
    assert all(one.span.end <= other.span.start for one, other in pairwise(passages))
    assert "".join("".join(p.text.split()) for p in passages) == "".join(text.split())


def test_paragraphs_stay_whole_where_they_fit() -> None:
    text = "One one one.\n\nTwo two. Two two two.\n\nThree three three three three."
    assert [passage.text for passage in cut_passages(text, 13)] == [
        "One one one.\n\nTwo two. Two two two.", "Three three three three three.",
    ]  # fmt: skip


def test_a_paragraph_that_does_not_fit_is_cut_at_sentences() -> None:
    assert [p.text for p in cut_passages("First sentence. Second sentence. Third one.", 6)] == [
        "First sentence.", "Second sentence.", "Third one.",
    ]  # fmt: skip


@given(TEXTS)
def test_sentences_are_their_text(text: str) -> None:
    assert "".join(cut_sentences(text)) == text and all(cut_sentences(text))


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ('He said "Go." Then he left.', ['He said "Go." ', "Then he left."]),
        ("今天下雨。我们在家！好吗？", ["今天下雨。", "我们在家！", "好吗？"]),
        ("A title\nVersion 3.5 is out... Good.", ["A title\n", "Version 3.5 is out... ", "Good."]),
        ("“好。”他说。", ["“好。”", "他说。"]),
    ],
)
def test_sentences_end_where_people_end_them(text: str, sentences: list[str]) -> None:
    assert cut_sentences(text) == sentences


@given(st.text("abé中. ", min_size=20, max_size=120), st.data())
def test_segments_are_the_passage(text: str, data: st.DataObject) -> None:
    passage = trim(f"x. {text} y.", 7)
    sentences = cut_sentences(passage.text)
    starts = sorted({1, *data.draw(st.lists(st.integers(1, len(sentences)), max_size=4))})
    assert not segments_fault(starts, len(sentences))
    segments = take_segments(passage, sentences, starts)
    assert len(segments) == len(starts) and segments[0].span.start == 7 and segments[-1].span.end == passage.span.end
    for segment in segments:
        assert passage.text.encode()[segment.span.start - 7 : segment.span.end - 7] == segment.text.encode()


@pytest.mark.parametrize("starts", [[2, 3], [1, 3, 3], [1, 4, 2], [1, 6], [0, 2], [1, -1]])
def test_segments_out_of_order_overlapping_or_nowhere_are_refused(starts: list[int]) -> None:
    assert segments_fault(starts, 5)


@pytest.mark.parametrize(
    ("done", "left"),
    [
        ([], [(10, 21)]),
        ([(10, 21)], []),
        ([(10, 13)], [(14, 21)]),
        ([(14, 17)], [(10, 13), (18, 21)]),
        ([(10, 13), (18, 21)], [(14, 17)]),
        ([(0, 5), (30, 40)], [(10, 21)]),
    ],
)
def test_what_is_done_is_left_out(done: list[tuple[int, int]], left: list[tuple[int, int]]) -> None:
    passage = trim("abc def ghi", 10)
    assert [(piece.span.start, piece.span.end) for piece in leave_out(passage, [Span(*s) for s in done])] == left
