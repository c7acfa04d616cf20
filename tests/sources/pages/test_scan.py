"""Tag soup to elements and runs: ends that HTML leaves out, what is not shown, white space, hostile pages."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.pages.elements import BLOCK_BREAK, LINE_BREAK, MAX_DEPTH, SPACE_BEFORE
from sources.pages.names import TAG
from sources.pages.scan import TEX, Scan, scan_page

NAMES = list(TAG)


def runs(scan: Scan) -> list[str]:
    spans = zip(scan.run_start.tolist(), scan.run_end.tolist(), strict=True)
    return [scan.source[start:end].decode() for start, end in spans]


def paths(html: str) -> dict[str, str]:
    """Each run's text and the tags that it stands in."""
    scan = scan_page(html.encode())
    found = {}
    for text, element in zip(runs(scan), scan.run_element.tolist(), strict=True):
        tags = []
        while element > 0:
            tags.append(NAMES[scan.tag[element]])
            element = int(scan.parent[element])
        found[text] = " ".join(reversed(tags))
    return found


@pytest.mark.parametrize(
    ("html", "wanted"),
    [
        ("<p>a<p>b<div>c</div>", {"a": "p", "b": "p", "c": "div"}),
        ("<ul><li>a<li>b<ul><li>c</ul><li>d</ul>", {"a": "ul li", "b": "ul li", "c": "ul li ul li", "d": "ul li"}),
        ("<table><tr><td>a<td>b<tr><th>c</table>d",
         {"a": "table tr td", "b": "table tr td", "c": "table tr th", "d": ""}),
        ("<dl><dt>a<dd>b<dt>c</dl>", {"a": "dl dt", "b": "dl dd", "c": "dl dt"}),
        ("<b>a<p>b</b>c</p>", {"a": "b", "b": "b p", "c": "b p"}),
        ("<div>a</span></p>b</div>c", {"a": "div", "b": "div", "c": ""}),
        ("<table><tr><td><p>a</div>b</table>", {"a": "table tr td p", "b": "table tr td p"}),
        ("<a href=1>a<a href=2>b", {"a": "a", "b": "a"}),
        ("<DIV CLASS=x>a<BR/>b</DIV>", {"a": "div", "b": "div"}),
        ("1 < 2 <p>a", {"1 < 2 ": "", "a": "p"}),
        ("a<!-- <p>b</p> -->c<![CDATA[d]]>e", {"a": "", "c": "", "e": ""}),
        ("<img alt='a > b'>c", {"c": ""}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_where_text_stands(html: str, wanted: dict[str, str]) -> None:
    assert paths(html) == wanted


@pytest.mark.parametrize("tag", ["script", "style", "template", "select", "svg", "iframe", "textarea", "video"])
def test_what_is_not_shown(tag: str) -> None:
    assert list(paths(f"a<{tag}>if (1 < 2) {{}} <p>b</p></{tag}>c")) == ["a", "c"]


def test_breaks_and_spaces() -> None:
    scan = scan_page(b"<p>a<b>b</b> <i>c</i><br>d</p> e")
    assert runs(scan) == ["a", "b", "c", "d", " e"]
    assert scan.run_break.tolist() == [BLOCK_BREAK, 0, SPACE_BEFORE, LINE_BREAK, BLOCK_BREAK]


def test_blanks_count_in_preformatted_text() -> None:
    assert runs(scan_page(b"<pre>a <b>b</b> <b>c</b>\n</pre> <p>d</p>")) == ["a ", "b", " ", "c", "\n", "d"]


@pytest.mark.parametrize(
    "html",
    [
        '<math alttext="x^2"><mi>x</mi><mn>2</mn></math>',
        '<math><semantics><mi>x</mi><annotation encoding="application/x-tex">x^2</annotation></semantics></math>',
        '<script type="math/tex; mode=display">x^2</script>',
        '<span class="katex"><math><mi>x</mi><annotation encoding="application/x-tex">x^2</annotation></math>'
        '<span class="katex-html" aria-hidden="true">x2</span></span>',
    ],
)
def test_a_formula_is_its_tex(html: str) -> None:
    scan = scan_page(f"a {html} b".encode())
    assert runs(scan) == ["a ", "x^2", " b"] and scan.run_kind[1] == TEX


def test_nothing_but_formulas() -> None:
    assert runs(scan_page(b"a<math alttext=x></math>" * 1000)) == ["a", "x"] * 1000


def test_a_formula_without_tex_is_its_symbols() -> None:
    assert runs(scan_page(b"<math><mi>x</mi><mo>+</mo></math>")) == ["x", "+"]


def test_depth_is_bounded() -> None:
    scan = scan_page(b"<div>" * 1000 + b"a" + b"</div>" * 1000 + b"<p>b")
    depth, element = 0, int(scan.run_element[0])
    while element >= 0:
        depth, element = depth + 1, int(scan.parent[element])
    assert depth == MAX_DEPTH and runs(scan) == ["a", "b"]


HOSTILE = {
    "a million attributes": b"<p " + b" ".join(b"a%d=v" % n for n in range(10**6)) + b">text</p>",
    "a million tags": b"<p>x" * 10**6,
    "100,000 deep": b"<div>" * 100_000 + b"x" + b"</div>" * 100_000,
    "ends without starts": b"<b>" * 255 + b"</i>" * 10**6,
    "open comments": b"<!--" * 10**6,
    "open formulas": b"<math>" * 300_000,
    "open titles": b"<title>" * 300_000,
    "100 MB of image": b"<img src='data:" + b"A" * 100_000_000 + b"'>x",
}


@pytest.mark.parametrize("page", HOSTILE.values(), ids=HOSTILE)
def test_time_grows_with_the_page_alone(page: bytes) -> None:
    scan_page(b"<p>compiled</p>")
    began = time.process_time()
    scan_page(page)
    assert time.process_time() - began < 2


@given(st.lists(st.sampled_from([*"ab <>/='\"!-&;", "<p>", "</p>", "<td>", "<pre>", "<a ", "<!--", "<math>", "é"])))
def test_any_soup_gives_whole_runs_in_order(pieces: list[str]) -> None:
    scan = scan_page("".join(pieces).encode())
    assert (scan.run_start[1:] >= scan.run_end[:-1]).all() and (scan.run_start < scan.run_end).all()
    assert (scan.first_run <= scan.last_run).all() and (scan.parent[1:] < range(1, len(scan.parent))).all()
    inside = [(scan.first_run[e] <= run < scan.last_run[e]) for run, e in enumerate(scan.run_element.tolist())]
    assert all(inside)
