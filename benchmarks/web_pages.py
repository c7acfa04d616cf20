"""Pages with gold text, split into two halves; how a text is compared to gold.

They are a WARC and a JSONL of gold, or two folders: pages as `.html` or `.html.gz`, and gold by the same names as
WCXB's `.json` or as `.txt`, so that checkouts of WCXB and of the Chinese collection can be given as they are.

Word F1 is WCXB's: words are the runs of letters and digits of the lower-case text, counted as multisets, and the pages'
F1 are averaged; on 224 pages of WCXB trafilatura 2.3.1 has 0.777 so. For Chinese, characters that are no white space
take the place of words.

Invariant: a page's half depends on the pages' URLs alone: of each type, in the order of the URLs' SHA-256, every second
page is for tuning and every other one is reported.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fastwarc.warc import ArchiveIterator, WarcRecordType

from benchmarks.corpora import FOLDER
from storage.errors import CurationError

WCXB = (FOLDER / "web" / "wcxb-dev.warc.gz", FOLDER / "web" / "wcxb-dev.gold.jsonl")
CHINESE_NEWS = (FOLDER / "web" / "zh-news.warc.gz", FOLDER / "web" / "zh-news.gold.jsonl.gz")
TUNING, REPORTED = "tuning half", "reported half"


@dataclass(frozen=True, kw_only=True)
class GoldPage:
    """A page as it came, its main text as a reader marked it, and snippets that must and must not be in it."""

    url: str
    page_type: str
    data: bytes
    charset: str | None
    gold: str
    wanted: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    half: str = REPORTED

    @property
    def is_chinese(self) -> bool:
        return self.page_type == "Chinese news"

    @property
    def has_address(self) -> bool:
        """Whether it was kept where the page came from."""
        return not self._host.endswith(".invalid")

    @property
    def site(self) -> str:
        """The host; of a page without an address, the page itself."""
        return self._host if self.has_address else self.url

    @property
    def _host(self) -> str:
        return urlsplit(self.url).hostname or ""


def add_page_options(parser: argparse.ArgumentParser) -> None:
    """`--web`, `--gold` and `--documentation`: which pages a benchmark reads."""
    parser.add_argument("--web", type=Path, default=WCXB[0], metavar="WARC")
    parser.add_argument("--gold", type=Path, default=WCXB[1], metavar="JSONL", help="the pages of the WARC to read")
    parser.add_argument("--documentation", type=Path, metavar="FOLDER", help="HTML files to measure on besides")


def read_gold_pages(web: Path, gold: Path) -> list[GoldPage]:
    """The pages that have gold, in their order. Raises CurationError where a file is not there."""
    for path in (web, gold):
        if not path.exists():
            raise CurationError(f"the pages or their gold are not at {path}", hint="pass --web WARC --gold JSONL")
    return _with_halves(list(_of_folders(web, gold) if web.is_dir() else _of_warc(web, gold)))


def _of_warc(warc: Path, gold: Path) -> Iterator[GoldPage]:
    rows = {row["url"]: row for row in map(json.loads, _lines(gold))}
    with open(warc, "rb") as file:
        for record in ArchiveIterator(file, record_types=WarcRecordType.response):
            row = rows.get(record.headers.get("WARC-Target-URI", ""))
            if row:
                yield _page(row, record.reader.read(), record.http_charset)


def _of_folders(web: Path, gold: Path) -> Iterator[GoldPage]:
    for path in sorted(gold.iterdir()):
        plain, packed = web / f"{path.stem}.html", web / f"{path.stem}.html.gz"
        data = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
        row = _row_of_file(path)
        if row["main_content"]:
            yield _page(row, data, None)


def _row_of_file(path: Path) -> Mapping[str, object]:
    """The gold of one file; a page without an address gets that of its file."""
    text, address = path.read_text("utf-8", "replace"), f"https://zh-news.invalid/{path.stem}"
    if path.suffix != ".json":
        return {"url": address, "main_content": text}
    stated = json.loads(text)
    marked = stated["ground_truth"]
    return {**marked, "url": stated.get("url") or address, "main_content": marked.get("main_content"),
            "page_type": stated["_internal"]["page_type"]["primary"]}  # fmt: skip


def _page(row: Mapping[str, object], data: bytes, charset: str | None) -> GoldPage:
    return GoldPage(
        url=str(row["url"]),
        page_type=str(row.get("page_type") or "Chinese news"),
        data=data,
        charset=charset,
        gold=str(row["main_content"]),
        wanted=tuple(row.get("with") or ()),  # type: ignore[arg-type]
        unwanted=tuple(row.get("without") or ()),  # type: ignore[arg-type]
    )


def _lines(path: Path) -> list[str]:
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")
    with opened as lines:
        return list(lines)


def _with_halves(pages: Sequence[GoldPage]) -> list[GoldPage]:
    halves: dict[str, str] = {}
    for kind in {page.page_type for page in pages}:
        urls = sorted((page.url for page in pages if page.page_type == kind), key=_digest)
        halves |= {url: REPORTED if number % 2 else TUNING for number, url in enumerate(urls)}
    return [GoldPage(**{**vars(page), "half": halves[page.url]}) for page in pages]


def _digest(url: str) -> bytes:
    return hashlib.sha256(url.encode()).digest()


def words_of(text: str, chinese: bool = False) -> list[str]:
    """What is counted of a text: words, or for Chinese characters."""
    if chinese:
        return [char for char in text if not char.isspace()]
    return "".join(char if char.isalnum() else " " for char in text.lower()).split()


def f1_of(found: Iterable[str], wanted: Iterable[str]) -> float:
    """F1 of two multisets; 0 where they share nothing."""
    ours, theirs = Counter(found), Counter(wanted)
    common = (ours & theirs).total()
    return 2 * common / (ours.total() + theirs.total()) if common else 0.0


def page_f1(page: GoldPage, text: str) -> float:
    """F1 of a text against the page's gold."""
    return f1_of(words_of(text, page.is_chinese), words_of(page.gold, page.is_chinese))


def share_found(pages: Sequence[GoldPage], texts: Mapping[str, str], *, wanted: bool) -> float:
    """Of all snippets that must (or must not) be in the texts, the share that is; white space and case aside."""
    found = []
    for page in pages:
        text = " ".join(texts[page.url].lower().split())
        found += [" ".join(one.lower().split()) in text for one in (page.wanted if wanted else page.unwanted)]
    return sum(found) / max(len(found), 1)
