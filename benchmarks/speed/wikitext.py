"""Dumps to text beside wikiextractor and mwparserfromhell: speed, leftover markup, lost prose; `make bench-wikitext`.

Invariant: all read the same files in this process, turn by turn, bz2 decompression and XML included; a rate is the
wikitext of all pages in UTF-8 over the least CPU time. A sentence counts as missing if both peers hold it and ours does
not, by letters and digits alone, within its page; words of templates that the peers drop may stand in it.
"""

from __future__ import annotations

import argparse
import bz2
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.__main__ import PEERS
from benchmarks.table import Row, publish
from sources.dumps.mediawiki import read_mediawiki
from sources.reading import RawInput, ReadConfig
from storage.schema import Document

GENSIM = "gensim==4.4.0"
"""Its wheel holds 206 pages of the English Wikipedia of 2012, 106 of them articles."""
LEFTOVER = re.compile(r"\{\{|\}\}|\[\[|\]\]|\{\||\|\}|^\|-|</?ref\b|'''|&nbsp;|__[A-Z]+__|<br|\[https?:|-\{|\}-")
_FORMULA = re.compile(r"\$[^$]*\$")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n")
_NO_LETTER = re.compile(r"[\W_]+")
_MIN_LETTERS = 25
_RUN_LETTERS, _HELD_SHARE = 8, 0.6
"""A sentence is held if this share of its runs of eight letters is: an inserted word breaks seven of them."""
_TAG = re.compile(r"<[^<>]{1,200}>")

Texts = dict[str, str]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="make bench-wikitext", description=__doc__)
    default = os.environ.get("GRISTMILL_TEST_DATA") or "../shared/data"
    parser.add_argument("--data", type=Path, default=Path(default), help=f"folder of the test data  [{default}]")
    parser.add_argument("--dump", type=Path, action="append", default=[], help="a dump to time, bz2; may be repeated")
    parser.add_argument("--turns", type=int, default=3, help="how often each reader reads each dump  [3]")
    options = parser.parse_args(arguments)
    small = sorted((options.data / "encyclopedia").glob("*.xml.bz2"))
    timed = options.dump or [gensim_dump(), *(path for path in small if path.name.startswith("ltgwiki"))]
    rows = [row for path in timed for row in speed_rows(path, options.turns)]
    rows += quality_rows([*timed, *(path for path in small if path not in timed)])
    publish("wikitext", rows, packages=("wikiextractor", "mwparserfromhell", "numba"), notes=NOTES)
    return 0


NOTES = (
    "wikiextractor without expanding templates, mwparserfromhell with ElementTree and strip_code, both in this process",
    "leftover: braces, double brackets, table and reference marks, bold, &nbsp;, switches, language conversion, not "
    "between $ signs, where formulas stand; of pages that both read",
)


def gensim_dump() -> Path:
    """The dump out of gensim's wheel, fetched once into the cache beside the peers."""
    folder = PEERS.parent / "dumps"
    found = list(folder.glob("enwiki-*-shortened.bz2"))
    if found:
        return found[0]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as wheels:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", wheels, GENSIM], check=True)
        with zipfile.ZipFile(next(Path(wheels).glob("*.whl"))) as wheel:
            name = next(name for name in wheel.namelist() if "enwiki" in name and name.endswith("-shortened.bz2"))
            (folder / Path(name).name).write_bytes(wheel.read(name))
    return folder / Path(name).name


def speed_rows(path: Path, turns: int) -> list[Row]:
    megabytes = sum(len(text.encode()) for _, text in all_pages(path)) / 1e6
    readers: dict[str, Callable[[Path], object]] = {
        "ours": read_ours,
        "wikiextractor": read_with_wikiextractor,
        "mwparserfromhell": read_with_mwparserfromhell,
        "bz2 alone": lambda path: bz2.decompress(path.read_bytes()),
    }
    read_ours(path)
    least = dict.fromkeys(readers, float("inf"))
    for _ in range(turns):
        for name, read in readers.items():
            start = time.process_time()
            read(path)
            least[name] = min(least[name], time.process_time() - start)
    rates = {name: megabytes / seconds for name, seconds in least.items()}
    what = f"wikitext → text, {short_name(path)}"
    return [
        Row(what=what, figure=rates["ours"], unit="MB of wikitext a core-second", peer=name, peer_figure=rates[name])
        for name in readers
        if name != "ours"
    ]


def short_name(path: Path) -> str:
    return "gensim's enwiki" if "shortened" in path.name else path.name.partition("-")[0]


def all_pages(path: Path) -> Iterator[tuple[str, str]]:
    """Page id and wikitext of every page, through ElementTree."""
    with bz2.open(path) as file:
        for _, element in ElementTree.iterparse(file):
            if element.tag.rpartition("}")[2] != "page":
                continue
            found = {child.tag.rpartition("}")[2]: child for child in element}
            revision = {child.tag.rpartition("}")[2]: child.text for child in found["revision"]}
            if found["ns"].text == "0" and "redirect" not in found:
                yield found["id"].text or "", revision.get("text") or ""
            else:
                yield "", revision.get("text") or ""
            element.clear()


