"""Real pages by the ten thousand that come through a package manager: the HTML of Debian's documentation packages.

Each package is a site of its own, `http://PACKAGE.invalid/…`, framed as WARC with its pages as they lie in the
archive. Invariant: which pages are taken depends on their paths alone, by hash, at most PAGES of a package, so that
no reference manual of thirty thousand pages is the corpus; a package's file is written whole or not at all. The
packages and their versions are pinned in `documentation_packages.txt`; a mirror that has moved on gives its own
version, which the table then names. Nothing is installed: archives are fetched, read here, and deleted.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.sample.framing import SamplePage, placeholder_address, write_warc
from storage.errors import InputError

LIST = Path(__file__).with_name("documentation_packages.txt")
PAGES = 1200
LARGEST_BYTES = 1 << 20
"""Indices of everything in one page are no pages of text, and cost an extractor as much as a hundred others."""
DAY = "2023-06-10"
"""The release of Debian 12, before which all of them were written."""
_MAGIC = b"!<arch>\n"
_HEADER_BYTES = 60


@dataclass(frozen=True, kw_only=True)
class Package:
    """A documentation package, as it is pinned."""

    name: str
    version: str


def read_list(path: Path = LIST) -> list[Package]:
    """The pinned packages: a line each, `name=version`; `#` begins a comment."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition("=") for line in lines if line)
    return [Package(name=name, version=version) for name, _, version in pairs]


def prepare_pages(folder: Path, packages: Sequence[Package]) -> list[Path]:
    """A WARC file a package under `folder`, fetched and written unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_prepare(folder, package) for package in packages]


def _prepare(folder: Path, package: Package) -> Path:
    target = folder / f"{package.name}.warc.gz"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=folder, prefix=".tmp-") as work:
        pages = choose_pages(read_pages(fetch(package, Path(work)), package.name), PAGES)
        written = Path(work) / target.name
        about = {"software": "gristmill benchmark", "description": f"HTML of {package.name} {package.version}"}
        with written.open("wb") as file:
            write_warc(file, pages, name=target.name, day=DAY, info=about)
        written.replace(target)
    return target


def fetch(package: Package, folder: Path) -> Path:
    """The package's archive in `folder`. Raises InputError where no package manager can get it."""
    for asked in (f"{package.name}={package.version}", package.name):
        try:
            subprocess.run(["apt-get", "download", asked], cwd=folder, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return next(folder.glob("*.deb"))
    raise InputError(
        f"the documentation package {package.name} cannot be fetched",
        hint="the pages come through Debian's `apt-get download`; elsewhere name WARC files of your own with `--web`",
    )


def read_pages(archive: Path, package: str) -> Iterator[SamplePage]:
    """The HTML pages of a Debian archive, in its order; links and pages of over LARGEST_BYTES are left out."""
    with tarfile.open(fileobj=io.BytesIO(data_member(archive)), mode="r:*") as files:
        for entry in files:
            origin = entry.name.removeprefix("./")
            if entry.isfile() and entry.size <= LARGEST_BYTES and origin.lower().endswith((".html", ".htm", ".xhtml")):
                body = files.extractfile(entry)
                assert body is not None, "a file has contents"
                yield SamplePage(origin=origin, address=placeholder_address(package, origin), body=body.read())


def data_member(archive: Path) -> bytes:
    """The `data.tar.*` of a Debian archive: an `ar` archive of three members. Raises InputError where it is none."""
    with archive.open("rb") as file:
        if file.read(len(_MAGIC)) == _MAGIC:
            while len(header := file.read(_HEADER_BYTES)) == _HEADER_BYTES:
                name, size = header[:16].decode("ascii", "replace").strip(), int(header[48:58])
                if name.startswith("data.tar"):
                    return file.read(size)
                file.seek(size + size % 2, io.SEEK_CUR)
    raise InputError("this is no Debian archive with data in it", at=str(archive))


def choose_pages(pages: Iterator[SamplePage], most: int) -> list[SamplePage]:
    """At most so many, those whose paths hash lowest, in the order of their paths."""
    by_hash = sorted(pages, key=lambda page: hashlib.sha256(page.origin.encode()).digest())
    return sorted(by_hash[:most], key=lambda page: page.origin)
