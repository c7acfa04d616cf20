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
from sources.wikitext.names import ENTITY, PRIME, Keys, Values

Bytes = NDArray[np.uint8]
Heads = NDArray[np.int64]
Cells = NDArray[np.int64]

MAX_CELLS = 1 << 12
"""Cells of one row; a longer row goes on as another one."""
_DEPTH, _CELLS, _HEADS, _TABLE_FROM = 0, 1, 2, 3
_SPECIAL = np.zeros(256, np.uint8)
_SPECIAL[[*range(10), *range(11, 32), *b"'[]{}&_ ,.;:)", 0xC2, 0xE3, 0xEF]] = 1
_WINDOWS_1252 = np.array(
    [ord(bytes([code]).decode("cp1252", "replace")) for code in range(128, 160)], np.int64
)  # fmt: skip


@kernel
def lay_out(
    data: Bytes, size: int, out: Bytes, state: Values, heads: Heads, cells: Cells, keys: Keys, values: Values,
    codes: Values, keep_tables: int, marked_headings: int,
) -> Scalar:  # fmt: skip
    """The length of what was written to `out`, of twice the input's length and 64 bytes more at most.

    `state` has four places, `heads` (level, start) as rows for seven, `cells` MAX_CELLS + 1 places.
    """
    i = n = 0
    state[:] = 0
    while i < size:
        end = _line_end(data, i, size)
        n = _read_line(data, i, end, out, n, state, heads, cells, keys, values, codes, keep_tables, marked_headings)
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
    values: Values, codes: Values, keep_tables: int, marked_headings: int,
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
        n = _write_heading(data, i, end, out, n, state, heads, keys, values, codes, marked_headings)
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
    n = _write_words(data, marks, colon, out, n, begun, keys, values, codes)
    if colon < end:
        while n > begun and out[n - 1] == 32:
            n -= 1
        out[n] = 58
        out[n + 1] = 32
        n = _write_words(data, colon + 1, end, out, n + 2, n + 2, keys, values, codes)
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
    n = _write_words(data, first, last, out, n, begun, keys, values, codes)
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


# Words


@part
def _write_words(
    data: Bytes, i: int, end: int, out: Bytes, n: int, begun: int, keys: Keys, values: Values, codes: Values
) -> int:
    """The words of data[i:end]; `begun` is where the line begins in `out`."""
    label_end = -1
    while i < end:
        c = data[i]
        if not _SPECIAL[c]:
            out[n] = c
            n += 1
            i += 1
            continue
        following = data[i + 1] if i + 1 < end else 0
        if c == 32 or c == 9:
            i += 1
            if n > begun and out[n - 1] != 32 and out[n - 1] != 10 and out[n - 1] != 40:
                out[n] = 32
                n += 1
        elif c == 44 or c == 46 or c == 59 or c == 58:
            n = _write_mark(data, i, end, out, n, begun)
            i += 1
        elif c == 39 and following == 39:
            first = i
            while i < end and data[i] == 39:
                i += 1
            count = i - first
            for _ in range(1 if count == 4 else max(0, count - 5)):
                out[n] = 39
                n += 1
        elif c == 91:
            i, n, label_end = _open_bracket(data, i, end, out, n, label_end)
        elif c == 93:
            if i == label_end:
                i += 1
            elif following == 93 and i + 1 != label_end:
                i += 2
            else:
                out[n] = 93
                n += 1
                i += 1
        elif c == 123 and following == 123:
            return n
        elif c == 125 and following == 125:
            while i < end and data[i] == 125:
                i += 1
        elif c == 38:
            i, n = _write_entity(data, i, end, out, n, keys, values, codes)
        elif c == 95 and following == 95:
            i, n = _pass_switch(data, i, end, out, n)
        elif c == 0xC2 and following == 0xA0:
            i += 2
            if n > begun and out[n - 1] != 32:
                out[n] = 32
                n += 1
        elif c == 41:
            n = _close_bracket(out, n, begun, 1)
            i += 1
        elif c == 0xEF or c == 0xE3:
            i, n = _write_wide(data, i, end, out, n, begun)
        elif c == 1 or c == 2:
            i, n = _write_untouched(data, i, end, out, n, keys, values, codes)
        else:
            i += 1
            if c == 11:
                while n > begun and out[n - 1] == 32:
                    n -= 1
                if n == begun or (n >= begun + 2 and out[n - 1] == 10 and out[n - 2] == 10):
                    continue
                c = 10
            elif c == 4:
                c = 124
            elif c < 32 or ((c == 123 or c == 125) and n > begun and out[n - 1] == c):
                continue
            out[n] = c
            n += 1
    return n


