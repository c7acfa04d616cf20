"""A web page's bytes to its main text, and to what the page says about itself.

`best` judges every block of the page by trees (`sources.pages`), a second time in the light of the first; `fast` judges
once; `union` takes besides what trafilatura and resiliparse find, if it is not surely boilerplate. Where the text is
implausibly short beside what the page says of itself (a page that scripts would fill), that is taken.
Word F1 and milliseconds a page stand in `docs/inputs/extraction.md`, with what each type of page still loses.

Deterministic, in time that grows with the page alone; but `union`'s libraries may hang or crash on hostile pages (10^6
attributes take both over 100 s, inside C code), so it is called through `sources.sandbox`, never in a worker itself.
"""

from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sources.pages.blocks import Blocks, find_blocks
from sources.pages.facts import Facts, read_facts
from sources.pages.judge import judge_blocks
from sources.pages.names import MARKS
from sources.pages.scan import Scan, scan_page
from sources.pages.write import block_texts, write_blocks
from sources.web.charset import encode_html
from sources.web.page import Page

if TYPE_CHECKING:
    from sources.reading import Extraction

_UNION_PROBABILITY = 0.1
"""A block that a library finds is taken from this probability on."""
_FEW_WORDS = 40
_WORD = re.compile(r"\w+")
_BLANK_LINES = re.compile(r"\n{3,}")
_H1 = 1 << list(MARKS).index("h1")


def extract_page(
    data: bytes, *, announced_charset: str | None = None, url: str | None = None, mode: Extraction = "best"
) -> Page:
    """The main text of an HTML page, and its facts."""
    scan = scan_page(encode_html(data, announced_charset))
    blocks = find_blocks(scan)
    facts = read_facts(scan, _heading(scan))
    judged = judge_blocks(scan, blocks, facts, url, "once" if mode == "fast" else "twice")
    chosen = judged.chosen
    if mode == "union":
        chosen = chosen | _found_by_libraries(scan, blocks, url) & (judged.probabilities >= _UNION_PROBABILITY)
    text = _or_described(write_blocks(scan, blocks, chosen), facts)
    return Page(
        text=_tidy(text),
        title=facts.title,
        author=facts.author,
        date=facts.date,
        language=facts.language,
        canonical_url=facts.canonical_url,
        licence_mark=facts.licence_mark,
    )


def _heading(scan: Scan) -> str:
    """The text of the first <h1>."""
    runs = np.flatnonzero(scan.marks[scan.run_element] & _H1)
    if not len(runs):
        return ""
    gaps = np.flatnonzero(np.diff(runs) > 1)
    together = runs[: int(gaps[0]) + 1] if len(gaps) else runs
    return unescape(" ".join(_run_text(scan, int(run)) for run in together[:50]))


def _run_text(scan: Scan, run: int) -> str:
    return scan.source[scan.run_start[run] : scan.run_end[run]].decode("utf-8", "replace")


def _or_described(text: str, facts: Facts) -> str:
    """The text, or what the page holds of it outside its blocks: an article in JSON-LD, or a longer description."""
    for other in (*facts.articles, *facts.described):
        if len(other) > len(text):
            size, words = len(_WORD.findall(other)), len(_WORD.findall(text))
            if size > 2 * words and (words < _FEW_WORDS or other in facts.articles):
                text = other
    return text


def _found_by_libraries(scan: Scan, blocks: Blocks, url: str | None) -> npt.NDArray[np.bool_]:
    """Whether a block's words stand one after the other in the text of a library."""
    html = scan.source.decode("utf-8", "replace")
    texts = [" ".join(("", *_WORD.findall(text), "")) for text in (_ask_trafilatura(html, url), _ask_resiliparse(html))]
    wanted = [" ".join(("", *_WORD.findall(text), "")) for text in block_texts(scan, blocks)]
    return np.array([any(one.strip() and one in text for text in texts) for one in wanted], bool)


def _ask_trafilatura(html: str, url: str | None) -> str:
    """Empty where it finds nothing; it raises on some broken pages, which is no more than finding nothing."""
    import trafilatura

    try:
        return str(trafilatura.extract(html, url=url, include_comments=False) or "")
    except (ValueError, TypeError, AttributeError, IndexError, KeyError, AssertionError, RecursionError):
        return ""


def _ask_resiliparse(html: str) -> str:
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    tree: Any = HTMLTree.parse(html)
    return str(extract_plain_text(tree, main_content=True, alt_texts=False))


def _tidy(text: str) -> str:
    """Blanks at line ends and runs of empty lines go; no-break spaces become spaces."""
    lines = [line.rstrip(" \t") for line in text.replace("\u00a0", " ").split("\n")]
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()
