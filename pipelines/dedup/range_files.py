"""Files of a shuffle: a record batch a range, uncompressed, found by an index in the file's head.

A file under its name is whole (it is written beside and renamed), so a task that finds its last file is done. Reading a
range costs one seek and reads nothing of the others; what travels is hashes and places, which do not compress, and a
row group of 1,024 rows in Parquet took as long to write as 20,000 rows here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.dedup.columns import numbers, whole
from pipelines.dedup.shuffle import RANGE
from storage.commit import atomic_path
from storage.errors import DatasetError

Facts = Mapping[str, int]
_RANGES, _FACTS = b"ranges", b"facts"


def write_ranges(path: Path, table: pa.Table, facts: Facts) -> None:
    """Write a table that is sorted by `range`; `facts` are counts that `read_facts` gives back."""
    ranges = numbers(table.column("range"), np.uint32)
    starts = np.flatnonzero(np.concatenate([[True], ranges[1:] != ranges[:-1]])[: len(ranges)])
    columns = [whole(column) for column in table.columns[1:]]
    content = pa.schema(list(table.schema)[1:], {_RANGES: ranges[starts].tobytes(), _FACTS: json.dumps(facts)})
    rows = pa.RecordBatch.from_arrays(columns, schema=content)
    with atomic_path(path) as temporary, pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, content) as out:
        for start, end in pairwise([*starts.tolist(), len(ranges)]):
            out.write_batch(rows.slice(start, end - start))


def read_facts(path: Path) -> Facts | None:
    """What was written with the file; None where there is none."""
    if not path.exists():
        return None
    with _open(path) as file:
        facts: Facts = json.loads(file.schema.metadata[_FACTS])
        return facts


def read_range(files: Sequence[Path], number: int, schema: pa.Schema | None = None) -> pa.Table:
    """The rows of one range of all files, in the files' order; without a schema, that of the first file.

    Raises DatasetError where a file is missing or cannot be read.
    """
    content = pa.schema(list(schema)[1:]) if schema else _content(files[0])
    batches = [batch for file in files if (batch := _read_batch(file, number)) is not None]
    rows = pa.Table.from_batches(batches, schema=content)
    return rows.add_column(0, RANGE, pa.array(np.full(len(rows), number, np.uint32)))


def read_columns(path: Path, number: int, names: Sequence[str]) -> pa.Table | None:
    """Some columns of one range of one file, the others unread; None where the file has no such range."""
    with _open(path) as file:
        fields = [file.schema.get_field_index(name) for name in names]
    with _open(path, pa.ipc.IpcReadOptions(included_fields=fields)) as file:
        batch = _find_batch(file, number)
        return None if batch is None else pa.Table.from_batches([batch]).select(list(names))


def _read_batch(path: Path, number: int) -> pa.RecordBatch | None:
    with _open(path) as file:
        return _find_batch(file, number)


def _find_batch(file: pa.ipc.RecordBatchFileReader, number: int) -> pa.RecordBatch | None:
    present = np.frombuffer(file.schema.metadata[_RANGES], np.uint32)
    index = int(np.searchsorted(present, number))
    if index == len(present) or present[index] != number:
        return None
    return file.get_batch(index).replace_schema_metadata(None)


def _content(path: Path) -> pa.Schema:
    with _open(path) as file:
        return file.schema.remove_metadata()


def _open(path: Path, options: pa.ipc.IpcReadOptions | None = None) -> pa.ipc.RecordBatchFileReader:
    try:
        return pa.ipc.open_file(pa.OSFile(str(path)), options=options)
    except FileNotFoundError as error:
        raise DatasetError("a shuffled file is missing", at=str(path), hint="run deduplication again") from error
    except pa.ArrowInvalid as error:
        raise DatasetError(f"a shuffled file cannot be read: {error}", at=str(path), hint="remove it") from error


@dataclass(frozen=True)
class RangeFiles:
    """The files of one piece of work, named by its identity, their phase and a number."""

    folder: Path
    base: str

    def path(self, phase: str, number: int) -> Path:
        return self.folder / phase / f"{self.base}-{number}.arrow"

    def paths(self, phase: str, numbers: Iterable[int]) -> list[Path]:
        return [self.path(phase, number) for number in numbers]

    def facts(self, phase: str, number: int) -> Facts | None:
        """The counts of a file that is there."""
        return read_facts(self.path(phase, number))

    def commit(self, phase: str, number: int, table: pa.Table, **facts: int) -> Facts:
        """Write a table that is sorted by `range`; its rows are counted."""
        counted = {"rows": len(table), **facts}
        write_ranges(self.path(phase, number), table, counted)
        return counted