@part
def _write_mark(data: Bytes, i: int, end: int, out: Bytes, n: int, begun: int) -> int:
    """`,` `.` `;` `:` without the blank before it, if a blank follows; nothing at the beginning of a bracket."""
    c = data[i]
    at = n
    while at > begun and out[at - 1] == 32:
        at -= 1
    if c != 46 and at > begun and out[at - 1] == 40 and (at < n or i + 1 == end or data[i + 1] == 32):
        return at
    if c != 58 and at < n and at > begun and (i + 1 == end or data[i + 1] == 32 or data[i + 1] == 11):
        n = at
    out[n] = c
    return n + 1


@part
def _close_bracket(out: Bytes, n: int, begun: int, width: int) -> int:
    """A closing bracket, or if only blanks and separators stand behind the opening one, neither of them."""
    at = n
    while at > begun and n - at < 20 and (out[at - 1] == 32 or out[at - 1] == 44 or out[at - 1] == 59):
        at -= 1
    if width == 1 and at > begun and out[at - 1] == 40:
        at -= 1
        return at - 1 if at > begun and out[at - 1] == 32 else at
    if width == 3 and at - 3 >= begun and out[at - 3] == 0xEF and out[at - 2] == 0xBC and out[at - 1] == 0x88:
        return at - 3
    if width == 1:
        out[n] = 41
        return n + 1
    out[n], out[n + 1], out[n + 2] = 0xEF, 0xBC, 0x89
    return n + 3


@part
def _write_wide(data: Bytes, i: int, end: int, out: Bytes, n: int, begun: int) -> tuple[int, int]:
    """Full-width brackets that hold nothing, and separators behind an opening one, go."""
    if i + 2 < end and data[i] == 0xEF and data[i + 1] == 0xBC and data[i + 2] == 0x89:
        return i + 3, _close_bracket(out, n, begun, 3)
    if i + 2 < end and n - 3 >= begun and out[n - 3] == 0xEF and out[n - 2] == 0xBC and out[n - 1] == 0x88:
        comma = data[i] == 0xE3 and data[i + 1] == 0x80 and data[i + 2] == 0x81
        wide = data[i] == 0xEF and data[i + 1] == 0xBC
        if comma or (wide and (data[i + 2] == 0x8C or data[i + 2] == 0x9B or data[i + 2] == 0x9A)):
            return i + 3, n
    out[n] = data[i]
    return i + 1, n + 1


@part
def _open_bracket(data: Bytes, i: int, end: int, out: Bytes, n: int, label_end: int) -> tuple[int, int, int]:
    """`[https://… label]`: the label, and where its bracket is; `[[`: nothing; any other bracket as it is."""
    address = _address_end(data, i + 1, end)
    stop = address
    while address > 0 and stop < end and data[stop] != 93 and data[stop] != 91:
        stop += 1
    if address > 0 and stop < end and data[stop] == 93:
        while address < stop and data[address] == 32:
            address += 1
        return address, n, stop
    if i + 1 < end and data[i + 1] == 91:
        return i + 2, n, label_end
    out[n] = 91
    return i + 1, n + 1, label_end


@part
def _address_end(data: Bytes, i: int, end: int) -> int:
    """Where the address that begins here ends, 0 if none does: `//…`, `https://…`, `mailto:…`."""
    start = i
    while i < end and i < start + 8 and 97 <= data[i] | 32 <= 122:
        i += 1
    mail = i - start == 6 and data[start] | 32 == 109 and data[i - 1] | 32 == 111 and i < end and data[i] == 58
    if not mail:
        if i > start:
            if i - start < 3 or i == end or data[i] != 58:
                return 0
            i += 1
        if not (i + 1 < end and data[i] == 47 and data[i + 1] == 47):
            return 0
    while i < end and data[i] > 32 and data[i] != 91 and data[i] != 93 and data[i] != 60 and data[i] != 62:
        i += 1
    return i


