"""First pass, compiled: what nests. Comments, references and tags, templates and links are resolved in one scan.

| markup | becomes |
|---|---|
| `<!-- … -->`, `<ref>…</ref>`, `<gallery>`, `<timeline>`, `<score>`, maps, graphs and the like | nothing |
| `<nowiki>…</nowiki>` | its text, untouched |
| `<pre>`, `<syntaxhighlight>`, `<source>` | its text on lines of its own, untouched |
| `<math>`, `<chem>`, `<ce>` | `$…$` with its TeX |
| `<br>`, `<p>`, `<div>`, `<li>`, … | a new line |
| other HTML and extension tags | what is between them |
| `{{template|…}}` | nothing, or a mark for `sources.wikitext.inline` if it is one that carries words |
| `{{{parameter}}}` | nothing |
| `[[target]]`, `[[target|label]]` | target, label |
| `[[Town (county)|]]`, `[[w:Town]]`, `[[:Category:Towns]]` | Town, Town, Category:Towns |
| `[[File:…]]` and its localised names | nothing, or the caption on a line of its own |
| `[[Category:…]]`, `[[fr:…]]` | nothing |
| `{{` or `[[` that is never closed | left for the last pass |

Input is copied to the output; a pair that closes is looked at where it lies there, and cut off or shortened. So each
byte is read once however deep it lies, and nothing is found by searching ahead but the end of a tag and of what it
holds. A closing tag that was looked for in vain is not looked for again. Braces pair as MediaWiki pairs them: from the
inside out, three before two. A heading ends links that are still open, and so does the seventeenth that lies in others.
Output bytes below 9 are marks: 1 and 2 … 3 hold untouched text (2: with entities), 5 … 6 a template, 4 its bars, 11 is
the new line of a tag.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sources.compiled import Scalar, kernel, part, piece
from sources.wikitext.names import NAMESPACE, PRIME, TAG, TEMPLATE, Keys, Values

Bytes = NDArray[np.uint8]
Stack = NDArray[np.int64]

DROPPED, FORMULA, BLOCK, LITERAL, BREAK, INLINE = 1, 2, 3, 4, 5, 6
"""What a tag is; the first four reach to their closing tag."""
FILE, CATEGORY, INTERWIKI = 1, 2, 3
"""What a link's prefix is."""
NAMED, PREFIXED = 1, 2
"""How a template that carries words is known."""
MAX_DEPTH = 8
"""Templates that carry words and are nested deeper go."""
MAX_LINKS = 16
"""Each link that closes reads what it holds: of more that lie in each other the outer ones are none."""
STACK_ROWS = 1 << 17
STACK_COLUMNS = 6

_AT, _BRACES, _FIRST_BAR, _LAST_BAR, _LEVEL, _LINKS = 0, 1, 2, 3, 4, 5
_SPECIAL = np.zeros(256, np.uint8)
_SPECIAL[[*range(9), *range(11, 32), *b"<{}[]|\n"]] = 1


@kernel
def resolve_structure(
    data: Bytes, size: int, out: Bytes, stack: Stack, unclosed: Values, keys: Keys, values: Values, captions: int
) -> int:
    """The length of what was written to `out`, which is as long as the input at most."""
    i = n = top = 0
    while i < size:
        c = data[i]
        if not _SPECIAL[c]:
            out[n] = c
            n += 1
            i += 1
            continue
        following = data[i + 1] if i + 1 < size else 0
        if c == 60:
            i, n = _read_tag(data, i, size, out, n, unclosed, keys, values)
        elif c == 123 and following == 123:
            i, n, top = _open_template(data, i, size, out, n, stack, top)
        elif c == 125 and following == 125:
            i, n, top = _close_templates(data, i, size, out, n, stack, top, keys, values)
        elif c == 91 and following == 91:
            top = _open_link(stack, top, n)
            out[n] = out[n + 1] = 91
            n += 2
            i += 2
        elif c == 93 and following == 93:
            if top and not stack[top - 1, _BRACES]:
                top -= 1
                n = _close_link(out, n, stack, top, keys, values, captions)
            i += 2
        else:
            i += 1
            if c == 124:
                c = _note_bar(stack, top, n)
            elif c == 10 and following == 61:
                while top and not stack[top - 1, _BRACES]:
                    top -= 1
            elif c < 32 and c != 10:
                continue
            out[n] = c
            n += 1
    return n


