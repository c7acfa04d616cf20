"""Checksums say what is missing and what is altered, in the form of `sha256sum`."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.checksums import CHECKSUMS, checksum_faults, write_checksums
from storage.errors import DatasetError


def test_every_file_counts(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name in ("train/b", "a", "c d"):
        (tmp_path / name).write_text(name)
    assert checksum_faults(tmp_path) == []
    write_checksums(tmp_path)
    names = [line[66:] for line in (tmp_path / CHECKSUMS).read_text().splitlines()]
    assert names == ["a", "c d", "train/b"] and checksum_faults(tmp_path) == []
    (tmp_path / "train" / "b").write_text("other")
    (tmp_path / "c d").unlink()
    missing, altered = checksum_faults(tmp_path)
    assert missing == "c d is missing" and altered.startswith("train/b has sha256")


def test_a_list_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / CHECKSUMS).write_text("nonsense\n")
    with pytest.raises(DatasetError, match="not a line of checksums: 'nonsense'"):
        checksum_faults(tmp_path)
