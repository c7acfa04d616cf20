"""Chosen blocks to text: one small page for each rule."""

from __future__ import annotations

import numpy as np
import pytest

from sources.pages.blocks import find_blocks
from sources.pages.scan import scan_page
from sources.pages.write import write_blocks


def written(html: str, without: tuple[int, ...] = ()) -> str:
    scan = scan_page(html.encode())
    blocks = find_blocks(scan)
    chosen = np.array([number not in without for number in range(len(blocks.words))])
    return write_blocks(scan, blocks, chosen)


RULES = {
    "paragraphs": ("<h1>Title</h1><p>One\n  two</p><p>three</p>", "Title\n\nOne two\n\nthree"),
    "inline tags join, white space between them counts": ("<p>a<b>b</b> <i>c</i>d</p>", "ab cd"),
    "line breaks": ("<p>one<br>two<br/> three</p>", "one\ntwo\nthree"),
    "signs that link to a heading": (
        "<h2>Models<a class=headerlink href=#models>&para;</a></h2><h2><a href=#b>#</a> Use</h2>"
        "<p>C<a href=/c>#</a></p><dt>run()<a href=#run> § </a></dt><p>see § 4 and ¶",
        "Models\n\nUse\n\nC\n\nrun()\n\nsee § 4 and ¶",
    ),
    "linked signs in code": ("<pre>a <a href=/hash>#</a> b</pre>", "a # b"),
    "entities": ("<p>a &amp; b&nbsp;c &lt;d&gt; &eacute;</p>", "a & b c <d> é"),
    "lists": ("<ul><li>one<li>two<ol><li>three</ol></ul><p>end</p>", "- one\n- two\n  - three\n\nend"),
    "a list item of two paragraphs": ("<ul><li><p>one</p><p>more</p><li>two</ul>", "- one\nmore\n- two"),
    "tables": (
        "<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table><p>end",
        "a | b\n1 | 2\n\nend",
    ),
    "code keeps its white space": (
        "<p>see</p><pre>def f(x):\n    <b>return</b> x &lt; 2\n\n\n</pre><p>end</p>",
        "see\n\ndef f(x):\n    return x < 2\n\nend",
    ),
    "code of lines that are blocks": ("<pre><div>  a</div><div>    b</div></pre>", "  a\n    b"),
    "formulas": ('<p>for <math alttext="x^{2}"><mi>x</mi></math>, say', "for $x^{2}$, say"),
}


@pytest.mark.parametrize(("html", "text"), RULES.values(), ids=RULES)
def test_rules(html: str, text: str) -> None:
    assert written(html) == text


SENTENCE = "The wheel turns slowly, and the stones grind what they bring."
CELLS = f"<tr><td>{SENTENCE}</td><td>1</td></tr>"


@pytest.mark.parametrize(
    ("html", "times"),
    [
        (f"<div><p>{SENTENCE}</p></div><p>b</p><ul><li>{SENTENCE}<li>c</ul>", 1),
        (f"<p>a</p><p>{SENTENCE}</p><p>And again: {SENTENCE}</p>", 2),
        (f"<table>{CELLS * 3}</table>", 3),
        (f"<pre>{SENTENCE}</pre><p>a</p><pre>{SENTENCE}</pre>", 2),
        (f"<p>{SENTENCE}</p><p>{SENTENCE.upper()}</p>", 1),
    ],
)  # fmt: skip
def test_a_sentence_is_not_written_again(html: str, times: int) -> None:
    assert written(html).count(SENTENCE) == times


def test_short_lines_may_be_written_again() -> None:
    assert written("<p>in stock</p><p>9 left</p><p>in stock</p>") == "in stock\n\n9 left\n\nin stock"


def test_a_list_without_its_repeated_item() -> None:
    assert written(f"<p>{SENTENCE}</p><ul><li>{SENTENCE}<li>one<li>two</ul>") == f"{SENTENCE}\n\n- one\n- two"


def test_only_chosen_blocks_are_written() -> None:
    assert written("<p>a</p><p>b</p><p>c</p>", without=(1,)) == "a\n\nc"