@piece
def _push(stack: Stack, top: int, at: int, braces: int) -> int:
    if top == STACK_ROWS:
        return top
    stack[top, _AT] = at
    stack[top, _BRACES] = braces
    stack[top, _FIRST_BAR] = -1
    stack[top, _LAST_BAR] = -1
    stack[top, _LEVEL] = 0
    stack[top, _LINKS] = (stack[top - 1, _LINKS] if top else 0) + (braces == 0)
    return top + 1


@piece
def _open_link(stack: Stack, top: int, at: int) -> int:
    """Around a link that lies too deep those up to the next template are none, and in too many templates it is none."""
    if top and stack[top - 1, _LINKS] == MAX_LINKS:
        while top and not stack[top - 1, _BRACES]:
            top -= 1
    return _push(stack, top, at, 0) if not top or stack[top - 1, _LINKS] < MAX_LINKS else top


@piece
def _note_bar(stack: Stack, top: int, n: int) -> int:
    """What a bar is written as: a template's own is a mark."""
    if not top:
        return 124
    if stack[top - 1, _BRACES]:
        return 4
    stack[top - 1, _LAST_BAR] = n
    if stack[top - 1, _FIRST_BAR] < 0:
        stack[top - 1, _FIRST_BAR] = n
    return 124


@piece
def _fold(byte: Scalar) -> Scalar:
    if 65 <= byte <= 90:
        return byte + 32
    return 32 if byte == 95 else byte


@piece
def _look_up(state: int, keys: Keys, values: Values) -> Scalar:
    mask = len(keys) - 1
    place = (state ^ (state >> 32)) & mask
    while keys[place]:
        if keys[place] == state:
            return values[place]
        place = (place + 1) & mask
    return 0


@part
def _find_name(data: Bytes, start: int, end: int, seed: int, keys: Keys, values: Values) -> Scalar:
    state = seed
    for i in range(start, end):
        state = (state ^ _fold(np.int64(data[i]))) * PRIME
    return _look_up(state, keys, values)


@piece
def _is_blank(byte: Scalar) -> Scalar:
    return byte == 32 or byte == 9 or byte == 10 or byte == 95


# Templates


@part
def _open_template(data: Bytes, i: int, size: int, out: Bytes, n: int, stack: Stack, top: int) -> tuple[int, int, int]:
    start = i
    while i < size and data[i] == 123:
        out[n + i - start] = 123
        i += 1
    top = _push(stack, top, n, i - start)
    return i, n + i - start, top


@part
def _close_templates(
    data: Bytes, i: int, size: int, out: Bytes, n: int, stack: Stack, top: int, keys: Keys, values: Values
) -> tuple[int, int, int]:
    """All pairs that a run of closing braces ends; braces that end none are written, and go in the last pass."""
    count = 0
    while i < size and data[i] == 125:
        count += 1
        i += 1
    while count >= 2:
        while top and not stack[top - 1, _BRACES]:
            top -= 1
        if not top:
            break
        entry = stack[top - 1]
        width = 3 if entry[_BRACES] >= 3 and count >= 3 else 2
        count -= width
        entry[_BRACES] -= width
        n = _settle_template(out, n, entry, width, keys, values)
        if entry[_BRACES] < 2:
            level = entry[_LEVEL]
            top -= 1
            if top and stack[top - 1, _LEVEL] < level:
                stack[top - 1, _LEVEL] = level
    for _ in range(count):
        out[n] = 125
        n += 1
    return i, n, top


@part
def _settle_template(out: Bytes, n: int, entry: Stack, width: int, keys: Keys, values: Values) -> Scalar:
    start = entry[_AT] + entry[_BRACES]
    if width == 3 or entry[_LEVEL] >= MAX_DEPTH or not _carries_words(out, start + 2, n, keys, values):
        entry[_LEVEL] = 0
        return start
    entry[_LEVEL] += 1
    out[start] = 5
    out[start + 1] = 32
    out[n] = 6
    return n + 1


@part
def _carries_words(out: Bytes, start: int, end: int, keys: Keys, values: Values) -> Scalar:
    while start < end and _is_blank(out[start]):
        start += 1
    last = start
    while last < end and last < start + 100 and out[last] > 9 and out[last] != 10:
        last += 1
    while last > start and _is_blank(out[last - 1]):
        last -= 1
    state = TEMPLATE
    for i in range(start, last):
        c = np.int64(out[i])
        state = (state ^ _fold(c)) * PRIME
        if (c == 45 or c == 58 or c == 47 or c == 32) and _look_up(state, keys, values) == PREFIXED:
            return PREFIXED
    return _look_up(state, keys, values)


