"""A page's bytes to elements and runs of text: one pass, in time that grows with the bytes alone.

Invariant: runs are in the order of the page; an element's runs are `first_run` to `last_run`; elements come after their
parents. Ends that HTML lets authors leave out (`</p>`, `</li>`, `</td>`) are supplied, ends that match nothing are
passed over. Elements deeper than 256 are scanned as if they stood at that depth, as browsers do (at 512).

No DOM of a library: selectolax and resiliparse parse 150 MB/s, but asking their trees from Python costs 1 µs an
attribute, 20 ms a page of 140 KB; this takes 0.4 ms with all that `blocks` asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sources.pages.compiled import Scalar, kernel, piece
from sources.pages.names import (
    BLOCK,
    CELL,
    CLASS_TABLE,
    FLAGS,
    HIDDEN,
    MARKS,
    RAW,
    TAG,
    TAG_MARKS,
    TAG_TABLE,
    UNSEEN,
    UNSHOWN,
    VOID,
)

Array = npt.NDArray[Any]
MAX_DEPTH = 256
MAX_NOTES = 512
MAX_ATTRIBUTES = 200
"""Attributes of one tag that are looked at; the rest of the tag is skipped."""

NO_BREAK, LINE_BREAK, BLOCK_BREAK, CELL_BREAK = 0, 1, 2, 3
SPACE_BEFORE = 8
"""What stands between a run and the one before it; a bit says that white space does, too."""
TEXT, PREFORMATTED, TEX = 0, 1, 2
"""What a run is: text whose white space means nothing, text as it stands, a formula as TeX."""
NOTE_TITLE, NOTE_META, NOTE_LINK, NOTE_HTML, NOTE_JSON, NOTE_LICENCE, NOTE_TIME = range(7)
"""What of a page says something about it: three columns of `Scan.notes` are the kind, and its first and last byte."""

_N_ELEMENTS, _N_RUNS, _N_NOTES, _BREAK, _TOP = range(5)
_PRE_MARK = 1 << list(MARKS).index("pre")
_FNV, _PRIME = np.uint64(14695981039346656037), np.uint64(1099511628211)
_S, _LT, _GT = np.uint8(ord("s")), np.uint64(ord("<")), np.uint64(ord(">"))

_HTML, _HEAD, _BODY, _P, _LI, _BR, _A = (TAG[name] for name in ("html", "head", "body", "p", "li", "br", "a"))
_META, _LINK, _TITLE, _SCRIPT, _PRE, _MATH = (TAG[name] for name in ("meta", "link", "title", "script", "pre", "math"))
_DT, _DD, _TR, _TD, _TH, _TABLE = (TAG[name] for name in ("dt", "dd", "tr", "td", "th", "table"))
_OPTION, _SVG, _ANNOTATION, _UL, _OL, _DL = (TAG[name] for name in ("option", "svg", "annotation", "ul", "ol", "dl"))
_STYLE, _BASE, _NOSCRIPT, _TEMPLATE = (TAG[name] for name in ("style", "base", "noscript", "template"))
_THEAD, _TBODY, _TFOOT, _XMP = (TAG[name] for name in ("thead", "tbody", "tfoot", "xmp"))
_TIME = TAG["time"]


@dataclass(frozen=True, slots=True)
class Scan:
    """Elements, runs and notes of a page as columns; `source` is its UTF-8."""

    source: bytes
    tag: Array
    parent: Array
    marks: Array
    words: Array
    above: Array
    signature: Array
    first_run: Array
    last_run: Array
    run_start: Array
    run_end: Array
    run_element: Array
    run_break: Array
    run_kind: Array
    notes: Array


def scan_page(data: bytes) -> Scan:
    """The scan of a page in UTF-8. Memory: about 60 bytes a `<`."""
    source = np.frombuffer(data, np.uint8)
    room = data.count(b"<") + 2
    integers = [np.empty(room, np.int32) for _ in range(6)]
    tag, parent, first_run, last_run, start, end = integers
    marks, words, above = (np.empty(room, np.int64) for _ in range(3))
    signature = np.empty(room, np.uint64)
    run_element = np.empty(room, np.int32)
    run_break, run_kind = np.empty(room, np.int8), np.empty(room, np.int8)
    notes = np.empty((MAX_NOTES, 3), np.int32)
    state = np.zeros(5, np.int64)
    _scan(
        source, TAG_TABLE.keys, TAG_TABLE.values, CLASS_TABLE.keys, CLASS_TABLE.values, FLAGS, TAG_MARKS,
        tag, parent, marks, words, above, signature, first_run, last_run,
        start, end, run_element, run_break, run_kind, notes, np.empty(MAX_DEPTH + 1, np.int32), np.zeros(5, np.int64),
        np.zeros(9, np.int64), state,
    )  # fmt: skip
    elements, runs = int(state[_N_ELEMENTS]), int(state[_N_RUNS])
    return Scan(
        data, tag[:elements], parent[:elements], marks[:elements], words[:elements], above[:elements],
        signature[:elements], first_run[:elements], last_run[:elements],
        start[:runs], end[:runs], run_element[:runs], run_break[:runs], run_kind[:runs], notes[: int(state[_N_NOTES])],
    )  # fmt: skip


@piece
def _lower(byte: Scalar) -> Scalar:
    return byte + 32 if 65 <= byte <= 90 else byte


@piece
def _is_letter(byte: Scalar) -> Scalar:
    return 97 <= (byte | 32) <= 122


@piece
def _is_space(byte: Scalar) -> Scalar:
    return byte == 32 or 9 <= byte <= 13


@piece
def _starts_markup(byte: Scalar) -> Scalar:
    """Whether `<` before this byte is markup: a letter, `/`, `!` or `?`."""
    return _is_letter(byte) or byte == 47 or byte == 33 or byte == 63


@piece
def _find(src: Array, at: Scalar, byte: Scalar) -> Scalar:
    while at < len(src) and src[at] != byte:
        at += 1
    return at


@piece
def _look_up(keys: Array, values: Array, key: Scalar) -> Scalar:
    mask = np.uint64(len(keys) - 1)
    place = key & mask
    while keys[place] != 0:
        if keys[place] == key:
            return values[place]
        place = (place + np.uint64(1)) & mask
    return np.int64(0)


@piece
def _hash_tag(src: Array, start: Scalar, end: Scalar) -> Scalar:
    value = (_FNV ^ _LT) * _PRIME
    for at in range(start, end):
        value = (value ^ np.uint64(_lower(src[at]))) * _PRIME
    return (value ^ _GT) * _PRIME


@piece
def _hash_word(src: Array, start: Scalar, end: Scalar) -> Scalar:
    if end > start and _lower(src[end - 1]) == _S:
        end -= 1
    value = _FNV
    for at in range(start, end):
        value = (value ^ np.uint64(_lower(src[at]))) * _PRIME
    return value


@piece
def _hash_bytes(src: Array, start: Scalar, end: Scalar, value: Scalar) -> Scalar:
    for at in range(start, end):
        value = (value ^ np.uint64(src[at])) * _PRIME
    return value


@piece
def _words_of(src: Array, start: Scalar, end: Scalar, keys: Array, values: Array) -> Scalar:
    """The groups of the words in a value: cut at what is no letter and where a lower-case letter meets a capital."""
    found = np.int64(0)
    at = start
    end = min(end, start + 400)
    while at < end:
        while at < end and not _is_letter(src[at]):
            at += 1
        first = at
        while at < end and _is_letter(src[at]) and not (at > first and src[at] < 97 and src[at - 1] >= 97):
            at += 1
        if at > first + 1:
            found |= _look_up(keys, values, _hash_word(src, first, at))
    return found


@piece
def _same(src: Array, start: Scalar, end: Scalar, name: Array) -> Scalar:
    """Whether the bytes are `name` (given in lower case), whatever their case."""
    if end - start != len(name):
        return False
    for at in range(len(name)):
        if _lower(src[start + at]) != name[at]:
            return False
    return True


@piece
def _contains(src: Array, start: Scalar, end: Scalar, name: Array) -> Scalar:
    for at in range(start, end - len(name) + 1):
        if _same(src, at, at + len(name), name):
            return True
    return False


_NAMES = tuple(
    np.frombuffer(name, np.uint8)
    for name in (
        b"class", b"id", b"role", b"itemprop", b"hidden", b"aria-hidden", b"style", b"type", b"alttext", b"encoding",
        b"href", b"data-testid", b"itemtype",
    )
)  # fmt: skip
_CLASS, _ID, _ROLE, _ITEMPROP, _HIDDEN, _ARIA, _STYLE_NAME = _NAMES[:7]
_TYPE, _ALTTEXT, _ENCODING, _HREF, _TEST, _ITEM = _NAMES[7:]
_TRUE, _NONE = np.frombuffer(b"true", np.uint8), np.frombuffer(b"display:none", np.uint8)
_NONE_SPACED = np.frombuffer(b"display: none", np.uint8)
_LD_JSON, _MATH_TEX = np.frombuffer(b"ld+json", np.uint8), np.frombuffer(b"math/tex", np.uint8)
_X_TEX, _CC = np.frombuffer(b"application/x-tex", np.uint8), np.frombuffer(b"creativecommons.org/", np.uint8)
_MATH_NAME, _ANNOTATION_NAME = np.frombuffer(b"math", np.uint8), np.frombuffer(b"annotation", np.uint8)
_KATEX = np.frombuffer(b"katex-html", np.uint8)


@piece
def _push(
    tags: Array,
    parents: Array,
    marks: Array,
    words: Array,
    above: Array,
    signature: Array,
    first_run: Array,
    last_run: Array,
    stack: Array,
    state: Array,
    tag: Scalar,
    own: Scalar,
    mark: Scalar,
    sig: Scalar,
) -> Scalar:
    """A new element under the top of the stack; at the greatest depth it takes the top's place."""
    number = state[_N_ELEMENTS]
    state[_N_ELEMENTS] += 1
    if state[_TOP] >= MAX_DEPTH:
        last_run[stack[state[_TOP] - 1]] = state[_N_RUNS]
        state[_TOP] -= 1
    parent = stack[state[_TOP] - 1] if state[_TOP] else -1
    tags[number] = tag
    parents[number] = parent
    words[number] = own
    marks[number] = mark | (marks[parent] if parent >= 0 else 0)
    above[number] = own | (above[parent] if parent >= 0 else 0)
    signature[number] = sig
    first_run[number] = state[_N_RUNS]
    last_run[number] = state[_N_RUNS]
    stack[state[_TOP]] = number
    state[_TOP] += 1
    return number


