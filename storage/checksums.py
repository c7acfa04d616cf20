"""Checksums of a folder that is handed on: `SHA256SUMS`, in the form that `sha256sum --check` reads.

The file is sorted by name and lists every file of the folder but itself. It costs one reading at the speed of SHA-256.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from storage.commit import write_atomically
from storage.errors import DatasetError
from storage.identity import hash_file

CHECKSUMS = "SHA256SUMS"


def write_checksums(folder: Path) -> None:
    """List every file of the folder and of those in it."""
    lines = [f"{hash_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in _files(folder)]
    write_atomically(folder / CHECKSUMS, "".join(lines).encode())


def checksum_faults(folder: Path) -> list[str]:
    """What is missing or altered; nothing, where the folder has no list.

    Raises DatasetError when the list cannot be read.
    """
    listing = folder / CHECKSUMS
    return list(_faults(folder, listing)) if listing.exists() else []


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)


def _faults(folder: Path, listing: Path) -> Iterator[str]:
    for line in listing.read_text(encoding="utf-8").splitlines():
        digest, separator, name = line.partition("  ")
        if not separator or len(digest) != 64:
            raise DatasetError(f"not a line of checksums: {line[:80]!r}", at=str(listing), hint="copy the file again")
        if not (folder / name).is_file():
            yield f"{name} is missing"
        elif (found := hash_file(folder / name)) != digest:
            yield f"{name} has sha256 {found[:12]}…, `{CHECKSUMS}` says {digest[:12]}…"
