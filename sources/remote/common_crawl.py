"""Common Crawl by name: `cc:CC-MAIN-2025-51?files=10&seed=1` as the crawl's files, and `?urls=FILE` as its captures.

Which files are drawn follows from crawl, seed and path alone: more files hold the fewer ones of the same seed. The
lists and files come from Common Crawl's own server, or from any mirror of its layout (`mirror=s3://…`, a folder).
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl

from sources.reading import Kind, RawInput
from sources.remote.places import is_remote
from sources.remote.ranges import read_whole
from storage.errors import InputError
from storage.identity import hash_bytes

PREFIX = "cc:"
SERVER = "https://data.commoncrawl.org"
INDEX = "https://index.commoncrawl.org"
OPTIONS = ("files", "seed", "mirror", "urls", "index")
LIST_BYTES = 64 << 20
"""A crawl of 100,000 files has a list of 0.2 MB."""
_CRAWL = re.compile(r"CC-(MAIN|NEWS)-[0-9A-Za-z-]{4,40}")


@dataclass(frozen=True, kw_only=True)
class CrawlName:
    """A crawl and what of it is meant; all of its files where nothing else is said."""

    crawl: str
    files: int | None = None
    seed: int = 0
    mirror: str = SERVER
    urls: str | None = None
    index: str = INDEX


def is_crawl_name(text: str) -> bool:
    return text.startswith(PREFIX)


def parse_crawl_name(source: str, text: str) -> CrawlName:
    """Read `cc:CRAWL[?files=…&seed=…&mirror=…&urls=…&index=…]`. Raises InputError with every fault."""
    crawl, mark, query = text.removeprefix(PREFIX).partition("?")
    given = parse_qsl(query, keep_blank_values=True)
    faults = [] if _CRAWL.fullmatch(crawl) else [f"`{crawl}` is no name of a crawl, such as CC-MAIN-2025-51"]
    faults += [f"`{name}` is no option of a crawl" for name, _ in given if name not in OPTIONS]
    faults += [f"`{name}` is given twice" for name in OPTIONS if sum(name == other for other, _ in given) > 1]
    values = dict(given)
    faults += [f"`{name}` is empty" for name, value in values.items() if not value]
    for name, least in (("files", 1), ("seed", 0)):
        value = values.get(name, "1")
        if value and not (value.isdigit() and int(value) >= least):
            faults.append(f"`{name}` is {value}, which is no whole number from {least} on")
    if "urls" in values and "files" in values:
        faults.append("`urls` names captures and `files` whole files; one of them says what is read")
    if faults or (mark and not given):
        raise InputError(
            f"the crawl of source `{source}` is not named clearly: {'; '.join(faults) or 'nothing follows the `?`'}",
            at=text,
            hint="write `cc:CC-MAIN-2025-51?files=10&seed=1`, quoted; `mirror`, `urls` and `index` may follow",
        )
    numbers = {name: int(values[name]) for name in ("files", "seed") if name in values}
    words = {name: values[name].rstrip("/") for name in ("mirror", "urls", "index") if name in values}
    return CrawlName(crawl=crawl, **numbers, **words)  # type: ignore[arg-type]


def expand_crawl(source: str, text: str, kind: Kind | None) -> list[RawInput]:
    """The inputs that a crawl's name stands for; `kind` is warc or wet. Raises InputError."""
    name = parse_crawl_name(source, text)
    if kind not in (None, "warc", "wet"):
        raise InputError(f"a crawl holds web pages, not {kind}", at=text, hint="name it with `--web` or `--wet`")
    if name.urls is not None:
        return [_captures(source, name, name.urls)]
    which: Literal["warc", "wet"] = "wet" if kind == "wet" else "warc"
    return [
        RawInput(
            source=source, kind=which, path=f"{name.mirror}/{path}", name=path, size=0, keep=is_remote(name.mirror)
        )
        for path in draw_files(_list_files(name, which), name)
    ]


def draw_files(paths: list[str], name: CrawlName) -> list[str]:
    """So many of the paths as the name asks for, in their own order."""
    if name.files is None or name.files >= len(paths):
        return paths
    chosen = set(sorted(paths, key=lambda path: hash_bytes(str(name.seed).encode(), path.encode()))[: name.files])
    return [path for path in paths if path in chosen]


def _list_files(name: CrawlName, which: str) -> list[str]:
    place = f"{name.mirror}/crawl-data/{name.crawl}/{which}.paths.gz"
    try:
        packed = read_whole(place, limit_bytes=LIST_BYTES) if is_remote(place) else Path(place).read_bytes()
    except (OSError, InputError) as error:
        raise InputError(
            f"there is no list of {which.upper()} files of `{name.crawl}`: {str(error).splitlines()[0]}",
            at=place,
            hint="the crawls are listed at https://commoncrawl.org/get-started; is the name right?",
        ) from error
    try:
        lines = gzip.decompress(packed).decode("ascii").split()
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"the list of files cannot be read: {error}", at=place) from error
    if not lines:
        raise InputError("the list of files is empty", at=place)
    return lines


def _captures(source: str, name: CrawlName, urls: str) -> RawInput:
    path = Path(urls).expanduser()
    if not path.is_file():
        raise InputError(f"there is no list of addresses `{urls}` for source `{source}`", at=str(path.absolute()))
    return RawInput(
        source=source,
        kind="captures",
        path=str(path.absolute()),
        name=f"{name.crawl}/{path.name}",
        size=path.stat().st_size,
        subset=f"{name.index}/{name.crawl}-index",
        base=name.mirror,
    )