# Links


@part
def _close_link(out: Bytes, n: int, stack: Stack, top: int, keys: Keys, values: Values, captions: int) -> int:
    """The link that begins at its `[[` in `out` and ends at n, by the text that stands for it."""
    start = stack[top, _AT]
    bar = stack[top, _FIRST_BAR]
    first, last = start + 2, bar if bar >= 0 else n
    while first < last and _is_blank(out[first]):
        first += 1
    while last > first and _is_blank(out[last - 1]):
        last -= 1
    colon = -1
    for i in range(first, last):
        if out[i] == 10:
            return _move(out, start + 2, n, start)
        if out[i] == 58 and colon < 0:
            colon = i
    label = bar + 1 if bar >= 0 else n
    labelled = _has_words(out, label, n)
    if colon < 0:
        if labelled:
            return _move(out, label, n, start)
        if bar < 0 and first < last and out[first] == 35:
            first += 1
        return _move(out, first, _without_brackets(out, first, last) if bar >= 0 else last, start)
    if colon == first:
        return _move(out, label, n, start) if labelled else _move(out, first + 1, last, start)
    return _close_prefixed(out, n, start, first, colon, last, label, labelled, bar, stack[top, _LAST_BAR],
                           keys, values, captions)  # fmt: skip


@part
def _close_prefixed(
    out: Bytes, n: int, start: int, first: int, colon: int, last: int, label: int, labelled: bool, bar: int,
    last_bar: int, keys: Keys, values: Values, captions: int,
) -> int:  # fmt: skip
    """A link whose target has a prefix: a file, a category, another wiki, or a title with a colon."""
    end = colon
    while end > first and _is_blank(out[end - 1]):
        end -= 1
    kind = _find_name(out, first, end, NAMESPACE, keys, values) if end - first < 60 else 0
    if kind == FILE and captions and last_bar >= 0 and _is_caption(out, last_bar + 1, n):
        n = _move(out, last_bar + 1, n, start + 1)
        out[start] = out[n] = 11
        return n + 1
    if kind == FILE or kind == CATEGORY:
        return start
    if labelled:
        return _move(out, label, n, start)
    if kind != INTERWIKI and bar < 0:
        return start if _is_language(out, first, colon) else _move(out, first, last, start)
    first = colon + 1
    if kind == INTERWIKI:
        for i in range(first, last):
            if out[i] == 58:
                first = i + 1
    return _move(out, first, _without_brackets(out, first, last) if bar >= 0 else last, start)


@part
def _move(out: Bytes, first: int, last: int, to: int) -> int:
    for i in range(first, last):
        out[to + i - first] = out[i]
    return to + max(0, last - first)


@part
def _has_words(out: Bytes, first: int, last: int) -> bool:
    for i in range(first, last):
        if not _is_blank(out[i]):
            return True
    return False


@part
def _is_caption(out: Bytes, first: int, last: int) -> bool:
    """Words, not `thumb` or `200px` or `alt=…`: a blank with something on both sides, no `=` in the first word."""
    words = inside = 0
    for i in range(first, last):
        if out[i] == 61 and words <= 1:
            return False
        blank = _is_blank(out[i])
        words += not blank and not inside
        inside = not blank
    return words > 1


@part
def _without_brackets(out: Bytes, first: int, last: int) -> int:
    """The end of a title without the bracket at its end, of ASCII or full width."""
    end = last
    if end > first and out[end - 1] == 41:
        while end > first and out[end - 1] != 40:
            end -= 1
        end -= 1
    elif end - 3 >= first and out[end - 3] == 0xEF and out[end - 2] == 0xBC and out[end - 1] == 0x89:
        while end - 3 >= first and not (out[end - 3] == 0xEF and out[end - 2] == 0xBC and out[end - 1] == 0x88):
            end -= 1
        end -= 3
    if end <= first:
        return last
    while end > first and _is_blank(out[end - 1]):
        end -= 1
    return end