@piece
def _break(state: Array, kind: Scalar) -> None:
    if kind > state[_BREAK]:
        state[_BREAK] = kind


@piece
def _pop_to(tags: Array, flags: Array, last_run: Array, stack: Array, state: Array, depth: Scalar) -> None:
    """Close everything from the top of the stack down to and including `depth`."""
    while state[_TOP] > depth:
        state[_TOP] -= 1
        closed = stack[state[_TOP]]
        last_run[closed] = state[_N_RUNS]
        if flags[tags[closed]] & BLOCK:
            _break(state, BLOCK_BREAK)


@piece
def _depth_of(
    tags: Array, stack: Array, state: Array, first: Scalar, second: Scalar, barrier: Scalar, other_barrier: Scalar
) -> Scalar:
    """Where in the stack the innermost of two tags stands, above any barrier; -1 if nowhere."""
    for depth in range(state[_TOP] - 1, -1, -1):
        tag = tags[stack[depth]]
        if tag == first or tag == second:
            return depth
        if tag == barrier or tag == other_barrier or tag == _TABLE:
            return -1
    return -1


@piece
def _close_implied(tags: Array, flags: Array, last_run: Array, stack: Array, state: Array, tag: Scalar) -> None:
    """The ends that the start of `tag` implies."""
    depth = -1
    if tag == _LI:
        depth = _depth_of(tags, stack, state, _LI, _LI, _UL, _OL)
    elif tag == _DT or tag == _DD:
        depth = _depth_of(tags, stack, state, _DT, _DD, _DL, _DL)
    elif tag == _TD or tag == _TH:
        depth = _depth_of(tags, stack, state, _TD, _TH, _TR, _TR)
    elif tag == _TR:
        depth = _depth_of(tags, stack, state, _TR, _TR, _TBODY, _THEAD)
    elif tag == _TBODY or tag == _THEAD or tag == _TFOOT:
        depth = max(
            _depth_of(tags, stack, state, _TBODY, _THEAD, _TABLE, _TABLE),
            _depth_of(tags, stack, state, _TFOOT, _TFOOT, _TABLE, _TABLE),
        )
    elif tag == _OPTION:
        depth = _depth_of(tags, stack, state, _OPTION, _OPTION, _TABLE, _TABLE)
    elif tag == _A:
        depth = _depth_of(tags, stack, state, _A, _A, _TD, _TH)
    elif flags[tag] & BLOCK and not flags[tag] & CELL:
        depth = _depth_of(tags, stack, state, _P, _P, _TD, _TH)
    if depth >= 0:
        _pop_to(tags, flags, last_run, stack, state, depth)


