"""The tree that a scan builds: open elements on a stack, ends that HTML leaves out, runs of text; pieces of the kernel.

Invariant: an element's place in the columns is greater than its parent's; at MAX_DEPTH a new element takes the place of
the innermost, so the stack is bounded.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy.typing as npt

from sources.compiled import Scalar, part
from sources.pages.names import BLOCK, CELL, TAG

Array = npt.NDArray[Any]
MAX_DEPTH = 256
NO_BREAK, LINE_BREAK, BLOCK_BREAK, CELL_BREAK = 0, 1, 2, 3
SPACE_BEFORE = 8
"""What stands between a run and the one before it; a bit says that white space does, too."""
N_ELEMENTS, N_RUNS, N_NOTES, BREAK, TOP, SPACE = range(6)
"""Places of the state: counters, what stands before the next run, how many elements are open."""

_HTML, _BODY, _P, _LI, _A, _DT, _DD = (TAG[name] for name in ("html", "body", "p", "li", "a", "dt", "dd"))
_TR, _TD, _TH, _TABLE, _OPTION = (TAG[name] for name in ("tr", "td", "th", "table", "option"))
_UL, _OL, _DL, _THEAD, _TBODY, _TFOOT = (TAG[name] for name in ("ul", "ol", "dl", "thead", "tbody", "tfoot"))


class Elements(NamedTuple):
    """Columns of elements: `marks` and `above` are of the element and all around it, `words` its own."""

    tag: Array
    parent: Array
    marks: Array
    words: Array
    above: Array
    signature: Array
    first_run: Array
    last_run: Array


class Runs(NamedTuple):
    """Columns of runs of text: bytes of the page, element, what stands before it, what it is."""

    start: Array
    end: Array
    element: Array
    between: Array
    kind: Array


class Known(NamedTuple):
    """The tables of names."""

    tag_keys: Array
    tag_values: Array
    class_keys: Array
    class_values: Array
    flags: Array
    tag_marks: Array


class Scratch(NamedTuple):
    """What a scan writes on: the open elements, an attribute's place, what a tag's attributes say, counters."""

    stack: Array
    place: Array
    facts: Array
    state: Array


@part
def open_element(
    elements: Elements, stack: Array, state: Array, tag: Scalar, own: Scalar, mark: Scalar, signature: Scalar
) -> None:
    """A new element under the top of the stack; at the greatest depth it takes the top's place."""
    number = state[N_ELEMENTS]
    state[N_ELEMENTS] += 1
    if state[TOP] >= MAX_DEPTH:
        elements.last_run[stack[state[TOP] - 1]] = state[N_RUNS]
        state[TOP] -= 1
    parent = stack[state[TOP] - 1] if state[TOP] else -1
    elements.tag[number] = tag
    elements.parent[number] = parent
    elements.words[number] = own
    elements.marks[number] = mark | (elements.marks[parent] if parent >= 0 else 0)
    elements.above[number] = own | (elements.above[parent] if parent >= 0 else 0)
    elements.signature[number] = signature
    elements.first_run[number] = state[N_RUNS]
    elements.last_run[number] = state[N_RUNS]
    stack[state[TOP]] = number
    state[TOP] += 1


@part
def note_break(state: Array, kind: Scalar) -> None:
    if kind > state[BREAK]:
        state[BREAK] = kind


@part
def close_to(elements: Elements, flags: Array, stack: Array, state: Array, depth: Scalar) -> None:
    """Close everything from the top of the stack down to and including `depth`."""
    while state[TOP] > depth:
        state[TOP] -= 1
        closed = stack[state[TOP]]
        elements.last_run[closed] = state[N_RUNS]
        if flags[elements.tag[closed]] & BLOCK:
            note_break(state, BLOCK_BREAK)


@part
def depth_of(
    elements: Elements,
    stack: Array,
    state: Array,
    first: Scalar,
    second: Scalar,
    barrier: Scalar,
    other_barrier: Scalar,
) -> Scalar:
    """Where in the stack the innermost of two tags stands, above any barrier; -1 if nowhere."""
    for depth in range(state[TOP] - 1, -1, -1):
        tag = elements.tag[stack[depth]]
        if tag == first or tag == second:
            return depth
        if tag == barrier or tag == other_barrier or tag == _TABLE:
            return -1
    return -1


@part
def close_implied(elements: Elements, flags: Array, stack: Array, state: Array, tag: Scalar) -> None:
    """The ends that the start of `tag` implies."""
    depth = -1
    if tag == _LI:
        depth = depth_of(elements, stack, state, _LI, _LI, _UL, _OL)
    elif tag == _DT or tag == _DD:
        depth = depth_of(elements, stack, state, _DT, _DD, _DL, _DL)
    elif tag == _TD or tag == _TH:
        depth = depth_of(elements, stack, state, _TD, _TH, _TR, _TR)
    elif tag == _TR:
        depth = depth_of(elements, stack, state, _TR, _TR, _TBODY, _THEAD)
    elif tag == _TBODY or tag == _THEAD or tag == _TFOOT:
        depth = max(
            depth_of(elements, stack, state, _TBODY, _THEAD, _TABLE, _TABLE),
            depth_of(elements, stack, state, _TFOOT, _TFOOT, _TABLE, _TABLE),
        )
    elif tag == _OPTION:
        depth = depth_of(elements, stack, state, _OPTION, _OPTION, _TABLE, _TABLE)
    elif tag == _A:
        depth = depth_of(elements, stack, state, _A, _A, _TD, _TH)
    elif flags[tag] & BLOCK and not flags[tag] & CELL:
        depth = depth_of(elements, stack, state, _P, _P, _TD, _TH)
    if depth >= 0:
        close_to(elements, flags, stack, state, depth)


@part
def close_tag(elements: Elements, flags: Array, stack: Array, state: Array, tag: Scalar) -> None:
    """An end tag: ends of inline elements do not close blocks, ends of others close no table around them."""
    if tag == _HTML or tag == _BODY or tag == 0 and state[TOP] == 0:
        return
    for depth in range(state[TOP] - 1, -1, -1):
        found = elements.tag[stack[depth]]
        if found == tag:
            close_to(elements, flags, stack, state, depth)
            return
        if not flags[tag] & CELL and flags[found] & CELL:
            return
        if not flags[tag] & BLOCK and flags[found] & BLOCK and tag != 0:
            return


@part
def add_run(runs: Runs, stack: Array, state: Array, start: Scalar, end: Scalar, kind: Scalar) -> None:
    number = state[N_RUNS]
    runs.start[number] = start
    runs.end[number] = end
    runs.element[number] = stack[state[TOP] - 1]
    runs.between[number] = state[BREAK] | state[SPACE]
    runs.kind[number] = kind
    state[N_RUNS] += 1
    state[BREAK], state[SPACE] = NO_BREAK, 0


@part
def add_note(notes: Array, state: Array, kind: Scalar, start: Scalar, end: Scalar) -> None:
    number = state[N_NOTES]
    if number < len(notes):
        notes[number, 0] = kind
        notes[number, 1] = start
        notes[number, 2] = end
        state[N_NOTES] += 1
