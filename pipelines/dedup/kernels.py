"""Compiled scanning and hashing over Arrow's own string buffers: UTF-8 in, shingles and band keys out.

A text is folded (lower-cased words, a zero byte between them) -> tokens (64-bit hashes of the folded words) -> shingles
(hashes of `size` tokens in a row) -> distinct shingles -> minima of `multipliers[p] * (shingle >> 32) + addends[p]` mod
2^32 -> one key a band. A text shorter than `size` tokens has one shingle, all of it; a text without tokens has none.

Eight bytes are looked at in one step where they allow it, which ASCII and most white space do: 2.6 KB cost 4 us to fold
and cut into words, where a character at a time cost 10. Memory beside the input: 6 bytes a byte of the longest text (8
in characters), and 1 MB.

Entry points take `offsets` int64[n+1] and `data` uint8[], both read-only. Invalid UTF-8 never reads out of bounds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipelines.dedup.compiled import compiled, count_trailing_zeros, load_word, store_word
from pipelines.dedup.hashing import MIX_1, MIX_2, SHINGLE_MULTIPLIER, TOKEN_MULTIPLIER, TOKEN_SEED

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Codes = npt.NDArray[np.uint32]

# The kinds of `characters.py`, written out because a compiled kernel keeps the globals that it was compiled with.
_SPACE, _WORD, _LONE, _MARK, _IGNORED = 1, 2, 3, 4, 5
_KIND_BITS = 0x07
_UNCOMPOSED = 0x80
_REPLACEMENT = 0xFFFD
_FIRST_UNCOMPOSED_LEAD = 0xCC
"""UTF-8 lead byte of U+0300, the first character that NFC may change."""

_LARGEST = np.uint32(0xFFFFFFFF)
_ONES = np.uint64(0x0101010101010101)
_HIGH_BITS = np.uint64(0x8080808080808080)
_LOW_SEVEN = np.uint64(0x7F7F7F7F7F7F7F7F)
_TABLE_SLOTS = 1 << 17
"""Texts of up to a quarter as many shingles are made distinct in a hash table of 1 MB, larger ones by sorting.

