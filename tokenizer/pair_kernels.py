"""The kernels of the BPE trainer: pairs are counted in a table, merged in words, and waited for in a heap.

They hold to the rules of `merges`. Each call goes as far as its arrays have room, says what is full, and goes on from
there at the next one: a step, the merging of one pair, may be left between two words. Nothing here calls another file.
"""

from __future__ import annotations

from typing import NamedTuple, SupportsInt

import numpy as np
from numpy.typing import NDArray

from tokenizer.compiled import kernel, piece

Int64s = NDArray[np.int64]
Int32s = NDArray[np.int32]
Bytes = NDArray[np.uint8]

BEGUN, DONE, MORE_PAIRS, MORE_TOUCHED, MORE_FRESH, MORE_LISTS, MORE_HEAP, MORE_BYTES, MORE_MERGES = range(-1, 8)
"""What a call ended with: a step has begun, all is done, or an array has no room left."""

STEP, LEFT, RIGHT, MERGED, CURSOR, STOP = range(6)
NUM_PAIRS, NUM_TOUCHED, NUM_FRESH, NUM_LISTED, NUM_HEAP, NUM_TOKENS, NUM_MERGES, STATE_SIZE = range(6, 14)
"""Places of the state. A step, the merging of one pair, may be left between two words and gone on with."""

KEY, COUNT, SEEN, TOUCHED = range(4)
"""Columns of the table of pairs: ids plus one (the left id in the upper half), its count, where it was last added
(step and word), its place among the pairs that this step touched."""

HEAP_COUNT, HEAP_KEY, HEAP_START, HEAP_STOP = range(4)
"""Columns of the heap: the count as it was when the row was pushed, the pair, and its words in the lists."""

_ODD = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


class Limits(NamedTuple):
    """At most `size` entries of at most `max_bytes` each, from pairs that occur `min_frequency` times or more."""

    size: int
    min_frequency: int
    max_bytes: int


class Corpus(NamedTuple):
    """Distinct words of two symbols and more: word i is `symbols[starts[i]:][:lengths[i]]`, `counts[i]` times."""

    symbols: Int32s
    starts: Int64s
    lengths: Int32s
    counts: Int64s


class Pairs(NamedTuple):
    """The table of pairs, what the step at hand touched and added, the lists of words, and the heap over all."""

    table: Int64s
    touched: Int64s
    fresh: Int32s
    lists: Int32s
    heap: Int64s


class Entries(NamedTuple):
    """The bytes of every entry, entry i from `starts[i]` to `starts[i + 1]`, and a hash table of their ids plus one."""

    data: Bytes
    starts: Int64s
    table: Int32s


@piece
def _signed(value: SupportsInt) -> int:
    return np.int64(value)  # type: ignore[return-value]


@piece
def _home(key: SupportsInt, mask: int) -> int:
    return _signed((np.uint64(key) * _ODD) >> _HALF) & mask


@piece
def _find_pair(table: Int64s, key: int) -> int:
    """The slot of a pair, or the empty one where it would stand."""
    mask = len(table) - 1
    slot = _home(key, mask)
    while table[slot, KEY] != 0 and table[slot, KEY] != key + 1:
        slot = (slot + 1) & mask
    return slot


@piece
def _pair(left: int, right: int) -> int:
    return _signed(left) << 32 | _signed(right)


@piece
def _touch(pairs: Pairs, state: Int64s, slot: int, word: int, num_words: int) -> bool:
    """Note that this step adds a pair; False when it has done so in this word before."""
    table = pairs.table
    step = state[STEP] * num_words
    if table[slot, SEEN] == step + word + 1:
        return False
    if table[slot, SEEN] <= step:
        table[slot, TOUCHED] = state[NUM_TOUCHED]
        pairs.touched[state[NUM_TOUCHED], 0] = table[slot, KEY] - 1
        pairs.touched[state[NUM_TOUCHED], 1] = 0
        state[NUM_TOUCHED] += 1
    table[slot, SEEN] = step + word + 1
    pairs.touched[table[slot, TOUCHED], 1] += 1
    return True


@piece
def _slot_of(pairs: Pairs, state: Int64s, key: int) -> int:
    """The slot of a pair, which is made if there is none."""
    slot = _find_pair(pairs.table, key)
    if pairs.table[slot, KEY] == 0:
        pairs.table[slot, KEY] = key + 1
        state[NUM_PAIRS] += 1
    return slot


@piece
def _add_pair(pairs: Pairs, state: Int64s, key: int, count: int, word: int, num_words: int) -> None:
    """`count` more of a pair, in a word that its list must name once."""
    slot = _slot_of(pairs, state, key)
    pairs.table[slot, COUNT] += count
    if _touch(pairs, state, slot, word, num_words):
        pairs.fresh[state[NUM_FRESH], 0] = pairs.table[slot, TOUCHED]
        pairs.fresh[state[NUM_FRESH], 1] = word
        state[NUM_FRESH] += 1


