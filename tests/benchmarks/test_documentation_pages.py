"""Pages of documentation packages: read from an archive as Debian makes them, chosen by path, framed as WARC."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator

import benchmarks.documentation_pages as pages
from benchmarks.documentation_pages import Package, choose_pages, data_member, prepare_pages, read_list, read_pages
from pipelines.sample.framing import SamplePage
from storage.errors import InputError

FILES = {
    "./usr/share/doc/oats/index.html": b"<html>oats</html>",
    "./usr/share/doc/oats/big.html": b"x" * (pages.LARGEST_BYTES + 1),
    "./usr/share/doc/oats/picture.png": b"png",
    "./usr/share/doc/oats/b/Rye.HTM": b"<html>rye</html>",
}


def write_deb(path: Path) -> Path:
    """An `ar` archive of the three members that a package has, one of odd length."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as tar:
        for name, body in FILES.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": packed.getvalue()}
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, body in members.items():
            file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(body):<10}`\n".encode())
            file.write(body + b"\n" * (len(body) % 2))
    return path


def test_pages_are_read_from_an_archive_and_nothing_else_is(tmp_path: Path) -> None:
    found = list(read_pages(write_deb(tmp_path / "oats.deb"), "oats"))
    assert [page.origin for page in found] == ["usr/share/doc/oats/index.html", "usr/share/doc/oats/b/Rye.HTM"]
    assert found[0].address == "http://oats.invalid/usr/share/doc/oats/index.html"
    (tmp_path / "other").write_bytes(b"no archive at all")
    with pytest.raises(InputError, match="no Debian archive"):
        data_member(tmp_path / "other")


def test_which_pages_are_taken_depends_on_their_paths_alone() -> None:
    made = [SamplePage(origin=f"p{i:03}.html", address="http://a.invalid/", body=b"") for i in range(200)]
    chosen = [page.origin for page in choose_pages(iter(made), 50)]
    assert chosen == sorted(chosen) and len(chosen) == 50
    assert [page.origin for page in choose_pages(reversed(made), 50)] == chosen
    fewer = [page.origin for page in choose_pages(iter(made[:150]), 50)]
    assert {name for name in chosen if name in {page.origin for page in made[:150]}} <= set(fewer)


def test_a_package_is_one_file_that_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(package: Package, folder: Path) -> Path:
        asked.append(package.name)
        return write_deb(folder / "oats.deb")

    monkeypatch.setattr(pages, "fetch", fetch)
    for _ in range(2):
        (path,) = prepare_pages(tmp_path, [Package(name="oats", version="1")])
    with path.open("rb") as file:
        records = [record.headers.get("WARC-Target-URI") for record in ArchiveIterator(file)]
    assert asked == ["oats"] and len([uri for uri in records if uri]) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["oats.warc.gz"]


def test_every_pinned_package_stands_there_once() -> None:
    names = [package.name for package in read_list()]
    assert len(names) == len(set(names)) > 50 and all(package.version for package in read_list())
