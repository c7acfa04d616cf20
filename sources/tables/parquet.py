"""Parquet to documents: one a row, row group by row group and batch by batch.

Only the wanted columns are read. A row group that cannot be read costs itself; a file without a readable footer holds
nothing that can be found, and is one failure. A document's `page` is its row number.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from sources.files import open_raw
from sources.reading import Place, RawInput, ReadConfig, Reading
from sources.tables.rows import RowReader
from sources.watch import begins
from storage.errors import InputError

PACKAGES = ("pyarrow",)
_BATCH_ROWS = 256
_READ_ERRORS = (pa.ArrowException, OSError, ValueError, NotImplementedError)


def read_parquet(raw: RawInput, config: ReadConfig) -> Iterator[Reading]:
    """Documents of the rows in a Parquet file. Raises InputError if it has no text column."""
    reader = RowReader(raw, config)
    with open_raw(raw) as file:
        try:
            parquet = pq.ParquetFile(file, pre_buffer=False)
        except _READ_ERRORS as error:
            yield Place(raw.source, raw.name).failure("unreadable_parquet", str(error))
            return
        columns = reader.columns_in(parquet.schema_arrow.names)
        if not reader.has_text(columns):
            raise _no_text_column(raw, parquet.schema_arrow)
        first_row = 0
        for group in range(parquet.num_row_groups):
            yield from _read_group(parquet, group, first_row, columns, raw, reader)
            first_row += parquet.metadata.row_group(group).num_rows


def _read_group(
    parquet: pq.ParquetFile, group: int, first_row: int, columns: list[str], raw: RawInput, reader: RowReader
) -> Iterator[Reading]:
    number = first_row
    if late := begins(Place(raw.source, raw.name, page=str(number))):
        yield late
        return
    try:
        for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False):
            for row in batch.to_pylist():
                yield reader.read(row, Place(raw.source, raw.name, page=str(number)), number)
                number += 1
    except _READ_ERRORS as error:
        lost = first_row + parquet.metadata.row_group(group).num_rows - number
        place = Place(raw.source, raw.name, page=str(number))
        yield place.failure(
            "unreadable_row_group", f"rows {number} to {number + lost - 1}: {error}", item=f"row {number}"
        )


def _no_text_column(raw: RawInput, schema: pa.Schema) -> InputError:
    held = ", ".join(f"`{name}`" for name in schema.names[:20])
    return InputError(
        f"source `{raw.source}` has no column `{raw.column_of('text')}`; it has {held}",
        at=raw.path,
        hint="say which column is the text: `--column text=NAME`",
    )