@piece
def _take_pair(table: Int64s, key: int, count: int) -> None:
    """`count` fewer of a pair; one that was too long to be counted is not in the table."""
    slot = _find_pair(table, key)
    if table[slot, KEY] != 0:
        table[slot, COUNT] -= count


@piece
def _room_for(pairs: Pairs, state: Int64s, most: int) -> int:
    """Whether a word that adds `most` different pairs finds room."""
    if state[NUM_PAIRS] + most > len(pairs.table) // 2:
        return MORE_PAIRS
    if state[NUM_TOUCHED] + most > len(pairs.touched):
        return MORE_TOUCHED
    if state[NUM_FRESH] + most > len(pairs.fresh):
        return MORE_FRESH
    return DONE


@piece
def _close_step(pairs: Pairs, state: Int64s) -> int:
    """List the words of each pair that this step added."""
    if state[NUM_LISTED] + state[NUM_FRESH] > len(pairs.lists):
        return MORE_LISTS
    if state[NUM_HEAP] + state[NUM_TOUCHED] + 1 > len(pairs.heap):
        return MORE_HEAP
    _push_touched(pairs, state)
    for i in range(state[NUM_FRESH]):
        _list_word(pairs, pairs.fresh[i, 0], pairs.fresh[i, 1])
    state[NUM_TOUCHED] = state[NUM_FRESH] = 0
    return DONE


@piece
def _push_touched(pairs: Pairs, state: Int64s) -> None:
    """Push what the step touched onto the heap with its count, and say in `touched` where its words go."""
    end = state[NUM_LISTED]
    for i in range(state[NUM_TOUCHED]):
        key, start = pairs.touched[i, 0], end
        count = pairs.table[_find_pair(pairs.table, key), COUNT]
        if count > 0:
            end += pairs.touched[i, 1]
            _push(pairs.heap, state[NUM_HEAP], count, key, start, end)
            state[NUM_HEAP] += 1
        pairs.touched[i, 1] = start if count > 0 else -1
    state[NUM_LISTED] = end


@piece
def _list_word(pairs: Pairs, touched: int, word: int) -> None:
    place = pairs.touched[touched, 1]
    if place >= 0:
        pairs.lists[place] = word
        pairs.touched[touched, 1] = place + 1


@piece
def _goes_first(heap: Int64s, row: int, count: int, key: int) -> bool:
    """True when a heap's row goes before a pair of this count."""
    if heap[row, HEAP_COUNT] != count:
        return heap[row, HEAP_COUNT] > count  # type: ignore[no-any-return]
    return heap[row, HEAP_KEY] < key  # type: ignore[no-any-return]


@piece
def _put(heap: Int64s, row: int, count: int, key: int, start: int, stop: int) -> None:
    heap[row, HEAP_COUNT] = count
    heap[row, HEAP_KEY] = key
    heap[row, HEAP_START] = start
    heap[row, HEAP_STOP] = stop


@piece
def _move(heap: Int64s, source: int, target: int) -> None:
    for column in range(4):
        heap[target, column] = heap[source, column]


@piece
def _push(heap: Int64s, size: int, count: int, key: int, start: int, stop: int) -> None:
    row = size
    while row > 0 and not _goes_first(heap, (row - 1) >> 1, count, key):
        _move(heap, (row - 1) >> 1, row)
        row = (row - 1) >> 1
    _put(heap, row, count, key, start, stop)


@piece
def _sink(heap: Int64s, size: int, count: int, key: int, start: int, stop: int) -> None:
    """Put a row in the place of the first one, and then where it belongs."""
    row = 0
    while 2 * row + 1 < size:
        child = 2 * row + 1
        if child + 1 < size and _goes_first(heap, child + 1, heap[child, HEAP_COUNT], heap[child, HEAP_KEY]):
            child += 1
        if not _goes_first(heap, child, count, key):
            break
        _move(heap, child, row)
        row = child
    _put(heap, row, count, key, start, stop)


@piece
def _find_next(pairs: Pairs, state: Int64s) -> int:
    """Bring the most frequent pair to the heap's top with its true count, which is returned; 0 when there is none."""
    heap = pairs.heap
    while state[NUM_HEAP] > 0:
        slot = _find_pair(pairs.table, heap[0, HEAP_KEY])
        count = pairs.table[slot, COUNT] if pairs.table[slot, KEY] != 0 else 0
        if count == heap[0, HEAP_COUNT]:
            return count
        _sink(heap, state[NUM_HEAP], count, heap[0, HEAP_KEY], heap[0, HEAP_START], heap[0, HEAP_STOP])
    return 0