@part
def _pass_switch(data: Bytes, i: int, end: int, out: Bytes, n: int) -> tuple[int, int]:
    """`__TOC__` and the like: 3 to 60 bytes of letters between two underscores on each side."""
    at = i + 2
    while at < end and at - i < 62 and (97 <= data[at] | 32 <= 122 or data[at] >= 128):
        at += 1
    if at - i >= 5 and at + 1 < end and data[at] == 95 and data[at + 1] == 95:
        return at + 2, n
    while i < end and data[i] == 95:
        out[n] = 95
        n += 1
        i += 1
    return i, n


@part
def _write_untouched(
    data: Bytes, i: int, end: int, out: Bytes, n: int, keys: Keys, values: Values, codes: Values
) -> tuple[int, int]:
    entities = data[i] == 2
    i += 1
    while i < end and data[i] != 3:
        if entities and data[i] == 38:
            i, n = _write_entity(data, i, end, out, n, keys, values, codes)
        else:
            out[n] = data[i]
            n += 1
            i += 1
    return i + 1, n


# Entities


@part
def _write_entity(
    data: Bytes, i: int, end: int, out: Bytes, n: int, keys: Keys, values: Values, codes: Values
) -> tuple[int, int]:
    """`&name;` `&#233;` `&#xE9;`: the character; anything else is an ampersand."""
    stop = i + 1
    while stop < end and stop < i + 34 and data[stop] != 59 and data[stop] > 32 and data[stop] != 38:
        stop += 1
    if stop < end and data[stop] == 59 and stop > i + 1:
        if data[i + 1] == 35:
            code = _number(data, i + 2, stop)
            if code >= 0:
                return stop + 1, _write_code(out, n, code)
        else:
            state: Scalar = ENTITY
            for k in range(i + 1, stop):
                state = (state ^ np.int64(data[k])) * PRIME
            mask = len(keys) - 1
            place = (state ^ (state >> 32)) & mask
            while keys[place] and keys[place] != state:
                place = (place + 1) & mask
            if keys[place]:
                pair = values[place]
                n = _write_code(out, n, codes[2 * pair])
                if codes[2 * pair + 1]:
                    n = _write_code(out, n, codes[2 * pair + 1])
                return stop + 1, n
    out[n] = 38
    return i + 1, n + 1


@part
def _number(data: Bytes, i: int, end: int) -> Scalar:
    base = 10
    if i < end and data[i] | 32 == 120:
        base = 16
        i += 1
    if i == end:
        return -1
    code: Scalar = 0
    for k in range(i, end):
        c = np.int64(data[k])
        digit = c - 48 if c <= 57 else (c | 32) - 87
        if digit < 0 or digit >= base or (c > 57 and (c | 32) < 97):
            return -1
        code = min(code * base + digit, 0x110000)
    if 128 <= code < 160:
        return np.int64(_WINDOWS_1252[code - 128])
    return 0xFFFD if code > 0x10FFFF or 0xD800 <= code < 0xE000 or code == 0 else code


@part
def _write_code(out: Bytes, n: int, code: int) -> int:
    """A character as UTF-8; no-break spaces as plain ones, controls not at all."""
    if code == 160:
        code = 32
    if code < 0x80:
        if code >= 32 or code == 10 or code == 9:
            out[n] = code
            return n + 1
        return n
    if code < 0x800:
        out[n] = 0xC0 | code >> 6
        out[n + 1] = 0x80 | code & 63
        return n + 2
    if code < 0x10000:
        out[n] = 0xE0 | code >> 12
        out[n + 1] = 0x80 | code >> 6 & 63
        out[n + 2] = 0x80 | code & 63
        return n + 3
    out[n] = 0xF0 | code >> 18
    out[n + 1] = 0x80 | code >> 12 & 63
    out[n + 2] = 0x80 | code >> 6 & 63
    out[n + 3] = 0x80 | code & 63
    return n + 4
