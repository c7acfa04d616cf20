"""Dumps in 7z archives: through the program where there is one, and a clear word where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sources.dumps.mediawiki import read_mediawiki
from sources.inputs import expand_inputs
from sources.reading import RawInput, ReadConfig
from storage.errors import InputError
from tests.sources.captures import dump, page, reasons, texts

DUMP = dump([page(number, f"Mill {number} grinds.") for number in range(1, 4)])


def named(folder: Path) -> RawInput:
    [raw] = expand_inputs("s", [str(folder / "d.xml.7z")])
    assert raw.kind == "mediawiki"
    return raw


@pytest.mark.skipif(not shutil.which("7z"), reason="needs 7-Zip")
def test_a_real_archive(tmp_path: Path) -> None:
    (tmp_path / "d.xml").write_bytes(DUMP)
    subprocess.run(["7z", "a", "d.xml.7z", "d.xml"], cwd=tmp_path, check=True, capture_output=True)
    assert texts(read_mediawiki(named(tmp_path), ReadConfig())) == [f"Mill {n} grinds." for n in (1, 2, 3)]


@pytest.mark.parametrize(("command", "found"), [("cat", 3), ("head -c 500", 2)])
def test_what_the_program_writes_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, found: int
) -> None:
    """A stand-in for 7-Zip that copies, or that dies in the middle."""
    (tmp_path / "d.xml.7z").write_bytes(DUMP)
    program = tmp_path / "7zz"
    program.write_text(f'#!/bin/sh\n[ "$1 $2 $3" = "x -so -bd" ] && exec {command} "$4"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    readings = list(read_mediawiki(named(tmp_path), ReadConfig()))
    assert len(texts(readings)) == found and reasons(readings) == ([] if found == 3 else ["truncated"])


def test_without_a_program_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d.xml.7z").write_bytes(b"7z\xbc\xaf\x27\x1c")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="7-Zip or bsdtar, and neither is installed"):
        list(read_mediawiki(named(tmp_path), ReadConfig()))
