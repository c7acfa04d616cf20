"""Rows of a local file: JSON, JSON lines, CSV or Parquet, compressed by gzip or not; anything else is plain text.

Invariant: every row is a mapping from column to value, in the file's order, or there is an error that says where.
Files are read whole: benchmarks have megabytes.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import InputError

Row = dict[str, Any]

TEXT_COLUMNS = ("text", "content", "story", "raw_content")
HEADLESS_COLUMNS = ("question", "A", "B", "C", "D", "answer")
"""MMLU's CSV files as they are published have no line of names."""


def read_rows(path: Path) -> list[Row]:
    """All rows. Raises InputError for a file that is missing, damaged, or of no kind that has rows."""
    kind = kind_of(path)
    if not path.is_file():
        raise InputError("no such file", at=str(path), hint="give a file of JSON lines, JSON, CSV or Parquet")
    if kind not in _READERS:
        raise InputError(
            f"`{kind or path.name}` files have no rows", at=str(path), hint="give JSON lines, JSON, CSV or Parquet"
        )
    try:
        rows = _READERS[kind](_read(path))
    except (OSError, EOFError, zlib.error, ValueError, csv.Error, pa.ArrowException) as error:
        raise InputError(f"not readable as {kind.lstrip('.')}: {error}", at=str(path)) from error
    strange = next((number for number, row in enumerate(rows, 1) if not isinstance(row, dict)), None)
    if strange:
        raise InputError(f"row {strange} has no columns", at=str(path), hint="every row must be a JSON object")
    if not rows:
        raise InputError("the file has no rows", at=str(path))
    return rows


def read_texts(path: Path) -> Iterator[str]:
    """The documents of a file: a text column of a table, or the whole of a plain file."""
    if kind_of(path) not in _READERS:
        yield _read_plain(path)
        return
    rows = read_rows(path)
    column = next((name for name in TEXT_COLUMNS if name in rows[0]), None)
    if column is None:
        raise InputError(
            f"no text column among {', '.join(rows[0])}", at=str(path), hint=f"name it {' or '.join(TEXT_COLUMNS)}"
        )
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get(column), str):
            raise InputError(f"row {number} has no text in `{column}`", at=str(path))
        yield row[column]


def kind_of(path: Path) -> str:
    """The ending that says how to read a file, without `.gz`."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix


def _read(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def _read_plain(path: Path) -> str:
    try:
        return _read(path).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"not readable as text: {error}", at=str(path)) from error


def _read_json_lines(data: bytes) -> list[Row]:
    return [json.loads(line) for line in data.decode("utf-8-sig").splitlines() if line.strip()]


def _read_json(data: bytes) -> list[Row]:
    found = json.loads(data.decode("utf-8-sig"))
    if isinstance(found, dict):
        found = next((value for value in found.values() if isinstance(value, list)), [found])
    return list(found)


def _read_csv(data: bytes) -> list[Row]:
    rows = [row for row in csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")) if row]
    if not rows:
        return []
    headless = len(rows[0]) == len(HEADLESS_COLUMNS) and rows[0][-1] in ("A", "B", "C", "D")
    if headless:
        return [{"choices": row[1:5], "question": row[0], "answer": row[5]} for row in rows]
    return [dict(zip(rows[0], row, strict=False)) for row in rows[1:]]


def _read_parquet(data: bytes) -> list[Row]:
    return list(pq.read_table(io.BytesIO(data)).to_pylist())


_READERS = {
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
