"""Last pass, compiled: lines. Tables, headings, lists, and what marks single words.

| markup | becomes |
|---|---|
| `{| attributes`, `|-`, `|}` | nothing |
| `|+ caption` | a line |
| `| cell`, `| a || b`, `! head !! head`, also behind `attributes |` | a line a row, ` | ` between its cells |
| a row with a cell of several lines | its lines |
| `== Heading ==` | a line of its own between empty lines; nothing if nothing follows it in its section |
| `* item`, `# item`, `; term : meaning`, `: indented` | `- item`, `- item`, `term: meaning`, the line |
| `''italic''`, `'''bold'''` | the words |
| `[https://… label]`, `[https://…]` | label, nothing |
| `&nbsp;`, `&eacute;`, `&#233;` | the character, a plain space for no-break spaces |
| `__TOC__` and other switches, `----` | nothing |
| `{{` that was never closed | it and the rest of its line: nothing |
| `[[`, `]]`, `}}` that pair with nothing | nothing |
| brackets and doubled blanks that a dropped template left empty | nothing |

Rows outside a table are read too, since templates often open one. A heading ends all tables that are open, so a table
that is never closed costs nothing after its section. Output is written once; what turns out to stand for nothing (a
heading without text, an empty row) is cut off again, and a row is closed up where it lies.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sources.compiled import Scalar, kernel, part, piece
from sources.wikitext.names import Keys, Values
from sources.wikitext.words import write_words

Bytes = NDArray[np.uint8]
Heads = NDArray[np.int64]
Cells = NDArray[np.int64]

MAX_CELLS = 1 << 12
"""Cells of one row; a longer row goes on as another one."""
NO_HEADINGS, PLAIN_HEADINGS, MARKED_HEADINGS = 0, 1, 2
_DEPTH, _CELLS, _HEADS, _TABLE_FROM = 0, 1, 2, 3


@kernel
def lay_out(
    data: Bytes, size: int, out: Bytes, state: Values, heads: Heads, cells: Cells, keys: Keys, values: Values,
    codes: Values, keep_tables: int, headings: int, keep_lists: int,
) -> Scalar:  # fmt: skip
    """The length of what was written to `out`, of twice the input's length and 64 bytes more at most.

    `state` has four places, `heads` (level, start) as rows for seven, `cells` MAX_CELLS + 1 places.
    """
    i = n = 0
    state[:] = 0
    while i < size:
        end = _line_end(data, i, size)
        n = _read_line(
            data, i, end, out, n, state, heads, cells, keys, values, codes, keep_tables, headings, keep_lists
        )
        i = end + 1
    n = _end_row(out, n, state, cells, keep_tables)
    if state[_HEADS]:
        n = heads[0, 1]
    return n


@part
def _line_end(data: Bytes, i: int, size: int) -> int:
    """The next line feed outside untouched text."""
    while i < size:
        c = data[i]
        if c == 10:
            return i
        if c == 1 or c == 2:
            while i < size and data[i] != 3:
                i += 1
        i += 1
    return size


@part
def _read_line(
    data: Bytes, i: int, end: int, out: Bytes, n: int, state: Values, heads: Heads, cells: Cells, keys: Keys,
    values: Values, codes: Values, keep_tables: int, headings: int, keep_lists: int,
) -> int:  # fmt: skip
    """One line, by what it begins with."""
    mark = i
    while mark < end and (data[mark] == 32 or data[mark] == 9 or data[mark] == 58):
        mark += 1
    first = data[mark] if mark < end else 0
    second = data[mark + 1] if mark + 1 < end else 0
    depth = state[_DEPTH]
    if first == 4:
        first = 124
    if (first == 42 or first == 35) and _opens_table(data, mark, end):
        first, second = 123, 124
    if first == 123 and second == 124:
        n = _end_row(out, n, state, cells, keep_tables)
        state[_DEPTH] += 1
    elif first == 124 and second == 125 and not (mark + 2 < end and data[mark + 2] == 125):
        n = _end_row(out, n, state, cells, keep_tables)
        state[_DEPTH] = max(0, depth - 1)
        if mark + 2 < end:
            n = _write_line(data, mark + 2, end, out, n, state, keys, values, codes)
    elif first == 124 and second == 45:
        n = _end_row(out, n, state, cells, keep_tables)
    elif first == 124 and second == 43:
        n = _end_row(out, n, state, cells, keep_tables)
        n = _read_cells(data, mark + 2, end, out, n, state, cells, 0, keys, values, codes, keep_tables)
        n = _end_row(out, n, state, cells, keep_tables)
    elif first == 124 or (depth and first == 33):
        border = 33 if first == 33 else 124
        n = _read_cells(data, mark + 1, end, out, n, state, cells, border, keys, values, codes, keep_tables)
    elif first == 61 and mark == i and _heading_level(data, i, end) > (1 if depth else 0):
        n = _end_row(out, n, state, cells, keep_tables)
        state[_DEPTH] = 0
        if headings != NO_HEADINGS:
            n = _write_heading(data, i, end, out, n, state, heads, keys, values, codes, headings == MARKED_HEADINGS)
    elif depth and state[_CELLS]:
        out[n] = 10
        n = _write_marked(data, i, end, out, n + 1, keys, values, codes)
    elif depth:
        start = n
        n = _write_line(data, i, end, out, n, state, keys, values, codes) if keep_tables else n
        if n == start + 1:
            n = start
    else:
        n = _end_row(out, n, state, cells, keep_tables)
        if keep_lists or not (first == 42 or first == 35 or (i < end and data[i] == 59)):
            n = _write_line(data, i, end, out, n, state, keys, values, codes)
    return n


@piece
def _is_blank(byte: Scalar) -> Scalar:
    return byte == 32 or byte == 9


@part
def _opens_table(data: Bytes, i: int, end: int) -> bool:
    while i < end and (data[i] == 42 or data[i] == 35 or data[i] == 58 or _is_blank(data[i])):
        i += 1
    return i + 1 < end and data[i] == 123 and data[i + 1] == 124


# Lines


@part
def _write_line(
    data: Bytes, i: int, end: int, out: Bytes, n: int, state: Values, keys: Keys, values: Values, codes: Values
) -> int:
    """A line outside tables; no more than one empty line in a row."""
    start = n
    n = _write_marked(data, i, end, out, n, keys, values, codes)
    if n > start:
        state[_HEADS] = 0
    elif n < 2 or (out[n - 1] == 10 and out[n - 2] == 10):
        return n
    out[n] = 10
    return n + 1


@part
def _write_marked(data: Bytes, i: int, end: int, out: Bytes, n: int, keys: Keys, values: Values, codes: Values) -> int:
    """A line by the list marks that it begins with, without blanks at its ends; "" if nothing is left."""
    start = n
    marks = i
    last = np.int64(0)
    listed = False
    while marks < end and (
        data[marks] == 42 or data[marks] == 35 or data[marks] == 58 or data[marks] == 59 or _is_blank(data[marks])
    ):
        if not _is_blank(data[marks]):
            last = np.int64(data[marks])
            listed = listed or last == 42 or last == 35
        marks += 1
    if marks == i:
        while marks + 3 < end and data[marks] == 45 and (marks > i or _is_rule(data, i)):
            marks += 1
        if marks > i:
            while marks < end and data[marks] == 45:
                marks += 1
    if listed and last != 59:
        out[n] = 45
        out[n + 1] = 32
        n += 2
    begun = n
    colon = _term_end(data, marks, end) if last == 59 else end
    n = write_words(data, marks, colon, out, n, begun, keys, values, codes)
    if colon < end:
        while n > begun and out[n - 1] == 32:
            n -= 1
        out[n] = 58
        out[n + 1] = 32
        n = write_words(data, colon + 1, end, out, n + 2, n + 2, keys, values, codes)
    while n > begun and (_is_blank(out[n - 1]) or out[n - 1] == 10):
        n -= 1
    return n if n > begun else start


@piece
def _is_rule(data: Bytes, i: int) -> Scalar:
    return data[i] == 45 and data[i + 1] == 45 and data[i + 2] == 45 and data[i + 3] == 45


@part
def _term_end(data: Bytes, i: int, end: int) -> int:
    """The colon behind a term, not that of an address."""
    while i < end:
        if data[i] == 58 and not (i + 2 < end and data[i + 1] == 47 and data[i + 2] == 47):
            return i
        i += 1
    return end


@part
def _heading_level(data: Bytes, i: int, end: int) -> int:
    """1 to 6, or 0 if the line is no heading: equal signs at both ends and something between."""
    while end > i and _is_blank(data[end - 1]):
        end -= 1
    level = 0
    while level < 6 and 2 * (level + 1) < end - i and data[i + level] == 61 and data[end - 1 - level] == 61:
        level += 1
    return level


@part
def _write_heading(
    data: Bytes, i: int, end: int, out: Bytes, n: int, state: Values, heads: Heads, keys: Keys, values: Values,
    codes: Values, marked: int,
) -> int:  # fmt: skip
    """Headings wait on `heads` until text follows; one of the same or a higher level before that removes them."""
    level = _heading_level(data, i, end)
    while end > i and _is_blank(data[end - 1]):
        end -= 1
    while state[_HEADS] and heads[state[_HEADS] - 1, 0] >= level:
        state[_HEADS] -= 1
        n = heads[state[_HEADS], 1]
    heads[state[_HEADS], 0] = level
    heads[state[_HEADS], 1] = n
    start = n
    if n and not (n >= 2 and out[n - 2] == 10):
        out[n] = 10
        n += 1
    if marked:
        for k in range(level):
            out[n + k] = 35
        out[n + level] = 32
        n += level + 1
    begun = n
    first, last = i + level, end - level
    while first < last and (_is_blank(data[first]) or data[first] == 61):
        first += 1
    while last > first and (_is_blank(data[last - 1]) or data[last - 1] == 61):
        last -= 1
    n = write_words(data, first, last, out, n, begun, keys, values, codes)
    for k in range(begun, n):
        if out[k] == 10:
            out[k] = 32
    while n > begun and out[n - 1] == 32:
        n -= 1
    if n == begun:
        return start
    state[_HEADS] += 1
    out[n] = out[n + 1] = 10
    return n + 2


# Tables


@part
def _read_cells(
    data: Bytes, i: int, end: int, out: Bytes, n: int, state: Values, cells: Cells, border: int, keys: Keys,
    values: Values, codes: Values, keep_tables: int,
) -> int:  # fmt: skip
    """The cells of a line, each behind three bytes of room for what will stand between it and the one before."""
    while True:
        stop = i
        while stop < end and not (
            border
            and stop + 1 < end
            and (
                ((data[stop] == 124 or data[stop] == 4) and (data[stop + 1] == 124 or data[stop + 1] == 4))
                or (border == 33 and data[stop] == 33 and data[stop + 1] == 33)
            )
        ):
            stop += 1
        if state[_CELLS] == MAX_CELLS:
            n = _end_row(out, n, state, cells, keep_tables)
        out[n] = out[n + 1] = out[n + 2] = 0
        n += 3
        cells[state[_CELLS]] = n
        state[_CELLS] += 1
        first = i
        for k in range(i, stop):
            if data[k] == 124 or data[k] == 4:
                first = k + 1
                break
        n = _write_marked(data, first, stop, out, n, keys, values, codes)
        if stop == end:
            return n
        i = stop + 2


@part
def _end_row(out: Bytes, n: int, state: Values, cells: Cells, keep_tables: int) -> Scalar:
    """Close up the row that ends here: its cells in one line, or all lines of theirs if one cell has several."""
    count = state[_CELLS]
    if not count:
        return n
    state[_CELLS] = 0
    start = cells[0] - 3
    if state[_DEPTH] and not keep_tables:
        return start
    cells[count] = n + 3
    separator = 32
    for k in range(count):
        if _count_lines(out, cells[k], cells[k + 1] - 3) > 1:
            separator = 10
    n = start
    for k in range(count):
        n = _append_cell(out, n, start, cells[k], cells[k + 1] - 3, separator)
    if n == start:
        return start
    state[_HEADS] = 0
    out[n] = 10
    return n + 1


@part
def _count_lines(out: Bytes, first: int, last: int) -> int:
    """Lines that are not empty."""
    lines = 0
    blank = True
    for i in range(first, last):
        if out[i] == 10:
            blank = True
        elif blank and not _is_blank(out[i]):
            blank = False
            lines += 1
    return lines


@part
def _append_cell(out: Bytes, n: int, start: int, first: int, last: int, separator: int) -> int:
    while first < last and (_is_blank(out[first]) or out[first] == 10):
        first += 1
    while last > first and (_is_blank(out[last - 1]) or out[last - 1] == 10):
        last -= 1
    if first == last:
        return n
    if n > start:
        if separator == 10:
            out[n] = 10
            n += 1
        else:
            out[n] = out[n + 2] = 32
            out[n + 1] = 124
            n += 3
    for i in range(first, last):
        if out[i] != 10 or out[n - 1] != 10:
            out[n] = out[i]
            n += 1
    return n