A quarter full, 430 shingles cost 1.2 us; half full 1.9, since each second probe is a mispredicted branch."""


@compiled
def _mix(value: np.uint64) -> np.uint64:
    """The finaliser of SplitMix64: every input bit reaches every output bit."""
    value ^= value >> np.uint64(30)
    value *= MIX_1
    value ^= value >> np.uint64(27)
    value *= MIX_2
    return value ^ (value >> np.uint64(31))


@compiled
def _decode(data: Bytes, position: int, end: int) -> tuple[int, int]:
    """The code point at `position` and the position after it; U+FFFD where the bytes are not UTF-8."""
    byte = int(data[position])
    if byte < 0x80:
        return byte, position + 1
    if byte < 0xC0:
        return _REPLACEMENT, position + 1
    length = 2 if byte < 0xE0 else (3 if byte < 0xF0 else 4)
    if position + length > end:
        return _REPLACEMENT, end
    code = byte & (0x7F >> length)
    for i in range(1, length):
        code = (code << 6) | int(data[position + i] & 0x3F)
    return (code if code < 0x110000 else _REPLACEMENT), position + length


@compiled
def find_uncomposed(offsets: Integers, data: Bytes, kinds: Bytes, combining: Bytes) -> npt.NDArray[np.bool_]:
    """bool[n]: texts that NFC may change (Unicode Standard Annex 15, quick check)."""
    found = np.zeros(len(offsets) - 1, np.bool_)
    for text in range(len(offsets) - 1):
        position, end, last_class = offsets[text], offsets[text + 1], 0
        while position < end:
            if position + 8 <= end and not _has_late_lead(load_word(data, position)):
                position, last_class = position + 8, 0
                continue
            if data[position] < _FIRST_UNCOMPOSED_LEAD:
                position, last_class = position + 1, 0
                continue
            code, position = _decode(data, position, end)
            combining_class = int(combining[code])
            if kinds[code] & _UNCOMPOSED or 0 < combining_class < last_class:
                found[text] = True
                break
            last_class = combining_class
    return found


@compiled
def _has_late_lead(word: np.uint64) -> bool:
    """Whether one of eight bytes is 0xCC or above."""
    late = ((word & _LOW_SEVEN) + np.uint64(0x3434343434343434)) & word & _HIGH_BITS
    return bool(late != np.uint64(0))


@compiled
def _mark_zeros(word: np.uint64) -> np.uint64:
    """The high bit of each zero byte; above the first of them also of bytes of 1."""
    return (word - _ONES) & ~word & _HIGH_BITS


@compiled
def _mark_odd_bytes(word: np.uint64, spaces: np.uint64, after_space: bool) -> np.uint64:
    """The high bit of the first byte that may be white space other than a single 0x20, and more above it."""
    doubled = spaces & ((spaces << np.uint64(8)) | (np.uint64(0x80) if after_space else np.uint64(0)))
    controls = (word - np.uint64(0x2020202020202020)) & ~word & _HIGH_BITS
    leads = _mark_zeros(word ^ np.uint64(0xC2C2C2C2C2C2C2C2))
    long_leads = _mark_zeros((word & np.uint64(0xFCFCFCFCFCFCFCFC)) ^ np.uint64(0xE0E0E0E0E0E0E0E0))
    return doubled | controls | leads | long_leads


@compiled
def collapse_spaces(offsets: Integers, data: Bytes, kinds: Bytes) -> tuple[Integers, Bytes]:
    """Every run of white space becomes one space, ends are trimmed: (offsets int64[n+1], data)."""
    out = np.empty(offsets[-1] - offsets[0] + 8, np.uint8)
    out_offsets = np.zeros(len(offsets), np.int64)
    size = 0
    for text in range(len(offsets) - 1):
        position, end = offsets[text], offsets[text + 1]
        start, after_space = size, True
        while position < end:
            while position + 8 <= end:
                word = load_word(data, position)
                blanks = word ^ np.uint64(0x2020202020202020)
                spaces = ~(((blanks & _LOW_SEVEN) + _LOW_SEVEN) | blanks | _LOW_SEVEN)
                odd = _mark_odd_bytes(word, spaces, after_space)
                store_word(out, size, word)
                plain = count_trailing_zeros(odd) >> 3
                size, position = size + plain, position + plain
                if plain > 0:
                    after_space = (spaces >> np.uint64(8 * plain - 1)) & np.uint64(1) != np.uint64(0)
                if plain < 8:
                    break
            if position < end:
                code, after = _decode(data, position, end)
                if kinds[code] & _KIND_BITS != _SPACE:
                    for i in range(position, after):
                        out[size] = data[i]
                        size += 1
                    after_space = False
                elif not after_space:
                    out[size] = 0x20
                    size, after_space = size + 1, True
                position = after
        if size > start and out[size - 1] == 0x20:
            size -= 1
        out_offsets[text + 1] = size
    return out_offsets, out[:size]


@compiled
def _fold_ascii(word: np.uint64) -> np.uint64:
    """Eight ASCII bytes with letters lower-cased and everything but letters and digits zero."""
    is_upper = (word + np.uint64(0x3F3F3F3F3F3F3F3F)) & ~(word + np.uint64(0x2525252525252525)) & _HIGH_BITS
    word |= is_upper >> np.uint64(2)
    is_letter = (word + np.uint64(0x1F1F1F1F1F1F1F1F)) & ~(word + np.uint64(0x0505050505050505))
    is_digit = (word + np.uint64(0x5050505050505050)) & ~(word + np.uint64(0x4646464646464646))
    return word & ((((is_letter | is_digit) & _HIGH_BITS) >> np.uint64(7)) * np.uint64(0xFF))


@compiled
def _encode(code: np.uint32, out: Bytes, size: int) -> int:
    """Append the UTF-8 of a code point; the new size."""
    if code < 0x80:
        out[size] = code
        return size + 1
    if code < 0x800:
        out[size] = 0xC0 | (code >> 6)
    elif code < 0x10000:
        out[size] = 0xE0 | (code >> 12)
        size += 1
        out[size] = 0x80 | ((code >> 6) & 0x3F)
    else:
        out[size] = 0xF0 | (code >> 18)
        out[size + 1] = 0x80 | ((code >> 12) & 0x3F)
        size += 2
        out[size] = 0x80 | ((code >> 6) & 0x3F)
    out[size + 1] = 0x80 | (code & 0x3F)
    return size + 2


@compiled
def _fold(data: Bytes, start: int, end: int, kinds: Bytes, lower: Codes, folded: Bytes) -> int:
    """Write the words of data[start:end], lower-cased, zero bytes between them and eight behind; their size.

    A lone character is a word with the marks that follow it; a mark without a word before it is nothing.
    """
    position, size, is_lone = start, 0, False
    while position < end:
        while position + 8 <= end:
            word = load_word(data, position)
            if word & _HIGH_BITS != np.uint64(0):
                break
            if is_lone:
                folded[size] = 0
                size, is_lone = size + 1, False
            store_word(folded, size, _fold_ascii(word))
            size, position = size + 8, position + 8
        if position == end:
            break
        code, position = _decode(data, position, end)
        kind = kinds[code] & _KIND_BITS
        if kind == _IGNORED or (kind == _MARK and (size == 0 or folded[size - 1] == 0)):
            continue
        if kind == _LONE or (is_lone and kind != _MARK):
            folded[size] = 0
            size += 1
        is_lone = kind == _LONE or (is_lone and kind == _MARK)
        if kind == _WORD or kind == _LONE or kind == _MARK:
            size = _encode(lower[code], folded, size)
        else:
            folded[size] = 0
            size += 1
    store_word(folded, size, np.uint64(0))
    return size


@compiled
def _hash_words(folded: Bytes, size: int, tokens: Hashes) -> int:
    """Write the hashes of the folded words to `tokens`; the number of words."""
    position, count = 0, 0
    while position < size:
        first, token = position, TOKEN_SEED
        word = load_word(folded, position)
        zeros = _mark_zeros(word)
        while zeros == np.uint64(0):
            token = _extend(token, word)
            position += 8
            word = load_word(folded, position)
            zeros = _mark_zeros(word)
        bits = count_trailing_zeros(zeros) - 7
        position += bits >> 3
        tokens[count] = _mix(_extend(token, word & ((np.uint64(1) << np.uint64(bits)) - np.uint64(1))))
        count += position > first
        position += 1
    return count


@compiled
def _extend(token: np.uint64, word: np.uint64) -> np.uint64:
    token = (token ^ word) * TOKEN_MULTIPLIER
    return token ^ (token >> np.uint64(32))


@compiled
def _scan_characters(data: Bytes, start: int, end: int, lower: Codes, tokens: Hashes) -> int:
    """Write the hashes of the code points of data[start:end] to `tokens`; their number."""
    count, position = 0, start
    while position < end:
        code, position = _decode(data, position, end)
        tokens[count] = _mix(_extend(TOKEN_SEED, np.uint64(lower[code])))
        count += 1
    return count


@compiled
def _hash_shingles(tokens: Hashes, count: int, size: int) -> int:
    """Overwrite `tokens` with the hashes of its windows of `size` (of all, if fewer); their number."""
    if count == 0:
        return 0
    width = min(size, count)
    power, rolling = np.uint64(1), np.uint64(0)
    for i in range(width):
        power *= SHINGLE_MULTIPLIER
        rolling = rolling * SHINGLE_MULTIPLIER + tokens[i]
    length = np.uint64(width) * power
    for first in range(count - width + 1):
        left = tokens[first]
        shingle = _mix(length + rolling)
        tokens[first] = shingle if shingle != np.uint64(0) else np.uint64(1)
        if first + width < count:
            rolling = rolling * SHINGLE_MULTIPLIER + tokens[first + width] - left * power
    return count - width + 1


@compiled
def _keep_distinct(shingles: Hashes, count: int, table: Hashes) -> int:
    """Move the distinct ones of shingles[:count] (none is zero) to the front; their number. `table`: scratch."""
    if 4 * count > len(table):
        shingles[:count].sort()
        kept = 1
        for i in range(1, count):
            if shingles[i] != shingles[kept - 1]:
                shingles[kept] = shingles[i]
                kept += 1
        return kept
    slots = 16
    while slots < 4 * count:
        slots *= 2
    table[:slots] = np.uint64(0)
    last, kept = np.uint64(slots - 1), 0
    for i in range(count):
        shingle = shingles[i]
        slot = shingle & last
        while table[slot] != np.uint64(0) and table[slot] != shingle:
            slot = (slot + np.uint64(1)) & last
        if table[slot] == np.uint64(0):
            table[slot] = shingle
            shingles[kept] = shingle
            kept += 1
    return kept


@compiled
def _find_shingles(
    data: Bytes,
    start: int,
    end: int,
    by_word: bool,
    size: int,
    kinds: Bytes,
    lower: Codes,
    folded: Bytes,
    shingles: Hashes,
    table: Hashes,
) -> int:
    """The distinct shingles of one text, unsorted, in `shingles`; their number."""
    if by_word:
        count = _hash_words(folded, _fold(data, start, end, kinds, lower, folded), shingles)
    else:
        count = _scan_characters(data, start, end, lower, shingles)
    count = _hash_shingles(shingles, count, size)
    return _keep_distinct(shingles, count, table) if count > 1 else count


@compiled
def _lower_minima(shingles: Hashes, count: int, multipliers: Codes, addends: Codes, minima: Codes) -> None:
    """minima[p] = the least of multipliers[p] * upper half of shingle + addends[p]; four shingles a pass."""
    minima[:] = _LARGEST
    whole = count - count % 4
    half = np.uint64(32)
    for i in range(0, whole, 4):
        s0, s1 = np.uint32(shingles[i] >> half), np.uint32(shingles[i + 1] >> half)
        s2, s3 = np.uint32(shingles[i + 2] >> half), np.uint32(shingles[i + 3] >> half)
        for p in range(len(minima)):
            a, b = multipliers[p], addends[p]
            low = min(
                min(np.uint32(a * s0 + b), np.uint32(a * s1 + b)), min(np.uint32(a * s2 + b), np.uint32(a * s3 + b))
            )
            minima[p] = min(minima[p], low)
    for i in range(whole, count):
        s0 = np.uint32(shingles[i] >> half)
        for p in range(len(minima)):
            minima[p] = min(minima[p], np.uint32(multipliers[p] * s0 + addends[p]))


@compiled
def sign_texts(
    offsets: Integers,
    data: Bytes,
    by_word: bool,
    size: int,
    kinds: Bytes,
    lower: Codes,
    multipliers: Codes,
    addends: Codes,
    num_bands: int,
) -> tuple[Codes, Hashes]:
    """(distinct shingles uint32[n], band keys uint64[n, num_bands]); the keys of a text without shingles are zero."""
    num_texts, longest = len(offsets) - 1, 0
    for text in range(num_texts):
        longest = max(longest, offsets[text + 1] - offsets[text])
    shingles = np.empty(longest // 2 + 3 if by_word else longest + 1, np.uint64)
    folded = np.empty(2 * longest + 16 if by_word else 0, np.uint8)
    table = np.empty(_TABLE_SLOTS, np.uint64)
    minima = np.empty(len(multipliers), np.uint32)
    rows = len(multipliers) // num_bands
    counts = np.zeros(num_texts, np.uint32)
    keys = np.zeros((num_texts, num_bands), np.uint64)
    for text in range(num_texts):
        start, end = offsets[text], offsets[text + 1]
        count = _find_shingles(data, start, end, by_word, size, kinds, lower, folded, shingles, table)
        counts[text] = count
        if count == 0:
            continue
        _lower_minima(shingles, count, multipliers, addends, minima)
        for band in range(num_bands):
            key = _mix(np.uint64(band + 1))
            for row in range(band * rows, (band + 1) * rows):
                key = _mix(key ^ np.uint64(minima[row]))
            keys[text, band] = key
    return counts, keys


@compiled
def collect_shingles(
    offsets: Integers, data: Bytes, by_word: bool, size: int, kinds: Bytes, lower: Codes
) -> tuple[Integers, Hashes]:
    """(offsets int64[n+1], the distinct shingles of each text, in the order of their first appearance)."""
    num_texts, most, longest = len(offsets) - 1, 0, 0
    for text in range(num_texts):
        length = offsets[text + 1] - offsets[text]
        most += length // 2 + 3 if by_word else length + 1
        longest = max(longest, length)
    folded = np.empty(2 * longest + 16 if by_word else 0, np.uint8)
    shingles = np.empty(most, np.uint64)
    table = np.empty(_TABLE_SLOTS, np.uint64)
    out_offsets = np.zeros(num_texts + 1, np.int64)
    first = 0
    for text in range(num_texts):
        start, end = offsets[text], offsets[text + 1]
        count = _find_shingles(data, start, end, by_word, size, kinds, lower, folded, shingles[first:], table)
        first += count
        out_offsets[text + 1] = first
    return out_offsets, shingles[:first].copy()