@piece
def _close(tags: Array, flags: Array, last_run: Array, stack: Array, state: Array, tag: Scalar) -> None:
    """An end tag: ends of inline elements do not close blocks, ends of others close no table around them."""
    if tag == _HTML or tag == _BODY or tag == 0 and state[_TOP] == 0:
        return
    for depth in range(state[_TOP] - 1, -1, -1):
        found = tags[stack[depth]]
        if found == tag:
            _pop_to(tags, flags, last_run, stack, state, depth)
            return
        if not flags[tag] & CELL and flags[found] & CELL:
            return
        if not flags[tag] & BLOCK and flags[found] & BLOCK and tag != 0:
            return


@piece
def _add_run(
    src: Array,
    starts: Array,
    ends: Array,
    elements: Array,
    breaks: Array,
    kinds: Array,
    stack: Array,
    state: Array,
    start: Scalar,
    end: Scalar,
    kind: Scalar,
) -> None:
    number = state[_N_RUNS]
    starts[number] = start
    ends[number] = end
    elements[number] = stack[state[_TOP] - 1]
    breaks[number] = state[_BREAK]
    kinds[number] = kind
    state[_N_RUNS] += 1
    state[_BREAK] = NO_BREAK


@piece
def _note(notes: Array, state: Array, kind: Scalar, start: Scalar, end: Scalar) -> None:
    number = state[_N_NOTES]
    if number < len(notes):
        notes[number, 0] = kind
        notes[number, 1] = start
        notes[number, 2] = end
        state[_N_NOTES] += 1


