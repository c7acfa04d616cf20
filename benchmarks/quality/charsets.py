"""Which character set a page is in when it says nothing, or something wrong: ours and two detectors.

Pages are real sentences of FLORES-200 (`language/sib200-sample`) in each encoding that the web wrote their language in,
as paragraphs among menus of plain ASCII; 2 sentences or 20 a page. A page is right if all its text comes out as it was
written. Declarations: none; a true one; a header of ISO-8859-1; a meta tag and a header of UTF-8. And every language in
UTF-8 that says so, with one byte of damage.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.corpora import FOLDER
from benchmarks.table import Row, least_cpu_seconds, publish
from sources.web.charset import decode_html

ENCODINGS = {
    "zho_Hans": ("gb18030", "utf-8"), "zho_Hant": ("big5", "utf-8"),
    "jpn_Jpan": ("cp932", "euc_jp", "iso2022_jp", "utf-8"), "kor_Hang": ("cp949", "utf-8"),
    "rus_Cyrl": ("cp1251", "koi8-r", "iso8859-5", "utf-8"), "ukr_Cyrl": ("cp1251", "koi8-u", "utf-8"),
    "bul_Cyrl": ("cp1251", "utf-8"), "ell_Grek": ("cp1253",), "tur_Latn": ("cp1254",), "heb_Hebr": ("cp1255",),
    "arb_Arab": ("cp1256",), "tha_Thai": ("cp874",), "deu_Latn": ("cp1252",), "fra_Latn": ("cp1252",),
    "pol_Latn": ("iso8859-2",),
}  # fmt: skip
GROUPS = {
    "Chinese, Japanese, Korean": ("zho", "jpn", "kor"), "Cyrillic": ("rus", "ukr", "bul"),
    "other": ("ell", "tur", "heb", "arb", "tha", "deu", "fra", "pol"),
}  # fmt: skip
DAMAGED = "true, a byte of UTF-8 damaged"
DECLARATIONS = ("missing", "true", "wrong header (ISO-8859-1)", "wrong everywhere (UTF-8)")
_MENU = "<ul><li><a href=/>Home</a></li><li><a href=/news>News</a></li><li><a href=/about>About us</a></li></ul>"


@dataclass(frozen=True)
class EncodedPage:
    """A page in bytes, what it says of its encoding, and the text that must come out."""

    language: str
    declaration: str
    data: bytes
    header: str | None
    html: str


def make_pages(file: Path) -> Iterator[EncodedPage]:
    """Every language, encoding, declaration and size."""
    sentences: dict[str, list[str]] = {}
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            sentences.setdefault(row.get("language") or row.get("lang") or row["label"], []).append(row["text"])
    for language, encodings in ENCODINGS.items():
        for encoding in encodings:
            written = [one for one in sentences[language] if _can_write(one, encoding)]
            for size in (2, 20):
                for start in range(0, min(len(written) - size, 3 * size) + 1, size):
                    yield from _declared(language, encoding, written[start : start + size])
        yield _damaged(language, sentences[language][:20])


def _can_write(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _damaged(language: str, sentences: list[str]) -> EncodedPage:
    body = "".join(f"<p>{one}</p>" for one in sentences)
    start, end = f'<html><head><meta charset="utf-8"></head><body>{_MENU}'.encode(), f"{body}</body></html>".encode()
    return EncodedPage(language, DAMAGED, start + b"\xff" + end, "utf-8", (start + end).decode())


def _declared(language: str, encoding: str, sentences: list[str]) -> Iterator[EncodedPage]:
    body = "".join(f"<p>{one}</p>" for one in sentences)
    said = {"true": (encoding, encoding), "wrong header (ISO-8859-1)": ("iso-8859-1", None)}
    for declaration in DECLARATIONS:
        header, meta = said.get(declaration, ("utf-8", "utf-8") if "UTF-8" in declaration else (None, None))
        tag = f'<meta charset="{meta}">' if meta else ""
        html = f"<html><head>{tag}<title>Page</title></head><body>{_MENU}{body}</body></html>"
        yield EncodedPage(language, declaration, html.encode(encoding), header, html)


def _ours(page: EncodedPage) -> str:
    return decode_html(page.data, page.header)


def _charset_normalizer(page: EncodedPage) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(page.data).best()
    return str(best) if best else ""


def _resiliparse(page: EncodedPage) -> str:
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    return str(bytes_to_str(page.data, detect_encoding(page.data) or "utf-8"))


PEERS: dict[str, Callable[[EncodedPage], str]] = {
    "charset-normalizer": _charset_normalizer,
    "resiliparse": _resiliparse,
}


def share_right(pages: list[EncodedPage], decode: Callable[[EncodedPage], str]) -> float:
    """The share of pages whose text comes out whole, whatever stands for damaged bytes."""
    return sum(decode(page).replace("\ufffd", "") == page.html for page in pages) / len(pages)


def main(arguments: list[str]) -> int:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(prog="make bench-charsets", description=__doc__)
    parser.add_argument("--sentences", type=Path, default=FOLDER / "language" / "sib200-sample.jsonl.gz")
    options = parser.parse_args(arguments)
    pages = list(make_pages(options.sentences))
    rows = []
    for group, languages in GROUPS.items():
        for declaration in (*DECLARATIONS, DAMAGED):
            some = [page for page in pages if page.language[:3] in languages and page.declaration == declaration]
            ours = share_right(some, _ours)
            for peer, decode in PEERS.items():
                what = f"pages decoded right: {group}, declaration {declaration}"
                rows.append(Row(what=what, figure=ours, unit="share", peer=peer, peer_figure=share_right(some, decode)))
    seconds, _ = least_cpu_seconds(lambda: [_ours(page) for page in pages], turns=3)
    for peer, decode in PEERS.items():
        theirs, _ = least_cpu_seconds(lambda decode=decode: [decode(page) for page in pages], turns=1)  # type: ignore[misc]
        figures = {"figure": len(pages) / seconds, "peer_figure": len(pages) / theirs}
        rows.append(Row(what="pages decoded", unit="pages per core-second", peer=peer, **figures))
    publish("charsets", rows, packages=("charset-normalizer", "resiliparse"), notes=[f"{len(pages):,} pages"])
    return 0
