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

from sources.compiled import Scalar, kernel, part
from sources.pages.elements import (
    BLOCK_BREAK,
    CELL_BREAK,
    LINE_BREAK,
    MAX_DEPTH,
    N_ELEMENTS,
    N_NOTES,
    N_RUNS,
    NO_BREAK,
    SPACE,
    SPACE_BEFORE,
    TOP,
    Elements,
    Known,
    Runs,
    Scratch,
    add_note,
    add_run,
    close_implied,
    close_tag,
    close_to,
    note_break,
    open_element,
)
from sources.pages.letters import (
    FNV,
    PRIME,
    contains_bytes,
    find_byte,
    find_raw_end,
    has_text,
    hash_bytes,
    hash_tag,
    is_space,
    look_up,
    next_attribute,
    same_bytes,
    skip_markup,
    starts_markup,
    words_of,
)
from sources.pages.names import (
    BLOCK,
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
MAX_NOTES = 512
MAX_ATTRIBUTES = 200
"""Attributes of one tag that are looked at; the rest of the tag is skipped."""

TEXT, PREFORMATTED, TEX = 0, 1, 2
"""What a run is: text whose white space means nothing, text as it stands, a formula as TeX."""
NOTE_TITLE, NOTE_META, NOTE_LINK, NOTE_HTML, NOTE_JSON, NOTE_LICENCE, NOTE_TIME = range(7)
"""What of a page says something about it: three columns of `Scan.notes` are the kind, and its first and last byte."""

_PRE_MARK = 1 << list(MARKS).index("pre")

_HTML, _HEAD, _BODY, _BR, _A, _META, _LINK, _TITLE = (
    TAG[name] for name in ("html", "head", "body", "br", "a", "meta", "link", "title")
)
_SCRIPT, _MATH, _TD, _TH, _ANNOTATION, _TIME = (
    TAG[name] for name in ("script", "math", "td", "th", "annotation", "time")
)


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
    """The scan of a page in UTF-8. Memory: about 90 bytes a `<`, which ends a run and may begin a formula."""
    room = data.count(b"<") + 2
    tag, parent, first_run, last_run = (np.empty(room, np.int32) for _ in range(4))
    marks, words, above = (np.empty(room, np.int64) for _ in range(3))
    elements = Elements(tag, parent, marks, words, above, np.empty(room, np.uint64), first_run, last_run)
    start, end, holder = (np.empty(2 * room, np.int32) for _ in range(3))
    runs = Runs(start, end, holder, np.empty(2 * room, np.int8), np.empty(2 * room, np.int8))
    notes, state = np.empty((MAX_NOTES, 3), np.int32), np.zeros(6, np.int64)
    scratch = Scratch(np.empty(MAX_DEPTH + 1, np.int32), np.zeros(5, np.int64), np.zeros(9, np.int64), state)
    _scan(np.frombuffer(data, np.uint8), _KNOWN, elements, runs, notes, scratch)
    count, read = int(state[N_ELEMENTS]), int(state[N_RUNS])
    columns: list[Array] = [column[:count] for column in elements]
    columns += [*(column[:read] for column in runs), notes[: int(state[N_NOTES])]]
    return Scan(data, *columns)


_KNOWN = Known(TAG_TABLE.keys, TAG_TABLE.values, CLASS_TABLE.keys, CLASS_TABLE.values, FLAGS, TAG_MARKS)


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


_HAS_TEX, _TEX_START, _TEX_END, _IS_JSON, _IS_TEX, _OWN, _MARK, _SIGNATURE, _TAG_END = range(9)


@part
def _find_annotation(src: Array, at: Scalar, facts: Array) -> None:
    """The TeX in a <math> that begins before `at`: the text of its annotation, if it has one within 20,000 bytes."""
    stop = min(len(src) - 17, at + 20_000)
    while at < stop:
        at = find_byte(src, at, 60)
        if at + 7 < len(src) and (src[at + 1] | 32) != 97 and same_bytes(src, at + 2, at + 6, _MATH_NAME):
            return
        if at + 6 < len(src) and same_bytes(src, at + 1, at + 5, _MATH_NAME):
            return
        if at + 11 < len(src) and same_bytes(src, at + 1, at + 11, _ANNOTATION_NAME) and src[at + 11] != 45:
            end = find_byte(src, at, 62)
            if contains_bytes(src, at, min(end, at + 200), _X_TEX):
                facts[_HAS_TEX], facts[_TEX_START], facts[_TEX_END] = 1, end + 1, find_byte(src, end, 60)
            return
        at += 1


@part
def _read_attributes(src: Array, at: Scalar, tag: Scalar, known: Known, scratch: Scratch, notes: Array) -> None:
    """Everything that the attributes of a start tag say, in `facts`."""
    place, facts, state = scratch.place, scratch.facts, scratch.state
    class_keys, class_values = known.class_keys, known.class_values
    facts[:] = 0
    own, mark, seen = np.int64(0), np.int64(0), 0
    value = FNV
    while True:
        at = next_attribute(src, at, place)
        if at < 0:
            break
        seen += 1
        if seen > MAX_ATTRIBUTES:
            place[4] = find_byte(src, place[3], 62)
            break
        start, end, first, last = place[0], place[1], place[2], place[3]
        length = end - start
        if length == 5 and same_bytes(src, start, end, _CLASS):
            own |= words_of(src, first, last, class_keys, class_values)
            value = hash_bytes(src, first, min(last, first + 60), value)
            if last - first == 10 and same_bytes(src, first, last, _KATEX):
                mark |= UNSHOWN
        elif length == 2 and same_bytes(src, start, end, _ID):
            own |= words_of(src, first, last, class_keys, class_values)
        elif length == 4 and same_bytes(src, start, end, _ROLE):
            own |= words_of(src, first, last, class_keys, class_values)
        elif length == 4 and tag == _SCRIPT and same_bytes(src, start, end, _TYPE):
            facts[_IS_JSON] = contains_bytes(src, first, min(last, first + 60), _LD_JSON)
            facts[_IS_TEX] = contains_bytes(src, first, min(last, first + 60), _MATH_TEX)
        elif length == 4 and tag == _A and same_bytes(src, start, end, _HREF):
            if contains_bytes(src, first, min(last, first + 60), _CC):
                add_note(notes, state, NOTE_LICENCE, first, last)
        elif length == 8 and (same_bytes(src, start, end, _ITEMPROP) or same_bytes(src, start, end, _ITEM)):
            own |= words_of(src, first, last, class_keys, class_values)
        elif length == 6 and same_bytes(src, start, end, _HIDDEN):
            mark |= HIDDEN
        elif length == 11 and same_bytes(src, start, end, _ARIA):
            if same_bytes(src, first, last, _TRUE):
                mark |= HIDDEN
        elif length == 11 and same_bytes(src, start, end, _TEST):
            own |= words_of(src, first, last, class_keys, class_values)
        elif length == 5 and same_bytes(src, start, end, _STYLE_NAME):
            stop = min(last, first + 200)
            if contains_bytes(src, first, stop, _NONE) or contains_bytes(src, first, stop, _NONE_SPACED):
                mark |= HIDDEN
        elif tag == _MATH and length == 7 and same_bytes(src, start, end, _ALTTEXT):
            facts[_HAS_TEX] = 1
            facts[_TEX_START] = first
            facts[_TEX_END] = last
        elif tag == _ANNOTATION and same_bytes(src, start, end, _ENCODING) and same_bytes(src, first, last, _X_TEX):
            facts[_IS_TEX] = 1
    facts[_OWN], facts[_MARK], facts[_TAG_END] = own, mark, place[4]
    facts[_SIGNATURE] = np.int64((value ^ np.uint64(tag)) * PRIME)


@part
def _read_text(src: Array, at: Scalar, elements: Elements, runs: Runs, scratch: Scratch) -> Scalar:
    """The text up to the next markup: a run, if it is shown and is more than white space. Where that markup begins."""
    start, size, state = at, len(src), scratch.state
    at = find_byte(src, at, 60)
    while at + 1 < size and not starts_markup(src[at + 1]):
        at = find_byte(src, at + 1, 60)
    if at + 1 >= size:
        at = size
    mark = elements.marks[scratch.stack[state[TOP] - 1]]
    if at > start and not mark & UNSHOWN:
        if mark & _PRE_MARK:
            add_run(runs, scratch.stack, state, start, at, PREFORMATTED)
        elif has_text(src, start, at):
            add_run(runs, scratch.stack, state, start, at, TEXT)
        else:
            state[SPACE] = SPACE_BEFORE
    return at


@part
def _note_tag(notes: Array, state: Array, tag: Scalar, start: Scalar, end: Scalar) -> None:
    if tag == _META:
        add_note(notes, state, NOTE_META, start, end)
    elif tag == _LINK:
        add_note(notes, state, NOTE_LINK, start, end)
    elif tag == _HTML:
        add_note(notes, state, NOTE_HTML, start, end)
    elif tag == _TIME:
        add_note(notes, state, NOTE_TIME, start, end)


@part
def _read_formula(
    src: Array, at: Scalar, tag: Scalar, raw_end: Scalar, elements: Elements, runs: Runs, scratch: Scratch
) -> Scalar:
    """The TeX of a formula whose start tag ends before `at`, as a run; whether it has any."""
    facts, state = scratch.facts, scratch.state
    if tag == _SCRIPT:
        facts[_HAS_TEX], facts[_TEX_START], facts[_TEX_END] = facts[_IS_TEX], at, raw_end
    elif not facts[_HAS_TEX]:
        _find_annotation(src, at, facts)
    if not facts[_HAS_TEX] or elements.marks[scratch.stack[state[TOP] - 1]] & UNSHOWN:
        return False
    add_run(runs, scratch.stack, state, facts[_TEX_START], facts[_TEX_END], TEX)
    return True


@part
def _read_start(
    src: Array, at: Scalar, name: Scalar, after: Scalar, tag: Scalar, known: Known, elements: Elements, runs: Runs,
    notes: Array, scratch: Scratch,
) -> Scalar:  # fmt: skip
    """A start tag at `at` whose name is `name` to `after`; of an element without markup, all of it. Where to go on."""
    size, flag, stack, facts, state = len(src), known.flags[tag], scratch.stack, scratch.facts, scratch.state
    _read_attributes(src, after, tag, known, scratch, notes)
    start, at = at, min(facts[_TAG_END] + 1, size)
    _note_tag(notes, state, tag, start, at)
    if tag == _HTML or tag == _HEAD or (tag == _BODY and state[TOP] > 1 and elements.tag[stack[1]] == _BODY):
        return at
    if flag & VOID:
        note_break(state, LINE_BREAK if tag == _BR else BLOCK_BREAK if flag & BLOCK else NO_BREAK)
        return at
    close_implied(elements, known.flags, stack, state, tag)
    if flag & BLOCK:
        note_break(state, CELL_BREAK if tag == _TD or tag == _TH else BLOCK_BREAK)
    raw_end = find_raw_end(src, at, name, after) if flag & RAW else at
    mark = known.tag_marks[tag] | facts[_MARK]
    if (tag == _MATH or tag == _SCRIPT) and _read_formula(src, at, tag, raw_end, elements, runs, scratch):
        mark |= UNSHOWN
    if tag == _TITLE and not elements.marks[stack[state[TOP] - 1]] & UNSHOWN:
        add_note(notes, state, NOTE_TITLE, at, raw_end)
    elif tag == _SCRIPT and facts[_IS_JSON]:
        add_note(notes, state, NOTE_JSON, at, raw_end)
    if flag & RAW and flag & UNSEEN:
        return min(size, find_byte(src, raw_end, 62) + 1)
    open_element(elements, stack, state, tag, facts[_OWN], mark, np.uint64(facts[_SIGNATURE]))
    if flag & RAW and raw_end > at:
        add_run(runs, stack, state, at, raw_end, PREFORMATTED)
    return raw_end


@part
def _read_tag(
    src: Array, at: Scalar, known: Known, elements: Elements, runs: Runs, notes: Array, scratch: Scratch
) -> Scalar:
    """The start or end tag at `at`; where to go on."""
    closing = src[at + 1] == 47
    name = at + 2 if closing else at + 1
    after, stop = name, min(len(src), name + 40)
    while after < stop and not is_space(src[after]) and src[after] != 62 and src[after] != 47:
        after += 1
    tag = look_up(known.tag_keys, known.tag_values, hash_tag(src, name, after))
    if not closing:
        return _read_start(src, at, name, after, tag, known, elements, runs, notes, scratch)
    if tag == _BR:
        note_break(scratch.state, LINE_BREAK)
    if after > name:
        close_tag(elements, known.flags, scratch.stack, scratch.state, tag)
    return find_byte(src, after, 62) + 1


@kernel
def _scan(src: Array, known: Known, elements: Elements, runs: Runs, notes: Array, scratch: Scratch) -> None:
    at: Scalar = 0
    open_element(elements, scratch.stack, scratch.state, _HTML, 0, 0, np.uint64(0))
    while at < len(src):
        at = _read_text(src, at, elements, runs, scratch)
        if at < len(src):
            other = src[at + 1] == 33 or src[at + 1] == 63
            at = skip_markup(src, at) if other else _read_tag(src, at, known, elements, runs, notes, scratch)
    close_to(elements, known.flags, scratch.stack, scratch.state, 0)
