"""What every reader takes and what it yields: exactly one Reading for each record that it meets.

A reader is a generator `read_x(raw, config)`. It streams, holds a few records at most, and never raises over what a
file contains: a damaged record becomes a Failure with its offset and reason, and the reader goes on at the next one.
So documents + failures + skipped is the number of records seen, by construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

from sources.text import normalise_line, normalise_text
from storage.errors import InputError
from storage.schema import DETAIL_LIMIT, FIELDS, Document, Failure

STAGE = "ingest"
Extraction = Literal["best", "fast", "union"]
EXTRACTIONS: tuple[Extraction, ...] = get_args(Extraction)
WikiPart = Literal["headings", "lists", "tables", "captions", "infoboxes", "categories"]
WIKI_PARTS: tuple[WikiPart, ...] = get_args(WikiPart)
Kind = Literal["warc", "wet", "captures", "mediawiki", "jsonl", "parquet", "text", "huggingface", "documents"]


@dataclass(frozen=True, kw_only=True)
class RawInput:
    """One input file (or saved dataset) that a user named.

    `name` is relative to the source's root and is what doc_ids are made of; `path` is where this machine finds it.
    `size` is in bytes, 0 where a remote store does not say. `subset`, `split` and `revision` (of the hub: a commit) say
    what of a Hugging Face dataset is read. `keep`: a remote file is kept in the downloads folder. Of captures, `base`
    is where the files of the index lie, and `subset` the index server where the input lists addresses.
    Of a piece of a dump, `start` and `stop` are the bytes of the file that it has, behind the dump's first `head` ones.
    `columns` are (field, column) pairs of a table: which column is the `text`, the `url`, and so on. A field's own name
    by default; a dot reaches into nested values (`meta.url`). `licence` is that of every document, but for rows that
    have their own. `separator` is what stands between the documents of a text file (None: the file is one).
    The texts of an input that is `metadata_only` may be measured, and not passed on.
    """

    source: str
    kind: Kind
    path: str
    name: str
    size: int
    subset: str | None = None
    split: str | None = None
    revision: str | None = None
    keep: bool = False
    base: str | None = None
    head: int = 0
    start: int = 0
    stop: int | None = None
    columns: tuple[tuple[str, str], ...] = ()
    licence: str | None = None
    separator: str | None = None
    metadata_only: bool = False

    def __post_init__(self) -> None:
        """Take the lists that JSON makes of tuples, and refuse fields that no document has."""
        object.__setattr__(self, "columns", tuple((field, column) for field, column in self.columns))
        if unknown := [field for field, _ in self.columns if field not in FIELDS]:
            raise InputError(
                f"no such document field: {', '.join(f'`{field}`' for field in unknown)}",
                at=self.path,
                hint=f"the fields are {', '.join(FIELDS)}, as in `--column text=content`",
            )

    def column_of(self, field: str) -> str:
        """The column that holds a field."""
        return dict(self.columns).get(field, field)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record that is whole but not wanted (a redirect, an image, an empty page): counted by `reason`, not stored."""

    reason: str