@piece
def _has_text(src: Array, start: Scalar, end: Scalar) -> Scalar:
    for at in range(start, end):
        if not _is_space(src[at]):
            return True
    return False


@piece
def _find_raw_end(src: Array, at: Scalar, start: Scalar, end: Scalar) -> Scalar:
    """Where `</name` of the raw element begins, or the end of the page."""
    size = end - start
    while True:
        at = _find(src, at, 60)
        if at + size + 2 > len(src):
            return len(src)
        if src[at + 1] == 47:
            same = True
            for offset in range(size):
                if _lower(src[at + 2 + offset]) != _lower(src[start + offset]):
                    same = False
                    break
            if same:
                return at
        at += 1


@piece
def _skip_markup(src: Array, at: Scalar) -> Scalar:
    """Past a comment, a doctype, a processing instruction or a CDATA section that begins at `at`."""
    size = len(src)
    if at + 3 < size and src[at + 1] == 33 and src[at + 2] == 45 and src[at + 3] == 45:
        at += 4
        if at < size and src[at] == 62:
            return at + 1
        while at + 2 < size:
            at = _find(src, at, 45)
            if at + 2 < size and src[at + 1] == 45 and (src[at + 2] == 62 or src[at + 2] == 33):
                return _find(src, at + 2, 62) + 1
            at += 1
        return size
    return _find(src, at, 62) + 1


@piece
def _next_attribute(src: Array, at: Scalar, place: Array) -> Scalar:
    """One attribute from `at`: name and value as four offsets in `place`; returns where to go on, or -1 at `>`."""
    size = len(src)
    while at < size and (_is_space(src[at]) or src[at] == 47):
        at += 1
    if at >= size or src[at] == 62:
        place[4] = at
        return -1
    place[0] = at
    at += 1
    while at < size and not _is_space(src[at]) and src[at] != 61 and src[at] != 62 and src[at] != 47:
        at += 1
    place[1] = at
    place[2] = at
    place[3] = at
    ahead = at
    while ahead < size and _is_space(src[ahead]):
        ahead += 1
    if ahead >= size or src[ahead] != 61:
        return at
    at = ahead + 1
    while at < size and _is_space(src[at]):
        at += 1
    if at < size and (src[at] == 34 or src[at] == 39):
        place[2] = at + 1
        at = _find(src, at + 1, src[at])
        place[3] = at
        return min(at + 1, size)
    place[2] = at
    while at < size and not _is_space(src[at]) and src[at] != 62:
        at += 1
    place[3] = at
    return at


_HAS_TEX, _TEX_START, _TEX_END, _IS_JSON, _IS_TEX, _OWN, _MARK, _SIGNATURE, _TAG_END = range(9)


