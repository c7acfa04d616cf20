"""Rows of tables (JSONL, Parquet, Hugging Face) to documents, by a mapping of columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sources.reading import Place, RawInput, ReadConfig, Reading, parse_time
from storage.identity import offset_doc_id, record_doc_id
from storage.schema import FIELDS, encode

LICENSE = "license"
"""The column is taken in this spelling, too, where no other is named: a licence that is stated must not be missed."""


class RowReader:
    """Reads rows of one input; rows are mappings of column names to JSON-like values."""

    def __init__(self, raw: RawInput, config: ReadConfig) -> None:
        self._raw = raw
        self._limit = config.max_page_bytes
        self._columns = {field: raw.column_of(field) for field in FIELDS}
        self._spelt = LICENSE if self._columns["licence"] == "licence" else self._columns["licence"]

    def columns_in(self, names: list[str]) -> list[str]:
        """Those of a table's top-level columns that are wanted, in its order."""
        columns = (*self._columns.values(), self._spelt)
        wanted = {part for column in columns for part in (column, column.partition(".")[0])}
        return [name for name in names if name in wanted]

    def has_text(self, names: list[str]) -> bool:
        """Whether the text column, or what it is nested in, is among the columns."""
        column = self._columns["text"]
        return column in names or column.partition(".")[0] in names

    def read(self, row: Mapping[str, Any], place: Place, number: int) -> Reading:
        """One row. `number`, a byte offset or row number, makes the doc_id of a row that has no id."""
        text = self._value(row, "text")
        row_id = self._value(row, "id")
        item = str(row_id)[:200] if isinstance(row_id, str | int) else None
        if text is None:
            held = ", ".join(f"`{name}`" for name in list(row)[:12])
            detail = (
                f"no column `{self._columns['text']}`, it has {held}; say which is the text with `--column text=NAME`"
            )
            return place.failure("no_text", detail, item=item)
        if not isinstance(text, str):
            return place.failure(
                "text_is_no_string", f"`{self._columns['text']}` is a {type(text).__name__}", item=item
            )
        if len(text) > self._limit or len(encode(text)) > self._limit:
            return place.failure("page_too_large", f"the limit is {self._limit} bytes", item=item)
        return self._document(row, text, place, self._doc_id(item, place, number))

    def _document(self, row: Mapping[str, Any], text: str, place: Place, doc_id: bytes) -> Reading:
        return place.document(
            doc_id,
            text,
            title=self._string(row, "title"),
            url=self._string(row, "url"),
            collected_at=parse_time(self._value(row, "date")),
            licence=self._licence(row),
            author=self._string(row, "author"),
            published_at=parse_time(self._value(row, "published_at")),
            site_language=self._string(row, "site_language"),
            canonical_url=self._string(row, "canonical_url"),
            licence_mark=self._string(row, "licence_mark"),
            page_kind=self._string(row, "page_kind"),
        )

    def _doc_id(self, item: str | None, place: Place, number: int) -> bytes:
        if item:
            return record_doc_id(self._raw.source, record_id=item)
        return offset_doc_id(self._raw.source, file=place.file, offset=number)

    def _licence(self, row: Mapping[str, Any]) -> str | None:
        """The row's own licence, else the input's; of several (code lists them) all must be kept to: `MIT AND GPL`."""
        value = self._value(row, "licence") or row.get(self._spelt)
        if isinstance(value, list):
            value = " AND ".join(str(one) for one in value if one)
        return value if value and isinstance(value, str) else self._raw.licence

    def _value(self, row: Mapping[str, Any], field: str) -> Any:
        column = self._columns[field]
        if column in row:
            return row[column]
        value: Any = row
        for part in column.split("."):
            if not isinstance(value, Mapping):
                return None
            value = value.get(part)
        return value

    def _string(self, row: Mapping[str, Any], field: str) -> str | None:
        value = self._value(row, field)
        return value if isinstance(value, str) else None