Reading = Document | Failure | Skipped
MOST_PAGE_BYTES = 512 << 20
"""A page in an old encoding takes up to three times its bytes in UTF-8."""


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """Everything that changes what a reader yields; part of the identity of its documents."""

    extraction: Extraction = "best"
    """How the text of a web page is found: `best`; `fast`, one judgement of its blocks instead of two; `union`, what
    trafilatura and resiliparse find besides."""
    max_page_bytes: int = 10 << 20
    """Decoded bytes of one page, article or row; larger ones fail as `page_too_large`."""
    page_cpu_seconds: float = 10.0
    """CPU time for getting the text out of one HTML page; then it fails as `page_timeout`."""
    page_memory_bytes: int = 4 << 30
    """Address space of the process that does so; a page that wants more fails as `page_too_complex`."""
    http_statuses: tuple[int, ...] = (200,)
    mime_types: tuple[str, ...] = ("text/html", "application/xhtml+xml")
    """Media types of web records that are read; `text/plain` can be added."""
    languages: tuple[str, ...] = ()
    """Web pages that are said to be in other languages than these (`de`, say) are skipped. None: all are read."""
    namespaces: tuple[int, ...] = (0,)
    """MediaWiki namespaces that are read; 0 holds the articles."""
    wiki_parts: tuple[WikiPart, ...] = ("headings", "lists", "tables")
    """What of a wiki's pages is kept besides their paragraphs."""
    chinese_variants: tuple[str, ...] = ("zh-cn", "zh-hans", "zh", "zh-hant", "zh-tw")
    """Which alternative of `-{zh-hans:…;zh-hant:…}-` is shown, most wanted first."""

    def __post_init__(self) -> None:
        """Take the lists that JSON makes of tuples, and refuse what means nothing."""
        for name in ("http_statuses", "mime_types", "languages", "namespaces", "wiki_parts", "chinese_variants"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not 0 < self.max_page_bytes <= MOST_PAGE_BYTES:
            raise InputError(
                f"pages of {self.max_page_bytes} bytes cannot be read",
                at="max_page_bytes",
                hint=f"places in a page are counted up to 2³¹, so it is 1 to {MOST_PAGE_BYTES}",
            )
        if self.extraction not in EXTRACTIONS:
            raise InputError(
                f"no such extraction: `{self.extraction}`",
                at="extraction",
                hint=f"it is one of {', '.join(EXTRACTIONS)}",
            )
        if unknown := [part for part in self.wiki_parts if part not in WIKI_PARTS]:
            raise InputError(
                f"no such part of a wiki's page: {', '.join(f'`{part}`' for part in unknown)}",
                at="wiki_parts",
                hint=f"the parts are {', '.join(WIKI_PARTS)}",
            )
        if wrong := [code for code in self.languages if not (code.isalpha() and 2 <= len(code) <= 3)]:
            raise InputError(
                f"no code of a language: {', '.join(f'`{code}`' for code in wrong)}",
                at="languages",
                hint="write two or three letters of ISO 639, such as `de` or `deu`",
            )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies: `offset` and `length` count bytes of `file`; `page` is the page id in a dump."""

    source: str
    file: str
    offset: int | None = None
    length: int | None = None
    page: str | None = None

    def failure(self, reason: str, detail: str, *, item: str | None = None) -> Failure:
        """The row for a record here that could not be read."""
        return Failure(STAGE, self.source, self.file, self.offset, item, reason, detail[:DETAIL_LIMIT])

    def document(
        self,
        doc_id: bytes,
        text: str,
        *,
        title: str | None = None,
        url: str | None = None,
        collected_at: datetime | None = None,
        licence: str | None = None,
        author: str | None = None,
        published_at: datetime | None = None,
        site_language: str | None = None,
        canonical_url: str | None = None,
        licence_mark: str | None = None,
        page_kind: str | None = None,
        metadata_only: bool | None = None,
    ) -> Document | Skipped:
        """The document from here, its strings in the normal form; Skipped when no text is left."""
        text = normalise_text(text)
        if not text:
            return Skipped("empty_text")
        return Document(
            doc_id=doc_id,
            text=text,
            title=normalise_line(title),
            source=self.source,
            url=normalise_line(url),
            file=self.file,
            offset=self.offset,
            length=self.length,
            page=self.page,
            collected_at=collected_at,
            licence=licence,
            author=normalise_line(author),
            published_at=published_at,
            site_language=normalise_line(site_language),
            canonical_url=normalise_line(canonical_url),
            licence_mark=normalise_line(licence_mark),
            page_kind=normalise_line(page_kind),
            metadata_only=bool(metadata_only),
        )


def parse_time(value: object) -> datetime | None:
    """A point in time from ISO 8601, 14-digit archive stamps, epoch seconds or a datetime; None if it is none.

    Without a zone it is taken as UTC. Years outside 1000–9999 and clocks that overflow count as no time.
    """
    try:
        found = _parse_time(value)
    except (ValueError, OverflowError, OSError):
        return None
    if found is None or found.year < 1000:
        return None
    try:
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        return None


def _parse_time(value: object) -> datetime | None:
    if isinstance(value, datetime):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value / 1000 if abs(value) > 1e11 else value, UTC)
    text = value.strip()
    if len(text) == 14 and text.isdigit():
        return datetime.strptime(text, "%Y%m%d%H%M%S")
    return datetime.fromisoformat(text)