def read_ours(path: Path) -> Texts:
    raw = RawInput(source="s", kind="mediawiki", path=str(path), name=path.name, size=1)
    readings = read_mediawiki(raw, ReadConfig())
    return {
        found.page.partition("/")[0]: found.text for found in readings if isinstance(found, Document) and found.page
    }


def read_with_wikiextractor(path: Path) -> Texts:
    from wikiextractor import WikiExtractor as reader
    from wikiextractor.extract import Extractor

    reader.templateNamespace = "Template:"  # its command reads it off the dump; while it is empty, no page is taken
    texts = {}
    with reader.decode_open(str(path)) as lines:
        for page_id, revision, title, page in reader.collect_pages(lines):
            extractor = Extractor(page_id, revision, "", title, page)
            found = extractor.clean_text("".join(page), expand_templates=False, html_safe=False)
            texts[page_id] = "\n".join(found)
    return texts


def extract_with_wikiextractor(path: Path) -> Texts:
    """Its texts of the pages that ElementTree finds: it looks for tags at the beginning of lines only."""
    from wikiextractor.extract import Extractor

    texts = {}
    for page, text in all_pages(path):
        if page:
            found = Extractor(page, "", "", "", [text]).clean_text(text, expand_templates=False, html_safe=False)
            texts[page] = "\n".join(found)
    return texts


def read_with_mwparserfromhell(path: Path) -> Texts:
    import mwparserfromhell

    return {page: mwparserfromhell.parse(text).strip_code() for page, text in all_pages(path) if page}


def quality_rows(paths: list[Path]) -> list[Row]:
    totals = dict.fromkeys(("lines", "left", "extractor_lines", "extractor_left", "sentences", "missing", "new"), 0)
    rows = []
    for path in paths:
        ours, first, second = read_ours(path), extract_with_wikiextractor(path), read_with_mwparserfromhell(path)
        lines, left = count_leftover(ours)
        extractor_lines, extractor_left = count_leftover({page: first[page] for page in ours if page in first})
        sentences, missing = count_missing(ours, first, second)
        counted = (lines, left, extractor_lines, extractor_left, sentences, missing, count_new(ours, first, second))
        totals = {name: totals[name] + value for name, value in zip(totals, counted, strict=True)}
        what = f"sentences of both peers that ours lacks, {short_name(path)}"
        rows.append(Row(what=what, figure=missing, unit=f"of {sentences}"))
    return [
        Row(
            what="lines with leftover markup, all dumps",
            figure=100 * totals["left"] / totals["lines"],
            unit=f"% of {totals['lines']} lines",
            peer="wikiextractor",
            peer_figure=100 * totals["extractor_left"] / totals["extractor_lines"],
        ),
        Row(
            what="sentences of both peers that ours lacks, all dumps",
            figure=totals["missing"],
            unit=f"of {totals['sentences']}",
        ),  # fmt: skip
        Row(what="sentences of ours that neither peer holds, all dumps", figure=totals["new"], unit="sentences"),
        *rows,
    ]


def count_leftover(texts: Texts) -> tuple[int, int]:
    """Lines that are not empty, and those of them with a mark that no reader should see."""
    lines = [line for text in texts.values() for line in text.splitlines() if line.strip()]
    return len(lines), sum(bool(LEFTOVER.search(_FORMULA.sub("", line))) for line in lines)


def count_missing(ours: Texts, first: Texts, second: Texts) -> tuple[int, int]:
    """Sentences that both peers hold, and how many of those our text of the page lacks."""
    sentences = list(shared_sentences(ours, first, second))
    return len(sentences), sum(not holds(letters(ours[page]), sentence) for page, sentence in sentences)


def holds(text: str, sentence: str) -> bool:
    """Whether the sentence is in the text, also with words between that the peers drop with their template."""
    if sentence in text:
        return True
    runs = [sentence[i : i + _RUN_LETTERS] for i in range(len(sentence) - _RUN_LETTERS + 1)]
    return sum(run in text for run in runs) >= _HELD_SHARE * len(runs)


def shared_sentences(ours: Texts, first: Texts, second: Texts) -> Iterator[tuple[str, str]]:
    for page in first.keys() & second.keys() & ours.keys():
        other = letters(second[page])
        yield from ((page, sentence) for sentence in sentences_of(first[page]) if sentence in other)


def count_new(ours: Texts, first: Texts, second: Texts) -> int:
    return sum(
        sentence not in letters(first.get(page, "")) and sentence not in letters(second.get(page, ""))
        for page, text in ours.items()
        for sentence in sentences_of(text)
    )


def sentences_of(text: str) -> Iterator[str]:
    """Sentences of 25 letters and more, each as its letters."""
    found = (letters(sentence) for sentence in _SENTENCE_END.split(text))
    return (sentence for sentence in found if len(sentence) >= _MIN_LETTERS)


_letters: dict[str, str] = {}


def letters(text: str) -> str:
    """Letters and digits in lower case, without tags."""
    if len(text) < 2000:
        return _NO_LETTER.sub("", _TAG.sub("", text.lower()))
    if text not in _letters:
        _letters[text] = _NO_LETTER.sub("", _TAG.sub("", text.lower()))
    return _letters[text]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
