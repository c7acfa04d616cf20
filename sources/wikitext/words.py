"""A piece of the last pass: the words of a line, without what marks single ones of them.

It reads any bytes between its bounds, and writes at most twice as many; the rules are in `sources.wikitext.layout`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sources.compiled import Scalar, part
from sources.utf8 import write_character
from sources.wikitext.names import ENTITY, PRIME, Keys, Values

Bytes = NDArray[np.uint8]

_SPECIAL = np.zeros(256, np.uint8)
_SPECIAL[[*range(10), *range(11, 32), *b"'[]{}&_ ,.;:)", 0xC2, 0xE3, 0xEF]] = 1
_WINDOWS_1252 = np.array(
    [ord(bytes([code]).decode("cp1252", "replace")) for code in range(128, 160)], np.int64
)  # fmt: skip


@part
def write_words(
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
    if code < 32 and code != 10 and code != 9:
        return n
    return write_character(out, n, 32 if code == 160 else code)