@piece
def _pop(pairs: Pairs, state: Int64s) -> None:
    state[NUM_HEAP] -= 1
    last = state[NUM_HEAP]
    heap = pairs.heap
    _sink(heap, last, heap[last, HEAP_COUNT], heap[last, HEAP_KEY], heap[last, HEAP_START], heap[last, HEAP_STOP])


@piece
def _find_name(entries: Entries, first: int, last: int) -> int:
    """The slot of an entry with the bytes data[first:last], or the empty one where it would stand."""
    hashed = np.uint64(last - first)
    for i in range(first, last):
        hashed = (hashed ^ np.uint64(entries.data[i])) * _ODD
    mask = len(entries.table) - 1
    slot = _signed(hashed >> _HALF) & mask
    while entries.table[slot]:
        start, stop = entries.starts[entries.table[slot] - 1], entries.starts[entries.table[slot]]
        same = stop - start == last - first
        i = 0
        while same and i < last - first:
            same = entries.data[start + i] == entries.data[first + i]
            i += 1
        if same:
            break
        slot = (slot + 1) & mask
    return slot  # type: ignore[return-value]


@kernel
def name_entry(entries: Entries, identifier: int) -> None:
    slot = _find_name(entries, entries.starts[identifier], entries.starts[identifier + 1])
    if not entries.table[slot]:
        entries.table[slot] = identifier + 1


@piece
def _append_bytes(entries: Entries, identifier: int, end: int) -> int:
    for i in range(entries.starts[identifier], entries.starts[identifier + 1]):
        entries.data[end] = entries.data[i]
        end += 1
    return end


@piece
def _make_entry(entries: Entries, state: Int64s, left: int, right: int) -> int:
    """The id of two entries' bytes together: a new one, unless another way led to them before."""
    first = entries.starts[state[NUM_TOKENS]]
    last = _append_bytes(entries, right, _append_bytes(entries, left, first))
    slot = _find_name(entries, first, last)
    if entries.table[slot]:
        return _signed(entries.table[slot]) - 1  # type: ignore[return-value]
    state[NUM_TOKENS] += 1
    entries.starts[state[NUM_TOKENS]] = last
    entries.table[slot] = state[NUM_TOKENS]
    return state[NUM_TOKENS] - 1  # type: ignore[no-any-return]


@piece
def _size(entries: Entries, identifier: int) -> int:
    return entries.starts[identifier + 1] - entries.starts[identifier]  # type: ignore[no-any-return]


@piece
def _merge_word(corpus: Corpus, pairs: Pairs, entries: Entries, max_bytes: int, state: Int64s, word: int) -> None:
    """Merge the pair at hand in one word, from left to right, and count the pairs that go and come."""
    symbols, first, length = corpus.symbols, corpus.starts[word], _signed(corpus.lengths[word])
    left, right, merged = state[LEFT], state[RIGHT], state[MERGED]
    count, num_words, size = corpus.counts[word], len(corpus.counts), _size(entries, merged)
    read = written = 0
    while read < length:
        symbol = _signed(symbols[first + read])
        if symbol != left or read + 1 >= length or symbols[first + read + 1] != right:
            symbols[first + written] = symbol
            read += 1
            written += 1
            continue
        if written > 0:
            before = _signed(symbols[first + written - 1])
            _take_pair(pairs.table, _pair(before, left), count)
            if _size(entries, before) + size <= max_bytes:
                _add_pair(pairs, state, _pair(before, merged), count, word, num_words)
        symbols[first + written] = merged
        read += 2
        written += 1
        if read < length:
            after = _signed(symbols[first + read])
            _take_pair(pairs.table, _pair(right, after), count)
            if _size(entries, after) + size <= max_bytes:
                _add_pair(pairs, state, _pair(merged, after), count, word, num_words)
    corpus.lengths[word] = written


@piece
def _begin_step(pairs: Pairs, entries: Entries, merged: Int32s, limits: Limits, state: Int64s) -> int:
    """Choose the next pair and make its entry; DONE when a limit is met."""
    state[CURSOR] = state[STOP] = 0
    if state[NUM_TOKENS] >= limits.size:
        return DONE
    if state[NUM_MERGES] >= len(merged):
        return MORE_MERGES
    count = _find_next(pairs, state)
    if count < 1 or count < limits.min_frequency:
        return DONE
    left, right = pairs.heap[0, HEAP_KEY] >> 32, pairs.heap[0, HEAP_KEY] & 0xFFFFFFFF
    if entries.starts[state[NUM_TOKENS]] + _size(entries, left) + _size(entries, right) > len(entries.data):
        return MORE_BYTES
    state[LEFT], state[RIGHT], state[MERGED] = left, right, _make_entry(entries, state, left, right)
    state[CURSOR], state[STOP] = pairs.heap[0, HEAP_START], pairs.heap[0, HEAP_STOP]
    _pop(pairs, state)
    merged[state[NUM_MERGES], 0], merged[state[NUM_MERGES], 1] = left, right
    state[NUM_MERGES] += 1
    state[STEP] += 1
    return BEGUN


