"""Text as a fastText classifier was trained to read it: words with spaces between, stop words and set phrases left out.

Invariant: training and scoring go through this same function, and what it needs is saved with the model. Words are
those of `classifiers.segmentation` (Chinese as jieba cuts it); symbols are no words. Phrases are runs of the words that
are left once the stop words are gone; of those that begin at a word the longest goes, and no word goes twice.
Trade-off: one look-up a word and three for phrases, in a kernel, 24 to 30 MB/s of Chinese a core (jieba alone: 1.5).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from classifiers.characters import SPACELESS, WORD, character_classes
from classifiers.compiled import kernel, piece
from classifiers.segmentation.kernels import Segmenter, begin_document
from classifiers.segmentation.listed_words import list_words
from classifiers.segmentation.tables import open_segmenter
from classifiers.utf8 import Bytes, Classes, Hash, decode, hash_bytes, mix, signed, utf8_buffers
from classifiers.words import next_token

SHORTEST, LONGEST = 3, 5
"""Words of a phrase, as CCI4.0 counts them."""
_SPACE = 32
_ONE = np.uint64(1)


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """`stop_words` and `phrases` (words with a space between, SHORTEST to LONGEST of them) are left out."""

    stop_words: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()


class _Listed(NamedTuple):
    """Sets of hashes, each an open table; 0 is an empty slot."""

    stops: NDArray[np.uint64]
    phrases: NDArray[np.uint64]


class WordPreparer:
    """A Preparation opened for work; one for each thread."""

    def __init__(self, preparation: Preparation) -> None:
        stops = [_hash_word(word) for word in preparation.stop_words]
        phrases = [hash_phrase(phrase.split(" ")) for phrase in preparation.phrases]
        self._listed = _Listed(_table(stops), _table(phrases))
        self._classes, self._segmenter = character_classes(), open_segmenter()

    def __call__(self, texts: pa.Array) -> pa.Array:
        """Strings in, strings out, row for row; null is empty."""
        offsets, data = utf8_buffers(texts)
        size = int(offsets[-1] - offsets[0]) if len(offsets) else 0
        longest = int(np.diff(offsets).max(initial=0)) + 1
        out, out_offsets = np.empty(2 * size + 1, np.uint8), np.zeros(len(offsets), np.int32)
        bounds, hashes = np.empty((longest, 2), np.int64), np.empty(longest, np.uint64)
        _prepare(offsets, data, self._classes, self._segmenter, self._listed, bounds, hashes, out, out_offsets)
        buffers = [None, pa.py_buffer(out_offsets), pa.py_buffer(out[: out_offsets[-1]])]
        return pa.Array.from_buffers(pa.string(), len(texts), buffers)


def prepare_plainly(text: str, preparation: Preparation) -> str:
    """The same of one text in plain Python: what the kernel is tested against."""
    classes, stops, phrases = character_classes(), set(preparation.stop_words), set(preparation.phrases)
    words = [word for word in list_words(text) if classes[ord(word[0])] & (WORD | SPACELESS) and word not in stops]
    kept: list[str] = []
    place = 0
    while place < len(words):
        sizes = [size for size in range(LONGEST, SHORTEST - 1, -1) if " ".join(words[place : place + size]) in phrases]
        place += sizes[0] if sizes else 1
        kept += [] if sizes else words[place - 1 : place]
    return " ".join(kept)


def hash_phrase(words: Sequence[str]) -> int:
    """The hash of a run of words, as `phrase_hashes` gives it."""
    state = np.uint64(0)
    with np.errstate(over="ignore"):
        for word in words:
            state = np.uint64(mix(state, np.uint64(_hash_word(word))))
    return int(state) | 1


def _hash_word(word: str) -> int:
    encoded = word.encode()
    with np.errstate(over="ignore"):
        return int(hash_bytes(np.frombuffer(encoded, np.uint8), 0, len(encoded))) | 1


def _table(hashes: Iterable[int]) -> NDArray[np.uint64]:
    distinct = sorted(set(hashes))
    slots = np.zeros(max(8, 1 << (2 * len(distinct)).bit_length()), np.uint64)
    for each in distinct:
        place = each >> 1 & len(slots) - 1
        while slots[place]:
            place = place + 1 & len(slots) - 1
        slots[place] = each
    slots.setflags(write=False)
    return slots


@piece
def _has(slots: NDArray[np.uint64], each: Hash) -> bool:
    last = np.uint64(len(slots) - 1)
    place = (each >> _ONE) & last
    while slots[place] != 0:
        if slots[place] == each:
            return True
        place = (place + _ONE) & last
    return False


@piece
def _read_words(
    data: Bytes,
    first: int,
    last: int,
    classes: Classes,
    segmenter: Segmenter,
    stops: NDArray[np.uint64],
    bounds: NDArray[np.int64],
    hashes: NDArray[np.uint64],
) -> int:
    """Fill `bounds` and `hashes` with the words of data[first:last] that are no stop words; how many there are."""
    begin_document(first, segmenter)
    position, found = first, 0
    while position < last:
        end, _, _, _, _, _ = next_token(data, position, last, classes, segmenter)
        code, _ = decode(data, position, last)
        if signed(classes[code]) & (WORD | SPACELESS):
            each = hash_bytes(data, position, end) | _ONE
            if not _has(stops, each):
                bounds[found, 0], bounds[found, 1], hashes[found] = position, end, each
                found += 1
        position = end
    return found


@piece
def _phrase_size(hashes: NDArray[np.uint64], place: int, found: int, phrases: NDArray[np.uint64]) -> int:
    """How many words the longest phrase has that begins here; 0 where none does."""
    state, size = np.uint64(0), 0
    for i in range(min(LONGEST, found - place)):
        state = mix(state, hashes[place + i])
        if i + 1 >= SHORTEST and _has(phrases, state | _ONE):
            size = i + 1
    return size


@kernel
def _prepare(
    offsets: NDArray[np.int32],
    data: Bytes,
    classes: Classes,
    segmenter: Segmenter,
    listed: _Listed,
    bounds: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    out: Bytes,
    out_offsets: NDArray[np.int32],
) -> None:
    written = 0
    for row in range(len(offsets) - 1):
        first, last = signed(offsets[row]), signed(offsets[row + 1])
        found = _read_words(data, first, last, classes, segmenter, listed.stops, bounds, hashes)
        place, start = 0, written
        while place < found:
            size = _phrase_size(hashes, place, found, listed.phrases)
            if size == 0:
                if written > start:
                    out[written] = _SPACE
                    written += 1
                for i in range(bounds[place, 0], bounds[place, 1]):
                    out[written] = data[i]
                    written += 1
            place += max(size, 1)
        out_offsets[row + 1] = written


@kernel
def _hash_phrases(
    offsets: NDArray[np.int32],
    data: Bytes,
    classes: Classes,
    segmenter: Segmenter,
    stops: NDArray[np.uint64],
    bounds: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    phrases: NDArray[np.uint64],
) -> int:
    """Fill `phrases` with the hash of every run of SHORTEST to LONGEST words of one row; how many there are."""
    found = _read_words(data, signed(offsets[0]), signed(offsets[1]), classes, segmenter, stops, bounds, hashes)
    count = 0
    for place in range(found):
        state = np.uint64(0)
        for i in range(min(LONGEST, found - place)):
            state = mix(state, hashes[place + i])
            if i + 1 >= SHORTEST:
                phrases[count] = state | _ONE
                count += 1
    return count


def phrase_hashes(text: str, preparer: WordPreparer) -> NDArray[np.uint64]:
    """The distinct hashes of a text's phrases, sorted."""
    offsets, data = utf8_buffers(pa.array([text], pa.string()))
    bounds, hashes = np.empty((len(data) + 1, 2), np.int64), np.empty(len(data) + 1, np.uint64)
    room = np.empty((LONGEST - SHORTEST + 1) * (len(data) + 1), np.uint64)
    listed = preparer._listed
    count = _hash_phrases(offsets, data, preparer._classes, preparer._segmenter, listed.stops, bounds, hashes, room)
    return np.unique(room[:count])