@piece
def _find_annotation(src: Array, at: Scalar, facts: Array) -> None:
    """The TeX in a <math> that begins before `at`: the text of its annotation, if it has one within 20,000 bytes."""
    stop = min(len(src) - 17, at + 20_000)
    while at < stop:
        at = _find(src, at, 60)
        if at + 7 < len(src) and (src[at + 1] | 32) != 97 and _same(src, at + 2, at + 6, _MATH_NAME):
            return
        if at + 6 < len(src) and _same(src, at + 1, at + 5, _MATH_NAME):
            return
        if at + 11 < len(src) and _same(src, at + 1, at + 11, _ANNOTATION_NAME) and src[at + 11] != 45:
            end = _find(src, at, 62)
            if _contains(src, at, min(end, at + 200), _X_TEX):
                facts[_HAS_TEX], facts[_TEX_START], facts[_TEX_END] = 1, end + 1, _find(src, end, 60)
            return
        at += 1


@piece
def _read_attributes(
    src: Array,
    at: Scalar,
    tag: Scalar,
    class_keys: Array,
    class_values: Array,
    place: Array,
    facts: Array,
    notes: Array,
    state: Array,
) -> None:
    """Everything that the attributes of a start tag say, in `facts`."""
    facts[:] = 0
    own, mark, seen = np.int64(0), np.int64(0), 0
    value = _FNV
    while True:
        at = _next_attribute(src, at, place)
        if at < 0:
            break
        seen += 1
        if seen > MAX_ATTRIBUTES:
            place[4] = _find(src, place[3], 62)
            break
        start, end, first, last = place[0], place[1], place[2], place[3]
        length = end - start
        if length == 5 and _same(src, start, end, _CLASS):
            own |= _words_of(src, first, last, class_keys, class_values)
            value = _hash_bytes(src, first, min(last, first + 60), value)
            if last - first == 10 and _same(src, first, last, _KATEX):
                mark |= UNSHOWN
        elif length == 2 and _same(src, start, end, _ID):
            own |= _words_of(src, first, last, class_keys, class_values)
        elif length == 4 and _same(src, start, end, _ROLE):
            own |= _words_of(src, first, last, class_keys, class_values)
        elif length == 4 and tag == _SCRIPT and _same(src, start, end, _TYPE):
            facts[_IS_JSON] = _contains(src, first, min(last, first + 60), _LD_JSON)
            facts[_IS_TEX] = _contains(src, first, min(last, first + 60), _MATH_TEX)
        elif length == 4 and tag == _A and _same(src, start, end, _HREF):
            if _contains(src, first, min(last, first + 60), _CC):
                _note(notes, state, NOTE_LICENCE, first, last)
        elif length == 8 and (_same(src, start, end, _ITEMPROP) or _same(src, start, end, _ITEM)):
            own |= _words_of(src, first, last, class_keys, class_values)
        elif length == 6 and _same(src, start, end, _HIDDEN):
            mark |= HIDDEN
        elif length == 11 and _same(src, start, end, _ARIA):
            if _same(src, first, last, _TRUE):
                mark |= HIDDEN
        elif length == 11 and _same(src, start, end, _TEST):
            own |= _words_of(src, first, last, class_keys, class_values)
        elif length == 5 and _same(src, start, end, _STYLE_NAME):
            stop = min(last, first + 200)
            if _contains(src, first, stop, _NONE) or _contains(src, first, stop, _NONE_SPACED):
                mark |= HIDDEN
        elif tag == _MATH and length == 7 and _same(src, start, end, _ALTTEXT):
            facts[_HAS_TEX] = 1
            facts[_TEX_START] = first
            facts[_TEX_END] = last
        elif tag == _ANNOTATION and _same(src, start, end, _ENCODING) and _same(src, first, last, _X_TEX):
            facts[_IS_TEX] = 1
    facts[_OWN], facts[_MARK], facts[_TAG_END] = own, mark, place[4]
    facts[_SIGNATURE] = np.int64((value ^ np.uint64(tag)) * _PRIME)