@kernel
def count_pairs(corpus: Corpus, pairs: Pairs, entries: Entries, merged: Int32s, limits: Limits, state: Int64s) -> int:
    """The first step: every pair of neighbours in every word, and the number of words of each."""
    num_words = len(corpus.counts)
    for word in range(state[CURSOR], state[STOP]):
        state[CURSOR] = word
        first, length = corpus.starts[word], _signed(corpus.lengths[word])
        code = _room_for(pairs, state, min(length, 1 << 16))
        if code:
            return code
        for i in range(first, first + length - 1):
            slot = _slot_of(pairs, state, _pair(corpus.symbols[i], corpus.symbols[i + 1]))
            pairs.table[slot, COUNT] += corpus.counts[word]
            _touch(pairs, state, slot, word, num_words)
    state[CURSOR] = state[STOP]
    return DONE


@kernel
def list_words(corpus: Corpus, pairs: Pairs, entries: Entries, merged: Int32s, limits: Limits, state: Int64s) -> int:
    """List the words of every pair: a second look at them, since room for all pairs of all words would be the most."""
    needed, num_words = 0, len(corpus.counts)
    for i in range(state[NUM_TOUCHED]):
        needed += pairs.touched[i, 1]
    if needed > len(pairs.lists):
        return MORE_LISTS
    if state[NUM_TOUCHED] + 1 > len(pairs.heap):
        return MORE_HEAP
    _push_touched(pairs, state)
    state[STEP] += 1
    for word in range(num_words):
        first, seen = corpus.starts[word], state[STEP] * num_words + word + 1
        for i in range(first, first + _signed(corpus.lengths[word]) - 1):
            slot = _find_pair(pairs.table, _pair(corpus.symbols[i], corpus.symbols[i + 1]))
            if pairs.table[slot, SEEN] != seen:
                pairs.table[slot, SEEN] = seen
                _list_word(pairs, pairs.table[slot, TOUCHED], word)
    state[NUM_TOUCHED] = 0
    state[STEP] += 1
    return DONE


@kernel
def merge_pairs(corpus: Corpus, pairs: Pairs, entries: Entries, merged: Int32s, limits: Limits, state: Int64s) -> int:
    """All other steps: merge the most frequent pair wherever it stands, until a limit is met."""
    while True:
        while state[CURSOR] < state[STOP]:
            word = _signed(pairs.lists[state[CURSOR]])
            code = _room_for(pairs, state, 2 * min(_signed(corpus.lengths[word]), state[NUM_TOKENS] + 1))
            if code:
                return code
            _merge_word(corpus, pairs, entries, limits.max_bytes, state, word)
            state[CURSOR] += 1
        code = _close_step(pairs, state)
        if code:
            return code
        code = _begin_step(pairs, entries, merged, limits, state)
        if code != BEGUN:
            return code


@kernel
def move_pairs(old: Int64s, new: Int64s, step: int) -> int:
    """Copy the pairs that still occur, or that the step at hand touched, and return their number."""
    moved = 0
    for i in range(len(old)):
        if old[i, KEY] != 0 and (old[i, COUNT] > 0 or old[i, SEEN] > step):
            slot = _find_pair(new, old[i, KEY] - 1)
            for column in range(4):
                new[slot, column] = old[i, column]
            moved += 1
    return moved


@kernel
def keep_lists(pairs: Pairs, rows: Int64s, lists: Int32s, state: Int64s) -> None:
    """Move the lists of pairs that occur to the beginning of `lists`, and make the heap anew; rows come by their lists.

    A pair that occurs no more keeps its row, which counts should it come up again, and loses its list.
    """
    state[NUM_HEAP] = state[NUM_LISTED] = 0
    for i in range(len(rows)):
        start = state[NUM_LISTED]
        slot = _find_pair(pairs.table, rows[i, HEAP_KEY])
        if pairs.table[slot, KEY] != 0 and pairs.table[slot, COUNT] > 0:
            for place in range(rows[i, HEAP_START], rows[i, HEAP_STOP]):
                lists[state[NUM_LISTED]] = pairs.lists[place]
                state[NUM_LISTED] += 1
        _push(pairs.heap, state[NUM_HEAP], rows[i, HEAP_COUNT], rows[i, HEAP_KEY], start, state[NUM_LISTED])
        state[NUM_HEAP] += 1
