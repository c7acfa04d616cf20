"""Lines, paragraphs and runs of sentences that stand in many documents of a host or of the corpus.

Invariant: two are equal if their letters are, after the writing that is asked for (`plain` or `ccnet`), by a 128-bit
hash; a document counts once however often it has one. What has no letter, digit or mark at all (after that writing) is
left alone. Each costs 45 bytes in a shuffled file before compression, about as much as the line itself; scanning runs
at 100 MB/s.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dedup.characters import KIND_BITS, LONE, MARK, NUM_CODE_POINTS, SPACE, WORD, character_tables
from pipelines.dedup.columns import identifier_halves, numbers, read_only, string_buffers, whole
from pipelines.dedup.compiled import compiled
from pipelines.dedup.shuffle import PLACE, parts_of, places, ranges_of, rows_of, shuffled_schema
from pipelines.dedup.spans.parameters import Letters, LinesConfig
from pipelines.dedup.spans.repeats import RUNS
from storage.identity import content_hash
from storage.schema import IDENTIFIER

Bytes = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.uint32]
Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

LINES = shuffled_schema(("high", pa.uint64()), ("low", pa.uint64()), ("place", PLACE), ("doc_id", IDENTIFIER))
"""One row for each different line of a document. `range`: of its hash, `high` and `low`."""

REPEATED_LINES = shuffled_schema(
    ("place", PLACE),
    ("high", pa.uint64()),
    ("low", pa.uint64()),
    ("documents", pa.int64()),
    ("is_first", pa.bool_()),
    ("example", IDENTIFIER),
)
"""LINES that enough documents have. `is_first`: this document is the first that has it. `range`: the place's part."""

_KINDS = {"lines": 0, "paragraphs": 1, "sentences": 2}
_LINES, _PARAGRAPHS, _SENTENCES = 0, 1, 2
_SKIP, _BLANK = 0, 0x20
_MULTIPLIERS = np.array([0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93], np.uint64)
_SEEDS = np.array([0x243F6A8885A308D3, 0x13198A2E03707344], np.uint64)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True)
class _Found:
    """Lines in the order of texts and places: their text's row, byte offsets (end exclusive), and two hashes."""

    rows: Integers
    starts: Integers
    ends: Integers
    high: Hashes
    low: Hashes


def scatter_lines(
    texts: pa.Array, doc_ids: pa.Array, hosts: Sequence[str | None], part: int, first_row: int, config: LinesConfig,
    num_ranges: int,
) -> pa.Table:  # fmt: skip
    """LINES of a batch of texts that starts at row `first_row`, sorted by range.

    Under the scope `host` a document without one counts with its like.
    """
    found = _find(texts, hosts, config)
    order = np.lexsort((found.low, found.high, found.rows))
    rows, high, low = found.rows[order], found.high[order], found.low[order]
    fresh = np.ones(len(order), np.bool_)
    fresh[1:] = (rows[1:] != rows[:-1]) | (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    rows, high, low = rows[fresh], high[fresh], low[fresh]
    ranges = ranges_of(high, num_ranges)
    order = np.argsort(ranges, kind="stable")
    rows = rows[order]
    columns = [ranges[order], high[order], low[order], places(part, rows + first_row)]
    return pa.table([*(pa.array(column) for column in columns), doc_ids.take(pa.array(rows))], schema=LINES)


def count_lines(lines: pa.Table, config: LinesConfig) -> pa.Table:
    """REPEATED_LINES of one range of LINES, sorted by place."""
    high, low = numbers(lines.column("high"), np.uint64), numbers(lines.column("low"), np.uint64)
    doc_high, doc_low = identifier_halves(lines.column("doc_id"))
    order = np.lexsort((doc_low, doc_high, low, high))
    starts = np.ones(len(order), np.bool_)
    starts[1:] = (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])
    heads = np.flatnonzero(starts)
    sizes = np.diff(np.append(heads, len(order)))
    group = np.cumsum(starts) - 1
    chosen = np.flatnonzero(sizes[group] >= config.documents) if len(order) else np.zeros(0, np.int64)
    group, rows = group[chosen], order[chosen]
    is_first = starts[chosen]
    example = order[heads[group] + is_first]
    columns = [
        pa.array(parts_of(numbers(lines.column("place"), np.int64)[rows]).astype(np.uint32)),
        *(whole(lines.column(name)).take(pa.array(rows)) for name in ("place", "high", "low")),
        pa.array(sizes[group].astype(np.int64)),
        pa.array(is_first),
        whole(lines.column("doc_id")).take(pa.array(example)),
    ]
    return pa.table(columns, schema=REPEATED_LINES).sort_by([("place", "ascending"), ("high", "ascending")])


