"""A 7z archive through the program that unpacks it: streamed, in the program's memory and a pipe.

The Python libraries for 7z need compiled packages of their own for each of its methods; 7-Zip and bsdtar are in every
distribution. A dump's archive holds one file; of several the contents come one after the other.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from typing import BinaryIO

from storage.errors import InputError

ENDING = ".7z"
_PROGRAMS = {
    "7zz": ("x", "-so", "-bd"),
    "7z": ("x", "-so", "-bd"),
    "7za": ("x", "-so", "-bd"),
    "bsdtar": ("-xOf",),
}


def open_archive(path: str) -> BinaryIO:
    """The unpacked bytes, to be read forward. Raises InputError where no program is there to unpack them."""
    program = next((name for name in _PROGRAMS if shutil.which(name)), None)
    if program is None:
        raise InputError(
            "a 7z archive is unpacked by 7-Zip or bsdtar, and neither is installed",
            at=path,
            hint="install `7zip` or `libarchive-tools`, or unpack it and name the .xml file",
        )
    command = [program, *_PROGRAMS[program], path]
    return io.BufferedReader(_Unpacked(command))  # type: ignore[return-value]


class _Unpacked(io.RawIOBase):
    """What the program writes; it is ended when this is closed."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        assert self._process.stdout
        data = self._process.stdout.read(len(buffer)) or b""
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._process.kill()
            self._process.communicate()
        super().close()