@kernel
def _scan(
    src: Array,
    tag_keys: Array,
    tag_values: Array,
    class_keys: Array,
    class_values: Array,
    flags: Array,
    tag_marks: Array,
    tags: Array,
    parents: Array,
    marks: Array,
    words: Array,
    above: Array,
    signature: Array,
    first_run: Array,
    last_run: Array,
    starts: Array,
    ends: Array,
    elements: Array,
    breaks: Array,
    kinds: Array,
    notes: Array,
    stack: Array,
    place: Array,
    facts: Array,
    state: Array,
) -> None:
    size = len(src)
    at: Scalar = 0
    space = False
    _push(tags, parents, marks, words, above, signature, first_run, last_run, stack, state, _HTML, 0, 0, np.uint64(0))
    while at < size:
        start = at
        at = _find(src, at, 60)
        while at + 1 < size and not _starts_markup(src[at + 1]):
            at = _find(src, at + 1, 60)
        if at + 1 >= size:
            at = size
        if at > start:
            top = stack[state[_TOP] - 1]
            if not marks[top] & UNSHOWN:
                in_pre = marks[top] & _PRE_MARK
                if in_pre or _has_text(src, start, at):
                    kind = PREFORMATTED if in_pre else TEXT
                    _add_run(src, starts, ends, elements, breaks, kinds, stack, state, start, at, kind)
                    if space:
                        breaks[state[_N_RUNS] - 1] |= SPACE_BEFORE
                    space = False
                else:
                    space = True
        if at >= size:
            break
        if src[at + 1] == 33 or src[at + 1] == 63:
            at = _skip_markup(src, at)
            continue
        closing = src[at + 1] == 47
        name = at + 2 if closing else at + 1
        after = name
        while (
            after < size and not _is_space(src[after]) and src[after] != 62 and src[after] != 47 and after < name + 40
        ):
            after += 1
        if closing and after == name:
            at = _find(src, after, 62) + 1
            continue
        tag = _look_up(tag_keys, tag_values, _hash_tag(src, name, after))
        if closing:
            _close(tags, flags, last_run, stack, state, tag)
            if tag == _BR:
                _break(state, LINE_BREAK)
            at = _find(src, after, 62) + 1
            continue
        _read_attributes(src, after, tag, class_keys, class_values, place, facts, notes, state)
        end = facts[_TAG_END] + 1
        if tag == _META:
            _note(notes, state, NOTE_META, at, min(end, size))
        elif tag == _LINK:
            _note(notes, state, NOTE_LINK, at, min(end, size))
        elif tag == _HTML:
            _note(notes, state, NOTE_HTML, at, min(end, size))
        elif tag == _TIME:
            _note(notes, state, NOTE_TIME, at, min(end, size))
        at = end
        if tag == _HTML or tag == _HEAD or (tag == _BODY and state[_TOP] > 1 and tags[stack[1]] == _BODY):
            continue
        flag = flags[tag]
        if flag & VOID:
            if tag == _BR:
                _break(state, LINE_BREAK)
            elif flag & BLOCK:
                _break(state, BLOCK_BREAK)
            continue
        _close_implied(tags, flags, last_run, stack, state, tag)
        if flag & BLOCK:
            _break(state, CELL_BREAK if tag == _TD or tag == _TH else BLOCK_BREAK)
        mark = tag_marks[tag] | facts[_MARK]
        if tag == _MATH or tag == _SCRIPT and facts[_IS_TEX]:
            if tag == _SCRIPT:
                facts[_TEX_START] = at
                facts[_TEX_END] = _find_raw_end(src, at, name, after)
                facts[_HAS_TEX] = 1
            elif not facts[_HAS_TEX]:
                _find_annotation(src, at, facts)
            if facts[_HAS_TEX] and not marks[stack[state[_TOP] - 1]] & UNSHOWN:
                _add_run(
                    src, starts, ends, elements, breaks, kinds, stack, state, facts[_TEX_START], facts[_TEX_END], TEX
                )
                mark |= UNSHOWN
        raw_end = np.int64(-1)
        if flag & RAW:
            raw_end = _find_raw_end(src, at, name, after)
            if tag == _TITLE and not marks[stack[state[_TOP] - 1]] & UNSHOWN:
                _note(notes, state, NOTE_TITLE, at, raw_end)
            elif tag == _SCRIPT and facts[_IS_JSON]:
                _note(notes, state, NOTE_JSON, at, raw_end)
        if raw_end >= 0 and flag & UNSEEN:
            at = min(size, _find(src, raw_end, 62) + 1)
            continue
        _push(
            tags, parents, marks, words, above, signature, first_run, last_run, stack, state,
            tag, facts[_OWN], mark, np.uint64(facts[_SIGNATURE]),
        )  # fmt: skip
        if raw_end >= 0:
            if raw_end > at:
                _add_run(src, starts, ends, elements, breaks, kinds, stack, state, at, raw_end, PREFORMATTED)
            at = raw_end
    _pop_to(tags, flags, last_run, stack, state, 0)