@part
def _is_language(out: Bytes, first: int, last: int) -> bool:
    """`de`, `ltg`, `simple`, `zh-yue`, `be-x-old`: two or three letters, and more only behind a hyphen."""
    hyphen = last
    for i in range(first, last):
        c = out[i]
        if c == 45 and hyphen == last:
            hyphen = i
        elif not (97 <= c <= 122 or c == 45):
            return False
    head = hyphen - first
    if hyphen < last:
        return 2 <= head <= 3 and 3 <= last - hyphen <= 13
    return 2 <= head <= 3 or (head == 6 and out[first] == 115 and out[first + 1] == 105 and out[first + 5] == 101)


# Tags


@part
def _read_tag(
    data: Bytes, i: int, size: int, out: Bytes, n: int, unclosed: Values, keys: Keys, values: Values
) -> tuple[int, int]:
    """What begins with `<`: the place after it, and the new length of the output."""
    if i + 3 < size and data[i + 1] == 33 and data[i + 2] == 45 and data[i + 3] == 45:
        return _pass_comment(data, i + 4, size), n
    closing = i + 1 < size and data[i + 1] == 47
    first = i + 2 if closing else i + 1
    last = first
    while last < size and last < first + 20 and (97 <= data[last] | 32 <= 122 or 48 <= data[last] <= 57):
        last += 1
    found = _find_name(data, first, last, TAG, keys, values) if last > first else 0
    end = _find_tag_end(data, last, size) if found else -1
    if end < 0:
        out[n] = 60
        return i + 1, n + 1
    kind, number = found & 15, found >> 4
    if kind == INLINE:
        return end, n
    if kind == BREAK:
        out[n] = 11
        return end, n + 1
    if closing or data[end - 2] == 47 or unclosed[number]:
        return end, n
    stop = _find_closing(data, end, size, first, last)
    if stop < 0:
        unclosed[number] = 1
        return end, n
    n = _write_literal(data, end, stop, out, n, kind) if kind != DROPPED else n
    return _find_tag_end(data, stop, size), n


@part
def _pass_comment(data: Bytes, i: int, size: int) -> int:
    while i < size:
        if data[i] == 62 and data[i - 1] == 45 and data[i - 2] == 45:
            return i + 1
        i += 1
    return size


@part
def _find_tag_end(data: Bytes, i: int, size: int) -> int:
    """The place after the `>` of a tag, -1 if it is none: what follows a name, or another `<` before the end."""
    if i < size and not (data[i] <= 32 or data[i] == 47 or data[i] == 62 or data[i] == 60):
        return -1
    start = i
    quoted = False
    while i < size:
        c = data[i]
        if c == 34:
            quoted = not quoted
        elif c == 62 and not quoted:
            return i + 1
        elif c == 60 and i > start:
            break
        i += 1
    stop = i
    for i in range(start, stop):
        if data[i] == 62:
            return i + 1
    return -1


@part
def _find_closing(data: Bytes, i: int, size: int, first: int, last: int) -> int:
    """Where the closing tag of the name data[first:last] begins, -1 if there is none."""
    width = last - first
    while i + width + 2 < size:
        if data[i] == 60 and data[i + 1] == 47:
            k = 0
            while k < width and data[i + 2 + k] | 32 == data[first + k] | 32:
                k += 1
            end = i + 2 + width
            while k == width and end < size and _is_blank(data[end]):
                end += 1
            if k == width and end < size and data[end] == 62:
                return i
        i += 1
    return -1


@part
def _write_literal(data: Bytes, first: int, last: int, out: Bytes, n: int, kind: int) -> int:
    if kind == FORMULA:
        return _write_formula(data, first, last, out, n)
    if kind == BLOCK:
        while first < last and data[first] == 10:
            first += 1
        while last > first and data[last - 1] == 10:
            last -= 1
        out[n] = 10
        n += 1
    out[n] = 2
    n += 1
    for i in range(first, last):
        if data[i] >= 32 or data[i] == 10 or data[i] == 9:
            out[n] = data[i]
            n += 1
    out[n] = 3
    n += 1
    if kind == BLOCK:
        out[n] = 10
        n += 1
    return n


@part
def _write_formula(data: Bytes, first: int, last: int, out: Bytes, n: int) -> int:
    """`$…$`, white space as single blanks."""
    out[n] = 1
    out[n + 1] = 36
    n += 2
    start = n
    for i in range(first, last):
        c = data[i]
        if c > 32:
            out[n] = c
            n += 1
        elif n > start and out[n - 1] != 32:
            out[n] = 32
            n += 1
    if n > start and out[n - 1] == 32:
        n -= 1
    out[n] = 36
    out[n + 1] = 3
    return n + 2
