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
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.quality._page_extractors import PEER, PEER_PACKAGES, Extract, extractors
from benchmarks.table import Row, publish
from benchmarks.web_pages import CHINESE_NEWS, REPORTED, TUNING, WCXB, GoldPage, page_f1, read_gold_pages, share_found

Measure = tuple[str, str, Callable[["Outcome"], float]]


@dataclass
class Outcome:
    """What one extractor made of the pages: texts by URL, and the least CPU seconds of each."""

    texts: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def note(self, page: GoldPage, text: str, seconds: float) -> None:
        self.texts[page.url] = text
        self.seconds[page.url] = min(seconds, self.seconds.get(page.url, seconds))


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
    return float(np.mean([page_f1(page, outcome.texts[page.url]) for page in pages]))


def _share_found(pages: Sequence[GoldPage], wanted: bool, outcome: Outcome) -> float:
    return share_found(pages, outcome.texts, wanted=wanted)


def _milliseconds(urls: Sequence[str], of: Callable[[list[float]], float], outcome: Outcome) -> float:
    return 1000 * float(of([outcome.seconds[url] for url in urls]))


def _percentile_99(values: list[float]) -> float:
    return float(np.percentile(values, 99))


def measures(pages: Sequence[GoldPage]) -> Iterator[Measure]:
    """(what, unit, how) of each figure."""
    western = [page for page in pages if not page.is_chinese]
    for name, members in _groups(western):
        yield f"word F1, {name}", "F1", partial(_mean_f1, members)
    for name, members in _and_reported("character F1, Chinese news", [page for page in pages if page.is_chinese]):
        yield name, "F1", partial(_mean_f1, members)
    for name, members in _and_reported("`with` found", [page for page in western if page.wanted]):
        yield name, "share", partial(_share_found, members, True)
    for name, members in _and_reported("`without` found", [page for page in western if page.unwanted]):
        yield name, "share", partial(_share_found, members, False)
    urls = [page.url for page in western or pages]
    yield "CPU a page", "ms", partial(_milliseconds, urls, np.mean)
    yield "CPU a page, 99th percentile", "ms", partial(_milliseconds, urls, _percentile_99)


def _groups(pages: Sequence[GoldPage]) -> Iterator[tuple[str, list[GoldPage]]]:
    """All pages, each half where there are two, each type."""
    halves = {page.half for page in pages}
    if pages:
        yield "all pages", list(pages)
    for half in (TUNING, REPORTED) if len(halves) > 1 else ():
        yield half, [page for page in pages if page.half == half]
    for kind in dict.fromkeys(page.page_type for page in pages):
        yield from _and_reported(kind, [page for page in pages if page.page_type == kind])


def _and_reported(name: str, pages: list[GoldPage]) -> Iterator[tuple[str, list[GoldPage]]]:
    """The pages, and those of the reported half where that is not all."""
    reported = [page for page in pages if page.half == REPORTED]
    if pages:
        yield name, pages
    if 0 < len(reported) < len(pages):
        yield f"{name}, {REPORTED}", reported


def table(pages: Sequence[GoldPage], outcomes: Mapping[str, Outcome]) -> list[Row]:
    """Every figure of every extractor beside trafilatura's."""
    rows = []
    for what, unit, figure in measures(pages):
        theirs = figure(outcomes[PEER])
        for name, outcome in outcomes.items():
            peer = {"peer": PEER, "peer_figure": theirs} if name != PEER else {}
            rows.append(Row(what=f"{what}: {name}", figure=figure(outcome), unit=unit, **peer))  # type: ignore[arg-type]
    return rows


def _what_was_learned_from(*, unseen: bool) -> str:
    if unseen:
        return "our weights saw none of these pages, nor another page of their sites"
    return f"our weights saw most of the {TUNING}, none of the {REPORTED} or its sites; CPU without Chinese pages"


def main(arguments: list[str]) -> int:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(prog="make bench-extraction", description=__doc__)
    parser.add_argument("--web", type=Path, nargs="+", default=[WCXB[0], CHINESE_NEWS[0]], metavar="WARC|FOLDER")
    parser.add_argument("--gold", type=Path, nargs="+", default=[WCXB[1], CHINESE_NEWS[1]], metavar="JSONL|FOLDER")
    parser.add_argument("--unseen", action="store_true", help="nothing was learned from any of these pages: no halves")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--result", default="extraction", metavar="NAME", help="the result file's name")
    options = parser.parse_args(arguments)
    pages = [page for pair in zip(options.web, options.gold, strict=True) for page in read_gold_pages(*pair)]
    if options.unseen:
        pages = [replace(page, half=REPORTED) for page in pages]
    outcomes = run(pages, extractors(), options.turns)
    publish(
        options.result,
        table(pages, outcomes),
        packages=(*PEER_PACKAGES, "lxml", "numba"),
        notes=[
            f"{len(pages)} pages: {', '.join('/'.join(path.parts[-2:]) for path in options.web)}",
            "words are runs of letters and digits of the lower-case text, as WCXB counts; for Chinese, characters",
            _what_was_learned_from(unseen=options.unseen),
        ],
    )
    return 0
