"""A raw input to parts of documents: the stage that everything begins with.

Invariants: parts are cut by the input and `part_bytes` alone, never by workers or time; records seen = documents +
failures + skipped, and never none; no doc_id comes twice from one input. Rows are in the order of the input.

Memory: one part's text as Arrow (256 MB by default), plus 4 MB of Python objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from sources.reading import STAGE, Kind, RawInput, ReadConfig, Reading, Skipped
from sources.remote.captures import read_captures
from sources.tables import documents, huggingface, parquet, plain_text
from sources.tables.documents import read_documents
from sources.tables.huggingface import read_huggingface
from sources.tables.jsonl import read_jsonl
from sources.tables.parquet import read_parquet
from sources.tables.plain_text import read_text
from sources.watch import Watch
from sources.web import page
from sources.web.warc import read_warc, read_wet
from storage.errors import InputError
from storage.identity import fingerprint
from storage.schema import DOCUMENTS, FAILURES, Document, Failure, documents_table, encode, failures_table
from storage.stage import package_versions

VERSION = 9
"""Raised whenever the same record gives another document."""

_TABLE_BYTES = 4 << 20


def _read_mediawiki(raw: RawInput, config: ReadConfig) -> Iterator[Reading]:
    """Loaded with the first dump: it brings numba, 0.4 s of CPU time."""
    from sources.dumps.mediawiki import read_mediawiki

    return read_mediawiki(raw, config)


Reader = Callable[[RawInput, ReadConfig], Iterator[Reading]]
_READERS: dict[Kind, Reader] = {
    "warc": read_warc,
    "wet": read_wet,
    "captures": read_captures,
    "mediawiki": _read_mediawiki,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "text": read_text,
    "huggingface": read_huggingface,
    "documents": read_documents,
}
_PACKAGES: dict[Kind, tuple[str, ...]] = {
    "warc": page.PACKAGES,
    "wet": (),
    "captures": page.PACKAGES,
    "mediawiki": (),
    "jsonl": ("orjson", *page.PACKAGES),
    "parquet": parquet.PACKAGES,
    "text": plain_text.PACKAGES,
    "huggingface": huggingface.PACKAGES,
    "documents": documents.PACKAGES,
}


@dataclass(frozen=True, kw_only=True)
class IngestConfig(ReadConfig):
    """How raw inputs are read, and how large the parts are."""

    part_bytes: int = 256_000_000
    """UTF-8 bytes of text after which a part of documents is closed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.part_bytes < 1:
            raise InputError(f"a part of {self.part_bytes} bytes is asked for; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What becomes one documents part and one failures part of an input, in order.

    `documents` has the schema DOCUMENTS, `failures` FAILURES. `skipped` counts records that were not wanted, by reason.
    """

    ordinal: int
    documents: pa.Table
    failures: pa.Table
    skipped: Mapping[str, int]

    @property
    def records_seen(self) -> int:
        return int(self.documents.num_rows) + int(self.failures.num_rows) + sum(self.skipped.values())


def read(raw: RawInput, config: ReadConfig) -> Iterator[Reading]:
    """One Reading a record of the input, whatever its kind."""
    return _READERS[raw.kind](raw, config)


def ingest(
    raw: RawInput, config: IngestConfig, *, reader: Reader = read, watch: Watch | None = None
) -> Iterator[Batch]:
    """The input's batches, at least one. Raises InputError if it cannot be opened or lacks the text column.

    With a `watch` a record that takes too long ends this process.
    """
    ordinal = 0
    batch = _OpenBatch()
    readings = watch.readings(reader(raw, config), raw) if watch else reader(raw, config)
    for reading in _note_emptiness(_refuse_repeated_ids(readings, raw), raw):
        if raw.metadata_only and isinstance(reading, Document):
            reading.metadata_only = True
        if batch.text_bytes >= config.part_bytes:
            yield batch.close(ordinal)
            ordinal, batch = ordinal + 1, _OpenBatch()
        batch.add(reading)
    yield batch.close(ordinal)


def ingest_identity(kind: Kind, config: IngestConfig) -> str:
    """What besides the input's bytes and name decides its documents: version, config, the libraries that read it."""
    with_libraries = kind in ("warc", "captures") and config.extraction == "union"
    packages = package_versions(_PACKAGES[kind] + (page.UNION_PACKAGES if with_libraries else ()))
    return fingerprint({"stage": STAGE, "version": VERSION, "config": config, "kind": kind, "packages": packages})


@dataclass
class _OpenBatch:
    """A batch that grows; Python objects are turned to Arrow every 4 MB of text."""

    text_bytes: int = 0
    _waiting: list[Document] = field(default_factory=list)
    _waiting_bytes: int = 0
    _tables: list[pa.Table] = field(default_factory=list)
    _failures: list[Failure] = field(default_factory=list)
    _skipped: Counter[str] = field(default_factory=Counter)

    def add(self, reading: Reading) -> None:
        if isinstance(reading, Skipped):
            self._skipped[reading.reason] += 1
        elif isinstance(reading, Failure):
            self._failures.append(reading)
        else:
            size = len(encode(reading.text))
            self._waiting.append(reading)
            self._waiting_bytes += size
            self.text_bytes += size
            if self._waiting_bytes >= _TABLE_BYTES:
                self._flush()

    def close(self, ordinal: int) -> Batch:
        self._flush()
        return Batch(
            ordinal=ordinal,
            documents=pa.concat_tables([DOCUMENTS.empty_table(), *self._tables]),
            failures=pa.concat_tables([FAILURES.empty_table(), failures_table(self._failures)]),
            skipped=dict(sorted(self._skipped.items())),
        )

    def _flush(self) -> None:
        if self._waiting:
            self._tables.append(documents_table(self._waiting))
            self._waiting, self._waiting_bytes = [], 0


def _note_emptiness(readings: Iterable[Reading], raw: RawInput) -> Iterator[Reading]:
    """An input without a single record fails as one: it is never passed over in silence."""
    reading = None
    for reading in readings:
        yield reading
    if reading is None:
        yield Failure(STAGE, raw.source, raw.name, None, None, "empty_input", "the input holds no record at all")


def _refuse_repeated_ids(readings: Iterable[Reading], raw: RawInput) -> Iterator[Reading]:
    """A second record with the id of an earlier one fails: two documents of one id could not be told apart.

    64 bits of each id are held, about 70 MB a million records. Dumps are left out: their page ids are unique.
    """
    seen: set[int] = set()
    for reading in readings:
        if isinstance(reading, Document) and raw.kind != "mediawiki":
            key = int.from_bytes(reading.doc_id[:8], "little")
            if key in seen:
                yield _repeated(reading)
                continue
            seen.add(key)
        yield reading


def _repeated(document: Document) -> Failure:
    detail = f"another record of this input has the same id (doc_id {document.doc_id.hex()})"
    return Failure(STAGE, document.source, document.file, document.offset, document.url, "repeated_id", detail)


def config_from_json(values: Mapping[str, Any]) -> IngestConfig:
    """The config again from `dataclasses.asdict` through JSON."""
    return IngestConfig(**values)
