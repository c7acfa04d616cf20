"""A fastText classifier's input over UTF-8 bytes: the sum of the vectors of words, character and word n-grams.

Invariant: the features of data[start:stop] are those of the whole text that begin there: a word that goes on past
`stop` is read to its end, and at a `start` within a word only its later n-grams are counted. So the features of
adjoining stretches add up to the features of the whole, and a window adds no word that is not in the text.
Words, n-grams and hashes are fastText 0.9's (`dictionary.cc`): words end at the seven bytes of _is_break, characters
are runs of a byte and its continuation bytes, hashes are 32-bit FNV-1a over signed bytes. A literal `</s>` is a word
like any other; fastText would stop reading there.
Trade-off: the sum of a word of up to 24 bytes is kept (32,768 words, 3 MB, for 16 dimensions), which makes English
2.5 times as fast. It is summed alone and then added, so what is kept cannot change a result.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from classifiers.compiled import kernel, piece
from classifiers.fasttext.file import FastTextFile
from classifiers.utf8 import Bytes, Number, signed

LONGEST_KEPT = 24
AHEAD = 8
"""Rows of word n-grams that are fetched at a time: they lie anywhere in gigabytes, so each alone is a wait."""
LINE_NUMBERS = 16
KEPT_BYTES = 1 << 21
_FNV_BASIS = np.uint32(2166136261)
_FNV_PRIME = np.uint32(16777619)
_GRAM_PRIME = np.uint64(116049371)
_ONE = np.uint64(1)
_SIX = np.uint64(6)
_LOW_SIX = np.uint64(63)
_LABEL = np.frombuffer(b"__label__", np.uint8)
_LABEL_SIZE = len(_LABEL)
_BEGIN, _END = ord("<"), ord(">")
_END_OF_LINE = b"</s>"


class Features(NamedTuple):
    """What a text's features are looked up in.

    `slots` is a table over FNV hashes of entries in `names` (the file's bytes, from `starts`). Where `bits` is not
    empty, n-gram bucket b was kept if its bit is set; its row is num_words + the number of set bits before it, of
    which `ranks` counts those before each 64. Otherwise its row is num_words + b.
    """

    names: Bytes
    starts: NDArray[np.int64]
    slots: NDArray[np.int32]
    rows: NDArray[np.float32]
    bits: NDArray[np.uint64]
    ranks: NDArray[np.int32]
    num_words: int
    end_of_line: int
    buckets: int
    word_grams: int
    shortest: int
    longest: int


class Kept(NamedTuple):
    """The sums of words read before, each at a place given by its hash; the newest stays."""

    words: NDArray[np.uint8]
    sizes: NDArray[np.uint8]
    sums: NDArray[np.float32]
    counts: NDArray[np.int32]


class Sum(NamedTuple):
    """The sum of the features found so far, float32[dimension], and the hashes of the word n-grams still open.

    `awaited` is a ring of rows that are on their way from memory, and before it how many there ever were.
    """

    vector: NDArray[np.float32]
    grams: NDArray[np.uint64]
    awaited: NDArray[np.int64]


def features_of(file: FastTextFile) -> Features:
    """The tables of a file that was read; kept n-gram rows are put in the order of their buckets."""
    slots = np.full(1 << max(8, int(len(file.starts) * 2).bit_length()), -1, np.int32)
    _fill_slots(file.data, file.starts, slots)
    bits, ranks, rows = _kept_buckets(file)
    return Features(
        names=file.data,
        starts=_frozen(file.starts),
        slots=_frozen(slots),
        rows=rows,
        bits=_frozen(bits),
        ranks=_frozen(ranks),
        num_words=file.num_words,
        end_of_line=_end_of_line(file),
        buckets=max(file.buckets, 1),
        word_grams=file.word_grams,
        shortest=file.shortest_gram,
        longest=file.longest_gram,
    )


def kept_words(dimension: int) -> Kept:
    """Room for the sums of words, empty; 2 MB of sums at most."""
    places = 1 << max(6, (KEPT_BYTES // (4 * dimension)).bit_length() - 1)
    return Kept(
        np.zeros((places, LONGEST_KEPT), np.uint8),
        np.zeros(places, np.uint8),
        np.zeros((places, dimension), np.float32),
        np.zeros(places, np.int32),
    )


def empty_sum(features: Features) -> Sum:
    return Sum(
        np.zeros(features.rows.shape[1], np.float32),
        np.zeros(features.word_grams, np.uint64),
        np.zeros(1 + AHEAD, np.int64),
    )


def _frozen(array: NDArray[Number]) -> NDArray[Number]:
    array.setflags(write=False)
    return array


def _kept_buckets(file: FastTextFile) -> tuple[NDArray[np.uint64], NDArray[np.int32], NDArray[np.float32]]:
    if file.pruned is None:
        return np.zeros(0, np.uint64), np.zeros(0, np.int32), file.inputs
    buckets, first = np.unique(file.pruned[::-1, 0], return_index=True)
    places = file.pruned[::-1, 1][first]
    bits = np.zeros((max(file.buckets, int(buckets.max(initial=0)) + 1) + 63) // 64, np.uint64)
    np.bitwise_or.at(bits, buckets >> 6, _ONE << (buckets & 63).astype(np.uint64))
    ranks = np.searchsorted(buckets, np.arange(len(bits)) * 64).astype(np.int32)
    rows = np.concatenate([file.inputs[: file.num_words], file.inputs[file.num_words + places]])
    rows.setflags(write=False)
    return bits, ranks, rows


def _end_of_line(file: FastTextFile) -> int:
    """The row of `</s>`, or -1."""
    heads = file.data[file.starts[: file.num_words, None] + np.arange(5)]
    found = np.flatnonzero((heads == np.frombuffer(b"</s>\0", np.uint8)).all(axis=1))
    return int(found[0]) if len(found) else -1


@piece
def _fold(state: np.uint32, byte: int) -> np.uint32:
    """One step of FNV-1a over a signed byte."""
    return np.uint32((state ^ np.uint32(np.int8(byte))) * _FNV_PRIME)


@piece
def _hash_name(data: Bytes, first: int) -> np.uint32:
    """The hash of the bytes from `first` to the next NUL."""
    state = _FNV_BASIS
    while data[first] != 0:
        state = _fold(state, data[first])
        first += 1
    return state


@kernel
def _fill_slots(names: Bytes, starts: NDArray[np.int64], slots: NDArray[np.int32]) -> None:
    """Enter every name at its hash's slot or the next free one."""
    for entry in range(len(starts)):
        slot = signed(_hash_name(names, starts[entry])) & (len(slots) - 1)
        while slots[slot] >= 0:
            slot = (slot + 1) & (len(slots) - 1)
        slots[slot] = entry


@piece
def _find(data: Bytes, first: int, last: int, state: np.uint32, features: Features) -> int:
    """The entry named data[first:last], whose hash is `state`, or -1."""
    slot = signed(state) & (len(features.slots) - 1)
    while features.slots[slot] >= 0:
        start = features.starts[features.slots[slot]]
        size = 0
        while first + size < last and features.names[start + size] == data[first + size]:
            size += 1
        if first + size == last and features.names[start + size] == 0:
            return signed(features.slots[slot])
        slot = (slot + 1) & (len(features.slots) - 1)
    return -1


@intrinsic
def _count_bits(typing: Any, word: Any) -> Any:
    """The number of set bits of a uint64: one instruction, for which numba has no name."""
    return types.int64(types.uint64), lambda context, builder, signature, values: builder.ctpop(values[0])


@intrinsic
def _prefetch(typing: Any, rows: Any, row: Any, number: Any) -> Any:
    """Have the processor fetch the cache line of rows[row, number] while other work goes on."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, values[0])
        strides = [builder.extract_value(array.strides, i) for i in range(2)]
        offset = builder.add(builder.mul(values[1], strides[0]), builder.mul(values[2], strides[1]))
        place = builder.gep(builder.bitcast(array.data, ir.IntType(8).as_pointer()), [offset])
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, flag, flag, flag])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        builder.call(fetch, [place, *(ir.Constant(flag, value) for value in (0, 3, 1))])  # read, keep, data
        return context.get_dummy_value()

    return types.void(rows, types.int64, types.int64), generate


@piece
def _is_break(byte: int) -> bool:
    return byte == 0x20 or byte <= 0x0D and (byte >= 0x09 or byte == 0)


@piece
def _is_inner(byte: int) -> bool:
    """Whether a byte continues a character."""
    return byte & 0xC0 == 0x80


@piece
def add_features(
    data: Bytes, start: int, stop: int, begin: int, end: int, features: Features, kept: Kept, total: Sum
) -> int:
    """Add the features of the text data[begin:end] that begin in data[start:stop]; returns their number."""
    count = 0
    position = start
    if start > begin and not _is_break(data[start - 1]):
        first = start
        while first > begin and first > start - LONGEST_KEPT and not _is_break(data[first - 1]):
            first -= 1
        last = start
        while last < end and not _is_break(data[last]):
            last += 1
        if last - first > LONGEST_KEPT or first > begin and not _is_break(data[first - 1]):
            count += _add_grams(data, start, last, start, min(last, stop), features, total.vector)
        position = last
    while position < stop:
        if _is_break(data[position]):
            position += 1
            continue
        state = _FNV_BASIS
        first = position
        while position < end and not _is_break(data[position]):
            state = _fold(state, data[position])
            position += 1
        count += _add_word(data, first, position, stop, state, features, kept, total)
    _settle(features, total)
    return count


@piece
def add_end_of_line(features: Features, total: Sum) -> int:
    """Add what fastText reads at the end of a line; returns the number of features."""
    count = 0
    if features.end_of_line >= 0:
        _add_row(features.end_of_line, 0, features, total.vector)
        count = 1
    state = _FNV_BASIS
    for byte in _END_OF_LINE:
        state = _fold(state, byte)
    count += _add_word_grams(state, features, total)
    _settle(features, total)
    return count


@piece
def clear(total: Sum) -> None:
    """Forget the sum; the open word n-grams too."""
    total.vector[:] = 0
    total.grams[:] = 0


@piece
def _add_word(
    data: Bytes, first: int, last: int, stop: int, state: np.uint32, features: Features, kept: Kept, total: Sum
) -> int:
    if last - first > LONGEST_KEPT:
        entry = _find(data, first, last, state, features)
        if _is_label(data, first, last, entry, features):
            return 0
        count = _add_whole(data, first, last, min(last, stop), entry, features, total.vector)
        return count + _add_word_grams(state, features, total)
    place = signed(state) & (len(kept.sizes) - 1)
    if not _is_kept(data, first, last, place, kept):
        entry = _find(data, first, last, state, features)
        if _is_label(data, first, last, entry, features):
            return 0
        for i in range(first, last):
            kept.words[place, i - first] = data[i]
        kept.sizes[place] = last - first
        kept.sums[place, :] = 0
        kept.counts[place] = _add_whole(data, first, last, last, entry, features, kept.sums[place])
    for i in range(len(total.vector)):
        total.vector[i] += kept.sums[place, i]
    return signed(kept.counts[place]) + _add_word_grams(state, features, total)


@piece
def _is_kept(data: Bytes, first: int, last: int, place: int, kept: Kept) -> bool:
    if kept.sizes[place] != last - first:
        return False
    for i in range(first, last):
        if kept.words[place, i - first] != data[i]:
            return False
    return True


@piece
def _is_label(data: Bytes, first: int, last: int, entry: int, features: Features) -> bool:
    """Whether fastText takes the word for a label, which is no feature: a known one, or one that looks like it."""
    if entry >= 0:
        return entry >= features.num_words
    if last - first < _LABEL_SIZE:
        return False
    for i in range(_LABEL_SIZE):
        if data[first + i] != _LABEL[i]:
            return False
    return True


@piece
def _add_whole(
    data: Bytes, first: int, last: int, stop: int, entry: int, features: Features, vector: NDArray[np.float32]
) -> int:
    """Add a word's own row and its n-grams that begin before `stop`."""
    count = 0
    if entry >= 0:
        _add_row(entry, 0, features, vector)
        count = 1
        if entry == features.end_of_line:
            return count
    if features.longest == 0:
        return count
    place = first
    while place < last and _is_inner(data[place]):
        place += 1
    state = _FNV_BASIS
    state = _fold(state, _BEGIN)
    for i in range(first, place):
        state = _fold(state, data[i])
    count += _add_grams_at(data, place, last, 1, state, features, vector)
    return count + _add_grams(data, first, last, first, stop, features, vector)


@piece
def _add_grams(
    data: Bytes, first: int, last: int, start: int, stop: int, features: Features, vector: NDArray[np.float32]
) -> int:
    """Add the character n-grams of the word data[first:last] that begin in data[start:stop]."""
    count = 0
    for place in range(start, stop):
        if not _is_inner(data[place]):
            count += _add_grams_at(data, place, last, 0, _FNV_BASIS, features, vector)
    return count


@piece
def _add_grams_at(
    data: Bytes, place: int, last: int, size: int, state: np.uint32, features: Features, vector: NDArray[np.float32]
) -> int:
    """Add the n-grams that begin with `size` characters, hashed to `state`, and go on at `place`."""
    count = 0
    while size < features.longest and place <= last:
        state = _fold(state, data[place] if place < last else _END)
        place += 1
        while place < last and _is_inner(data[place]):
            state = _fold(state, data[place])
            place += 1
        size += 1
        if size >= features.shortest:
            count += _add_bucket(np.uint64(state) % np.uint64(features.buckets), features, vector)
    return count


@piece
def _add_word_grams(state: np.uint32, features: Features, total: Sum) -> int:
    """Add the word n-grams that end with the word of this hash; `grams` holds their number and the open ones."""
    if features.word_grams < 2:
        return 0
    count = 0
    word = np.uint64(np.int64(np.int32(state)))
    grams = signed(total.grams[0])
    for i in range(1, grams + 1):
        total.grams[i] = total.grams[i] * _GRAM_PRIME + word
        count += _await_bucket(total.grams[i] % np.uint64(features.buckets), features, total)
    if grams == features.word_grams - 1:
        for i in range(1, grams):
            total.grams[i] = total.grams[i + 1]
    else:
        grams += 1
    total.grams[0] = np.uint64(grams)
    total.grams[grams] = word
    return count


@piece
def _add_bucket(bucket: np.uint64, features: Features, vector: NDArray[np.float32]) -> int:
    """Add the row of an n-gram's bucket, if it was kept."""
    row = _bucket_row(bucket, features)
    if row < 0:
        return 0
    _add_row(row, 0, features, vector)
    return 1


@piece
def _await_bucket(bucket: np.uint64, features: Features, total: Sum) -> int:
    """Have the row of a bucket fetched, if it was kept, and add the one that was asked for AHEAD rows before."""
    row = _bucket_row(bucket, features)
    if row < 0:
        return 0
    for number in range(0, len(total.vector), LINE_NUMBERS):
        _prefetch(features.rows, row, number)
    place = 1 + total.awaited[0] % AHEAD
    if total.awaited[0] >= AHEAD:
        _add_row(total.awaited[place], 0, features, total.vector)
    total.awaited[place] = row
    total.awaited[0] += 1
    return 1


@piece
def _settle(features: Features, total: Sum) -> None:
    """Add all rows that are awaited."""
    for number in range(max(0, total.awaited[0] - AHEAD), total.awaited[0]):
        _add_row(total.awaited[1 + number % AHEAD], 0, features, total.vector)
    total.awaited[0] = 0


@piece
def _bucket_row(bucket: np.uint64, features: Features) -> int:
    """The row of an n-gram's bucket, or -1 where it was pruned."""
    if len(features.bits) == 0:
        return features.num_words + signed(bucket)
    word = features.bits[signed(bucket >> _SIX)]
    bit = _ONE << (bucket & _LOW_SIX)
    if not word & bit:
        return -1
    before = features.ranks[signed(bucket >> _SIX)] + _count_bits(word & (bit - _ONE))
    return features.num_words + signed(before)


@piece
def _add_row(base: int, place: int, features: Features, vector: NDArray[np.float32]) -> None:
    row = base + place
    if len(vector) == 16:
        for i in range(16):
            vector[i] += features.rows[row, i]
    else:
        for i in range(len(vector)):
            vector[i] += features.rows[row, i]
