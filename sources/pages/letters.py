"""Bytes of a page read one by one: letters, names and their hashes, comments, attributes; pieces of the kernels.

Invariant: nothing reads beyond the page, and each part moves forward only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sources.compiled import Scalar, part

Array = npt.NDArray[Any]
FNV, PRIME = np.uint64(14695981039346656037), np.uint64(1099511628211)
_S, _LT, _GT = np.uint8(ord("s")), np.uint64(ord("<")), np.uint64(ord(">"))


@part
def lower(byte: Scalar) -> Scalar:
    return byte + 32 if 65 <= byte <= 90 else byte


@part
def is_letter(byte: Scalar) -> Scalar:
    return 97 <= (byte | 32) <= 122


@part
def is_space(byte: Scalar) -> Scalar:
    return byte == 32 or 9 <= byte <= 13


@part
def starts_markup(byte: Scalar) -> Scalar:
    """Whether `<` before this byte is markup: a letter, `/`, `!` or `?`."""
    return is_letter(byte) or byte == 47 or byte == 33 or byte == 63


@part
def find_byte(src: Array, at: Scalar, byte: Scalar) -> Scalar:
    while at < len(src) and src[at] != byte:
        at += 1
    return at


@part
def look_up(keys: Array, values: Array, key: Scalar) -> Scalar:
    mask = np.uint64(len(keys) - 1)
    place = key & mask
    while keys[place] != 0:
        if keys[place] == key:
            return values[place]
        place = (place + np.uint64(1)) & mask
    return np.int64(0)


@part
def hash_tag(src: Array, start: Scalar, end: Scalar) -> Scalar:
    value = (FNV ^ _LT) * PRIME
    for at in range(start, end):
        value = (value ^ np.uint64(lower(src[at]))) * PRIME
    return (value ^ _GT) * PRIME


@part
def hash_word(src: Array, start: Scalar, end: Scalar) -> Scalar:
    if end > start and lower(src[end - 1]) == _S:
        end -= 1
    value = FNV
    for at in range(start, end):
        value = (value ^ np.uint64(lower(src[at]))) * PRIME
    return value


@part
def hash_bytes(src: Array, start: Scalar, end: Scalar, value: Scalar) -> Scalar:
    for at in range(start, end):
        value = (value ^ np.uint64(src[at])) * PRIME
    return value


@part
def words_of(src: Array, start: Scalar, end: Scalar, keys: Array, values: Array) -> Scalar:
    """The groups of the words in a value: cut at what is no letter and where a lower-case letter meets a capital."""
    found = np.int64(0)
    at = start
    end = min(end, start + 400)
    while at < end:
        while at < end and not is_letter(src[at]):
            at += 1
        first = at
        while at < end and is_letter(src[at]) and not (at > first and src[at] < 97 and src[at - 1] >= 97):
            at += 1
        if at > first + 1:
            found |= look_up(keys, values, hash_word(src, first, at))
    return found


@part
def same_bytes(src: Array, start: Scalar, end: Scalar, name: Array) -> Scalar:
    """Whether the bytes are `name` (given in lower case), whatever their case."""
    if end - start != len(name):
        return False
    for at in range(len(name)):
        if lower(src[start + at]) != name[at]:
            return False
    return True


@part
def contains_bytes(src: Array, start: Scalar, end: Scalar, name: Array) -> Scalar:
    for at in range(start, end - len(name) + 1):
        if same_bytes(src, at, at + len(name), name):
            return True
    return False


@part
def has_text(src: Array, start: Scalar, end: Scalar) -> Scalar:
    for at in range(start, end):
        if not is_space(src[at]):
            return True
    return False


@part
def find_raw_end(src: Array, at: Scalar, start: Scalar, end: Scalar) -> Scalar:
    """Where `</name` of the raw element begins, or the end of the page."""
    size = end - start
    while True:
        at = find_byte(src, at, 60)
        if at + size + 2 > len(src):
            return len(src)
        if src[at + 1] == 47:
            same = True
            for offset in range(size):
                if lower(src[at + 2 + offset]) != lower(src[start + offset]):
                    same = False
                    break
            if same:
                return at
        at += 1


@part
def skip_markup(src: Array, at: Scalar) -> Scalar:
    """Past a comment, a doctype, a processing instruction or a CDATA section that begins at `at`."""
    size = len(src)
    if at + 3 < size and src[at + 1] == 33 and src[at + 2] == 45 and src[at + 3] == 45:
        at += 4
        if at < size and src[at] == 62:
            return at + 1
        while at + 2 < size:
            at = find_byte(src, at, 45)
            if at + 2 < size and src[at + 1] == 45 and (src[at + 2] == 62 or src[at + 2] == 33):
                return find_byte(src, at + 2, 62) + 1
            at += 1
        return size
    return find_byte(src, at, 62) + 1


@part
def next_attribute(src: Array, at: Scalar, place: Array) -> Scalar:
    """One attribute from `at`: name and value as four offsets in `place`; returns where to go on, or -1 at `>`."""
    size = len(src)
    while at < size and (is_space(src[at]) or src[at] == 47):
        at += 1
    if at >= size or src[at] == 62:
        place[4] = at
        return -1
    place[0] = at
    at += 1
    while at < size and not is_space(src[at]) and src[at] != 61 and src[at] != 62 and src[at] != 47:
        at += 1
    place[1] = at
    place[2] = at
    place[3] = at
    ahead = at
    while ahead < size and is_space(src[ahead]):
        ahead += 1
    if ahead >= size or src[ahead] != 61:
        return at
    at = ahead + 1
    while at < size and is_space(src[at]):
        at += 1
    if at < size and (src[at] == 34 or src[at] == 39):
        place[2] = at + 1
        at = find_byte(src, at + 1, src[at])
        place[3] = at
        return min(at + 1, size)
    place[2] = at
    while at < size and not is_space(src[at]) and src[at] != 62:
        at += 1
    place[3] = at
    return at
