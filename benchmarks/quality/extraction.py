"""HTML to text: word F1, snippets found and CPU a page, of ours and of the libraries, on the same pages.

Invariant: every extractor gets the page's bytes and the charset of its HTTP header and decodes them by the same
function; times are CPU seconds of this process, the least of several turns for each page, extractors taking turns.
Our weights were trained on pages of the `tuning half`; those of the `reported half` they never saw, nor others of their
sites (`benchmarks.web_pages`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import Row, publish
from benchmarks.web_pages import CHINESE_NEWS, REPORTED, TUNING, WCXB, GoldPage, page_f1, read_gold_pages, share_found
from sources.reading import EXTRACTIONS
from sources.web.charset import decode_html
from sources.web.html import extract_page

PEER = "trafilatura"
Extract = Callable[[GoldPage], str]


@dataclass
class Outcome:
    """What one extractor made of the pages: texts by URL, and the least CPU seconds of each."""

    texts: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def note(self, page: GoldPage, text: str, seconds: float) -> None:
        self.texts[page.url] = text
        self.seconds[page.url] = min(seconds, self.seconds.get(page.url, seconds))


def extractors() -> dict[str, Extract]:
    """Ours by mode, and each library that is installed."""
    ours: dict[str, Extract] = {f"ours, `{mode}`": _ours(mode) for mode in EXTRACTIONS}
    return ours | dict(_libraries())


def _ours(mode: Any) -> Extract:
    return lambda page: extract_page(page.data, announced_charset=page.charset, url=page.url, mode=mode).text


def _html(page: GoldPage) -> str:
    return decode_html(page.data, page.charset)


def _libraries() -> Iterator[tuple[str, Extract]]:
    import trafilatura
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    yield PEER, lambda page: trafilatura.extract(_html(page)) or ""
    yield "trafilatura fast", lambda page: trafilatura.extract(_html(page), fast=True) or ""
    yield (
        "resiliparse",
        lambda page: extract_plain_text(HTMLTree.parse(_html(page)), main_content=True, alt_texts=False),
    )
    yield "jusText", _justext()
    try:
        import readability
        from lxml.html import fromstring
    except ImportError:
        return

    def read(page: GoldPage) -> str:
        try:
            return str(fromstring(readability.Document(_html(page)).summary()).text_content())
        except Exception:  # it raises a class of its own over pages that it finds nothing in, and others over some
            return ""

    yield "readability-lxml", read


def _justext() -> Extract:
    import justext
    from lxml.etree import LxmlError

    words = {"English": justext.get_stoplist("English"), "Chinese": frozenset[str]()}

    def extract(page: GoldPage) -> str:
        chosen = words["Chinese" if page.is_chinese else "English"]
        low, high = (0.0, 0.0) if page.is_chinese else (0.3, 0.32)
        try:
            found = justext.justext(page.data, chosen, stopwords_low=low, stopwords_high=high)
        except (LxmlError, ValueError, AssertionError):
            return ""
        return "\n".join(one.text for one in found if not one.is_boilerplate)

    return extract


def run(pages: Sequence[GoldPage], chosen: Mapping[str, Extract], turns: int) -> dict[str, Outcome]:
    """Each extractor over each page, `turns` times, taking turns by page."""
    outcomes = {name: Outcome() for name in chosen}
    for extract in chosen.values():
        extract(pages[0])
    for _ in range(turns):
        for page in pages:
            for name, extract in chosen.items():
                start = time.process_time()
                text = extract(page)
                outcomes[name].note(page, text, time.process_time() - start)
    return outcomes


def _mean_f1(pages: Sequence[GoldPage], outcome: Outcome) -> float:
    return float(np.mean([page_f1(page, outcome.texts[page.url]) for page in pages])) if pages else 0.0


def measures(pages: Sequence[GoldPage]) -> Iterator[tuple[str, str, Callable[[Outcome], float]]]:
    """(what, unit, how) of each figure."""
    western = [page for page in pages if not page.is_chinese]
    chinese = [page for page in pages if page.is_chinese]
    kinds = list(dict.fromkeys(page.page_type for page in western))
    groups: list[tuple[str, list[GoldPage]]] = [("all pages", western)]
    for half in (TUNING, REPORTED):
        groups.append((half, [page for page in western if page.half == half]))
    for kind in kinds:
        of_kind = [page for page in western if page.page_type == kind]
        groups += [(kind, of_kind), (f"{kind}, {REPORTED}", [page for page in of_kind if page.half == REPORTED])]
    for name, members in groups if western else ():
        yield f"word F1, {name}", "F1", lambda outcome, members=members: _mean_f1(members, outcome)  # type: ignore[misc]
    if chinese:
        unseen = [page for page in chinese if page.half == REPORTED]
        yield "character F1, Chinese news", "F1", lambda outcome: _mean_f1(chinese, outcome)
        yield f"character F1, Chinese news, {REPORTED}", "F1", lambda outcome: _mean_f1(unseen, outcome)
    for name, wanted in (("with", True), ("without", False)):
        members = [page for page in western if (page.wanted if wanted else page.unwanted)]
        for half, some in (("", members), (f", {REPORTED}", [page for page in members if page.half == REPORTED])):
            if some:
                yield (
                    f"`{name}` found{half}",
                    "share",
                    lambda outcome, some=some, wanted=wanted: share_found(some, outcome.texts, wanted=wanted),  # type: ignore[misc]
                )
    urls = [page.url for page in western or chinese]
    yield "CPU a page", "ms", lambda outcome: 1000 * float(np.mean([outcome.seconds[url] for url in urls]))
    yield (
        "CPU a page, 99th percentile",
        "ms",
        lambda outcome: 1000 * float(np.percentile([outcome.seconds[url] for url in urls], 99)),
    )


def table(pages: Sequence[GoldPage], outcomes: Mapping[str, Outcome]) -> list[Row]:
    """Every figure of every extractor beside trafilatura's."""
    rows = []
    for what, unit, figure in measures(pages):
        theirs = figure(outcomes[PEER])
        for name, outcome in outcomes.items():
            peer = {"peer": PEER, "peer_figure": theirs} if name != PEER else {}
            rows.append(Row(what=f"{what}: {name}", figure=figure(outcome), unit=unit, **peer))  # type: ignore[arg-type]
    return rows


def main(arguments: list[str]) -> int:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(prog="make bench-extraction", description=__doc__)
    parser.add_argument("--web", type=Path, nargs="+", default=[WCXB[0], CHINESE_NEWS[0]], metavar="WARC|FOLDER")
    parser.add_argument("--gold", type=Path, nargs="+", default=[WCXB[1], CHINESE_NEWS[1]], metavar="JSONL|FOLDER")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--result", default="extraction", metavar="NAME", help="the result file's name")
    options = parser.parse_args(arguments)
    pages = [page for pair in zip(options.web, options.gold, strict=True) for page in read_gold_pages(*pair)]
    outcomes = run(pages, extractors(), options.turns)
    publish(
        options.result,
        table(pages, outcomes),
        packages=("trafilatura", "resiliparse", "jusText", "readability-lxml", "lxml", "numba"),
        notes=[
            f"{len(pages)} pages: {', '.join(path.name for path in options.web)}",
            "words are runs of letters and digits of the lower-case text, as WCXB counts; for Chinese, characters",
            f"our weights saw most of the {TUNING}, none of the {REPORTED} or its sites; CPU without Chinese pages",
        ],
    )
    return 0