def line_runs(
    texts: pa.Array, hosts: Sequence[str | None], part: int, first_row: int, repeated: pa.Table, config: LinesConfig
) -> pa.Table:
    """RUNS, in bytes, of a batch of texts that starts at row `first_row`; `repeated` are its part's, by place."""
    rows = rows_of(numbers(repeated.column("place"), np.int64))
    low, high = np.searchsorted(rows, [first_row, first_row + len(texts)])
    repeated, rows = repeated.slice(low, high - low), rows[low:high] - first_row
    found = _find(texts, hosts, config)
    known = _keys(rows, *(numbers(repeated.column(name), np.uint64) for name in ("high", "low")))
    match = pc.index_in(_keys(found.rows, found.high, found.low), value_set=known)
    chosen = np.flatnonzero(match.is_valid().to_numpy(zero_copy_only=False))
    which = match.drop_null()
    first_here = np.zeros(len(found.rows), np.bool_)
    first_here[chosen[np.unique(which.to_numpy(), return_index=True)[1]]] = True
    is_first = whole(repeated.column("is_first")).take(which).to_numpy(zero_copy_only=False) & first_here[chosen]
    columns = [
        pa.array(np.full(len(chosen), part, np.uint32)),
        pa.array(places(part, found.rows[chosen] + first_row)),
        pa.array(found.starts[chosen]),
        pa.array(found.ends[chosen]),
        pa.array(is_first),
        whole(repeated.column("documents")).take(which),
        pa.array(found.starts[chosen]),
        whole(repeated.column("example")).take(which),
    ]
    return pa.table(columns, schema=RUNS)


def _keys(rows: Integers, high: Hashes, low: Hashes) -> pa.Array:
    """binary(24)[n]: row and hash as one value."""
    together = np.stack([rows.astype(np.uint64), high, low], axis=1) if len(rows) else np.zeros((0, 3), np.uint64)
    return pa.Array.from_buffers(pa.binary(24), len(rows), [None, pa.py_buffer(np.ascontiguousarray(together))])


def _find(texts: pa.Array, hosts: Sequence[str | None], config: LinesConfig) -> _Found:
    offsets, data = string_buffers(texts)
    scopes = np.zeros(len(texts), np.uint64)
    if config.scope == "host":
        scopes = np.array([_host_number(host) for host in hosts], np.uint64)
    table = _letters(config.letters)
    found = hash_lines(offsets, data, _KINDS[config.unit], table, read_only(scopes), _MULTIPLIERS, _SEEDS)
    if config.window == 1:
        return _Found(*found)
    rows, starts, ends, high, low = found
    return _Found(*join_lines(rows, starts, ends, high, low, config.window))


def read_hosts(urls: pa.Array) -> list[str | None]:
    """The host of each URL, without its final dot; None where there is none."""
    return [_host(url) for url in urls.to_pylist()]


def _host(url: str | None) -> str | None:
    try:
        return (urlsplit(url or "").hostname or "").rstrip(".") or None
    except ValueError:
        return None


def _host_number(host: str | None) -> int:
    return int.from_bytes(content_hash((host or "").encode())[:8], "big")


@lru_cache(maxsize=2)
def _letters(letters: Letters) -> Codes:
    """uint32[0x110000]: what each character is written as; 0 leaves it out."""
    tables = character_tables()
    kinds = tables.kinds & KIND_BITS
    written = tables.lower.copy()
    written[kinds == SPACE] = _BLANK
    if letters == "ccnet":
        written[~np.isin(kinds, (SPACE, WORD, LONE))] = _SKIP
        for code in np.flatnonzero((kinds == WORD) | (kinds == MARK)).tolist():
            written[code] = _bare(chr(code), int(written[code]))
    written[0] = _SKIP
    assert len(written) == NUM_CODE_POINTS
    return read_only(written)


def _bare(character: str, lower: int) -> int:
    """A letter without its accents, a digit as 0, a mark not at all."""
    category = unicodedata.category(character)
    if category[0] == "M":
        return _SKIP
    if category == "Nd":
        return ord("0")
    return ord(unicodedata.normalize("NFD", chr(lower))[0])


@compiled
def _decode(data: Bytes, position: int, end: int) -> tuple[int, int]:
    """The code point at `position` of valid UTF-8 and the position after it."""
    byte = int(data[position])
    if byte < 0x80:
        return byte, position + 1
    length = 2 if byte < 0xE0 else (3 if byte < 0xF0 else 4)
    length = min(length, end - position)
    code = byte & (0x7F >> length)
    for i in range(1, length):
        code = (code << 6) | int(data[position + i] & 0x3F)
    return min(code, 0x10FFFF), position + length


@compiled
def _finish(value: np.uint64) -> np.uint64:
    value ^= value >> np.uint64(30)
    value *= _MIX_1
    value ^= value >> np.uint64(27)
    value *= _MIX_2
    return value ^ (value >> np.uint64(31))


