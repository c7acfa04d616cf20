"""Two texts side by side: which words differ, and long runs of equal ones left out.

Invariant: joined, the pieces of a side are its text, but for runs that are left out, which leave a mark. Words are what
stands between spaces; where a script has none, characters. Only the first 600 words of each are compared: comparing is
quadratic where a text repeats itself.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import NamedTuple

MOST_WORDS = 600
SHOWN_AROUND = 14
LEFT_OUT = "… "
_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]\s*|[^\s\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+\s*")


class Piece(NamedTuple):
    """A run of words, and whether the other side lacks it."""

    text: str
    differs: bool


def compare_texts(left: str, right: str) -> tuple[list[Piece], list[Piece]]:
    """The pieces of both sides; runs of equal words are cut to those around a difference."""
    sides = [_WORDS.findall(text) for text in (left, right)]
    words = [side[:MOST_WORDS] for side in sides]
    keys = [[word.strip() for word in side] for side in words]
    found: tuple[list[Piece], list[Piece]] = ([], [])
    changes = SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_opcodes()
    for number, (kind, a, a_end, b, b_end) in enumerate(changes):
        for side, run in zip(found, (words[0][a:a_end], words[1][b:b_end]), strict=True):
            if kind == "equal":
                run = _shorten(run, is_first=number == 0, is_last=number == len(changes) - 1)
            if run:
                side.append(Piece("".join(run), kind != "equal"))
    for side, all_words in zip(found, sides, strict=True):
        if len(all_words) > MOST_WORDS:
            side.append(Piece(LEFT_OUT.strip(), False))
    return found


def _shorten(run: list[str], *, is_first: bool, is_last: bool) -> list[str]:
    """The words next to a difference before and after the run."""
    before, after = (0 if is_first else SHOWN_AROUND), (0 if is_last else SHOWN_AROUND)
    if is_first and is_last:
        before = 2 * SHOWN_AROUND
    if len(run) <= before + after + 1:
        return run
    return [*run[:before], LEFT_OUT, *run[len(run) - after :]]
