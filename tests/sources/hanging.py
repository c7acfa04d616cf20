"""Readers that hang or crash in C over what certain records hold, for processes that are started by tests."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import numba

from sources.ingest import read
from sources.reading import Place, RawInput, ReadConfig, Reading
from sources.tables.rows import RowReader

_SQUARED = re.compile("(a+)+b")


@numba.njit("int64(int64)", nogil=True)  # type: ignore[untyped-decorator]
def _spin(n: int) -> int:
    while n != 1:
        n = n * 5 if n < 1 << 40 else 3
    return n


def read_hanging(raw: RawInput, config: ReadConfig) -> Iterator[Reading]:
    """The real reader of tables, except that some texts do what they say."""
    honest = RowReader.read

    def hanging(self: RowReader, row: Mapping[str, Any], place: Place, number: int) -> Reading:
        if row["text"] == "hang in a pattern":
            _SQUARED.match("a" * 60)
        if row["text"] == "hang in a kernel":
            _spin(7)
        if row["text"] == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if row["text"] == "be killed":
            os.kill(os.getpid(), signal.SIGKILL)
        return honest(self, row, place, number)

    RowReader.read = hanging  # type: ignore[method-assign]
    for reading in read(raw, config):
        yield reading
        if getattr(reading, "text", "") == "hang behind this":
            _spin(7)