@compiled
def _add(value: np.uint64, code: int, multiplier: np.uint64) -> np.uint64:
    value = (value ^ np.uint64(code)) * multiplier
    return value ^ (value >> np.uint64(32))


@compiled
def _ends_sentence(code: int, is_spaced: bool) -> bool:
    """An ideographic mark ends a sentence by itself, another one where white space follows."""
    if code == 0x3002 or code == 0xFF01 or code == 0xFF1F:
        return True
    return is_spaced and (code == 0x2E or code == 0x21 or code == 0x3F or code == 0x2026 or code == 0x0964)


@compiled
def _line_end(data: Bytes, position: int, end: int, kind: int, letters: Codes) -> int:
    """Where the line that starts at `position` ends, with the white space that parts it from the next."""
    last, is_blank, breaks = 0, False, 0
    while position < end:
        code, after = _decode(data, position, end)
        if letters[code] == _BLANK:
            breaks += code == 0x0A
            is_blank = True
        else:
            if is_blank and (breaks > 1 or (breaks and kind != _PARAGRAPHS)):
                return position
            if kind == _SENTENCES and last and _ends_sentence(last, is_blank):
                return position
            last, is_blank = code, False
            breaks = 0
        position = after
    return end


@compiled
def _line_hash(
    data: Bytes, position: int, end: int, letters: Codes, scope: np.uint64, multipliers: Hashes, seeds: Hashes
) -> tuple[bool, np.uint64, np.uint64]:
    """(whether there is a letter, two hashes) of a line as it is written for comparison; ends trimmed."""
    high, low = _add(seeds[0] ^ scope, 1, multipliers[0]), _add(seeds[1] ^ scope, 2, multipliers[1])
    is_blank, there = False, False
    while position < end:
        code, position = _decode(data, position, end)
        letter = int(letters[code])
        if letter == _SKIP:
            continue
        if letter == _BLANK:
            is_blank = there
            continue
        if is_blank:
            high, low = _add(high, _BLANK, multipliers[0]), _add(low, _BLANK, multipliers[1])
        high, low = _add(high, letter, multipliers[0]), _add(low, letter, multipliers[1])
        is_blank, there = False, True
    return there, _finish(high), _finish(low)


@compiled
def hash_lines(
    offsets: Integers, data: Bytes, kind: int, letters: Codes, scopes: Hashes, multipliers: Hashes, seeds: Hashes
) -> tuple[Integers, Integers, Integers, Hashes, Hashes]:
    """(row, start, end, two hashes) of each line of each text that has a letter."""
    room = 1024 + (offsets[-1] - offsets[0]) // 32
    places, hashes = np.empty((3, room), np.int64), np.empty((2, room), np.uint64)
    found = 0
    for text in range(len(offsets) - 1):
        position, end = offsets[text], offsets[text + 1]
        while position < end:
            after = _line_end(data, position, end, kind, letters)
            there, high, low = _line_hash(data, position, after, letters, scopes[text], multipliers, seeds)
            if there:
                if found == places.shape[1]:
                    places = np.concatenate((places, np.empty_like(places)), axis=1)
                    hashes = np.concatenate((hashes, np.empty_like(hashes)), axis=1)
                places[0, found], places[1, found] = text, position - offsets[text]
                places[2, found] = after - offsets[text]
                hashes[0, found], hashes[1, found] = high, low
                found += 1
            position = after
    rows, starts, ends = places[0, :found].copy(), places[1, :found].copy(), places[2, :found].copy()
    return rows, starts, ends, hashes[0, :found].copy(), hashes[1, :found].copy()


@compiled
def join_lines(
    rows: Integers, starts: Integers, ends: Integers, high: Hashes, low: Hashes, window: int
) -> tuple[Integers, Integers, Integers, Hashes, Hashes]:
    """Each `window` in a row of the same text as one; a text with fewer has none."""
    room = max(0, len(rows) - window + 1)
    chosen = np.zeros(room, np.bool_)
    new_ends, new_high, new_low = np.empty(room, np.int64), np.empty(room, np.uint64), np.empty(room, np.uint64)
    for i in range(room):
        last = i + window - 1
        chosen[i] = rows[last] == rows[i]
        new_ends[i], new_high[i], new_low[i] = ends[last], high[i], low[i]
        for j in range(i + 1, last + 1):
            new_high[i] = _finish(new_high[i] * np.uint64(3) + high[j])
            new_low[i] = _finish(new_low[i] * np.uint64(5) + low[j])
    firsts = np.flatnonzero(chosen)
    return rows[firsts], starts[firsts], new_ends[firsts], new_high[firsts], new_low[firsts]
