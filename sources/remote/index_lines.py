"""Lines of capture indices: CDXJ (`key time {…}`), JSON as Common Crawl's server answers, and CDX of 11 fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

CDX_FIELDS = ("key", "timestamp", "url", "mime", "status", "digest", "redirect", "meta", "length", "offset", "filename")
"""` CDX N b a m s k r M S V g`, as the Internet Archive writes it."""


@dataclass(frozen=True, kw_only=True)
class Capture:
    """Where a record lies: `length` bytes from `offset` of `filename`; what else is known is None where it is not."""

    filename: str
    offset: int
    length: int
    url: str | None
    timestamp: str
    status: int | None
    media_type: str | None
    languages: str | None


def parse_capture(line: str) -> Capture | None:
    """The capture of one line, None for a head or an empty one. Raises ValueError that says what is wrong."""
    line = line.strip("\r\n")
    if not line.strip() or line.startswith((" CDX", "!", "#")):
        return None
    values = _fields(line)
    try:
        filename, offset, length = str(values["filename"]), int(values["offset"]), int(values["length"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"no filename, offset and length: {error!r}") from error
    if not filename or ".." in filename.split("/") or offset < 0 or length <= 0:
        raise ValueError(f"not the place of a record: {filename!r}, {offset}, {length}")
    status = str(values.get("status", ""))
    return Capture(
        filename=filename,
        offset=offset,
        length=length,
        url=_word(values, "url"),
        timestamp=str(values.get("timestamp", "")),
        status=int(status) if status.isdigit() else None,
        media_type=_word(values, "mime-detected") or _word(values, "mime"),
        languages=_word(values, "languages"),
    )


def newest(captures: Iterable[Capture], statuses: Iterable[int]) -> Capture | None:
    """The latest capture of those with one of the statuses, or else of all."""
    found = list(captures)
    wanted = [capture for capture in found if capture.status in (None, *statuses)]
    return max(wanted or found, key=lambda capture: capture.timestamp, default=None)


def _fields(line: str) -> Mapping[str, Any]:
    start = line.find("{")
    if start >= 0:
        try:
            values = orjson.loads(line[start:])
        except ValueError as error:
            raise ValueError(f"not JSON: {error}") from error
        head = line[:start].split()
        return {"timestamp": head[1] if len(head) > 1 else "", **values}
    words = line.split(" ")
    if len(words) != len(CDX_FIELDS):
        raise ValueError(f"{len(words)} fields; a line has {len(CDX_FIELDS)}, or JSON")
    return dict(zip(CDX_FIELDS, words, strict=True))


def _word(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    return str(value) if value not in (None, "", "-") else None
