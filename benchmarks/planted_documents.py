"""A corpus of any size made of real sentences, with planted duplicates, addressable by part.

Invariant: a document's bytes depend on its number, the sentences and the corpus's settings alone; no part needs another
one, and a corpus that grows keeps the parts that it has. A duplicate is an edit of an original with a lower number, in
whatever part that is. Documents have 1.5 to 3.5 KB; a core makes more than 100,000 of them a second.

How alike two documents are is *aimed at* here, by words as the kernel below sees them; `pipelines/dedup/reference.py`
measures it. What it costs: sentences repeat (one of 20 million documents shares a sentence with some thousand others),
which asks of a search what boilerplate does.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.corpora import CHINESE, ENGLISH, read_documents
from pipelines.dedup.compiled import compiled
from storage.errors import CurationError
from storage.schema import IDENTIFIER

ORIGINAL, COPY, NEAR, PLANTED = range(4)
PLANTED_SIMILARITIES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
WORDS_CHANGED, TAIL_REPLACED = range(2)

SENTENCE_BYTES = range(30, 300)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*|\n+")  # noqa: RUF001  Chinese full stops
_HAN = re.compile("[\u4e00-\u9fff]")

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PlantedCorpus:
    """What is planted, as shares of all documents; Chinese documents are `chinese` of the originals.

    `copies` are exact; `near_duplicates` aim at similarities from 0.8 to 1; `pairs` are the planted ones, by turns at
    each of PLANTED_SIMILARITIES, half of them with words changed here and there and half with another tail.
    """

    documents_per_part: int = 10_000
    near_duplicates: float = 0.01
    copies: float = 0.005
    pairs: float = 0.0
    chinese: float = 0.1
    seed: int = 1

    def __post_init__(self) -> None:
        planted = self.near_duplicates + self.copies + self.pairs
        if not 0 <= planted <= 0.9:
            raise CurationError(f"{planted:.0%} of the documents are to be planted; at most 90% can have an original")


@dataclass(frozen=True)
class Sentences:
    """Real sentences, English before Chinese: `data[offsets[i]:offsets[i + 1]]`, and where their words are."""

    offsets: Integers
    data: Bytes
    num_english: int
    word_starts: Integers
    word_ends: Integers
    num_english_words: int


def read_sentences(folder: Path) -> Sentences:
    """Distinct sentences of a folder: the test data's articles, or any folder of .txt, .jsonl and .jsonl.gz files."""
    found = dict.fromkeys(sentence for text in _read_texts(folder) for sentence in _cut_sentences(text))
    english = [sentence for sentence in found if not _HAN.search(sentence)]
    chinese = [sentence for sentence in found if _HAN.search(sentence)]
    if not english and not chinese:
        raise CurationError(f"no sentences under {folder}", hint="name a folder of .txt or .jsonl files")
    return gather_sentences(english, chinese)


def gather_sentences(english: list[str], chinese: list[str]) -> Sentences:
    """Sentences of SENTENCE_BYTES in one buffer."""
    pieces = [sentence.encode() for sentence in english + chinese]
    offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces], dtype=np.int64)])
    data = np.frombuffer(b"".join(pieces), np.uint8)
    starts, ends = np.empty(len(data), np.int64), np.empty(len(data), np.int64)
    count = _find_words(data, 0, len(data), starts, ends)
    num_english_words = int(np.searchsorted(starts[:count], offsets[len(english)]))
    return Sentences(offsets, data, len(english), starts[:count].copy(), ends[:count].copy(), num_english_words)


def _read_texts(folder: Path) -> Iterator[str]:
    if (folder / "INDEX.md").exists():
        yield from (row.text for row in read_documents(folder) if row.language in (ENGLISH, CHINESE))
    for path in sorted(folder.glob("*.txt")):
        yield path.read_text(encoding="utf-8", errors="replace")
    for path in sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")]):
        opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")
        with opened as lines:
            yield from (json.loads(line)["text"] for line in lines)


def _cut_sentences(text: str) -> Iterator[str]:
    pieces = (" ".join(piece.split()) for piece in _SENTENCE_END.split(text))
    yield from (piece for piece in pieces if len(piece.encode()) in SENTENCE_BYTES)


def make_part(sentences: Sentences, corpus: PlantedCorpus, part: int) -> pa.Table:
    """The documents of a part: `doc_id` (the last 8 bytes are the document's number) and `text`."""
    first = part * corpus.documents_per_part
    return make_documents(sentences, corpus, np.arange(first, first + corpus.documents_per_part))


def make_documents(sentences: Sentences, corpus: PlantedCorpus, numbers: Integers) -> pa.Table:
    """The documents of those numbers, in that order: `doc_id` and `text`."""
    kinds, origins, similarities, ways = describe_documents(corpus, numbers)
    pools = _pools(sentences, corpus)
    offsets, data = _write_documents(
        numbers, kinds, origins, similarities, ways, corpus.seed, *pools,
        sentences.offsets, sentences.data, sentences.word_starts, sentences.word_ends,
    )  # fmt: skip
    texts = pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(data))
    return pa.table({"doc_id": name_documents(corpus, numbers), "text": texts})


def name_documents(corpus: PlantedCorpus, numbers: Integers) -> pa.Array:
    """doc_ids: 8 bytes of hash, so that they are spread, and the number."""
    halves = np.empty((len(numbers), 2), ">u8")
    halves[:, 0] = _hash_numbers(numbers, corpus.seed)
    halves[:, 1] = numbers
    return pa.FixedSizeBinaryArray.from_buffers(IDENTIFIER, len(numbers), [None, pa.py_buffer(halves)])


def number_of(doc_id: bytes) -> int:
    """The number of the document of that doc_id."""
    return int.from_bytes(doc_id[8:])


def list_pairs(corpus: PlantedCorpus, numbers: Integers) -> pa.Table:
    """The planted pairs whose variant is among the numbers: variant, original (numbers), aim, way."""
    kinds, origins, similarities, ways = describe_documents(corpus, numbers)
    planted = kinds == PLANTED
    columns = (numbers, origins, similarities, ways)
    names = ("variant", "original", "aim", "way")
    return pa.table({name: column[planted] for name, column in zip(names, columns, strict=True)})


def describe_documents(corpus: PlantedCorpus, numbers: Integers) -> tuple[Integers, Integers, Numbers, Integers]:
    """(kind, number of the original, aimed similarity, way of editing) of each document."""
    shares = np.cumsum([corpus.copies, corpus.near_duplicates, corpus.pairs])
    return _describe(np.asarray(numbers, np.int64), corpus.seed, shares, np.array(PLANTED_SIMILARITIES))


def _pools(sentences: Sentences, corpus: PlantedCorpus) -> tuple[float, int, int]:
    """(share of Chinese documents, English sentences, English words); one of the pools may be empty."""
    chinese = corpus.chinese if len(sentences.offsets) - 1 > sentences.num_english else 0.0
    return (chinese if sentences.num_english else 1.0), sentences.num_english, sentences.num_english_words


@compiled
def _hash(number: int, salt: int) -> np.uint64:
    """SplitMix64's finaliser over both: 64 bits that look random, the same everywhere."""
    value = np.uint64(number) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt) * np.uint64(0xD6E8FEB86659FD93)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@compiled
def _below(limit: int, number: int, salt: int) -> int:
    """A whole number from 0 to limit - 1."""
    return int(((_hash(number, salt) >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32))


@compiled
def _share(number: int, salt: int) -> float:
    """A number in [0, 1)."""
    return float(_hash(number, salt) >> np.uint64(11)) / 9007199254740992.0


@compiled
def _hash_numbers(numbers: Integers, seed: int) -> npt.NDArray[np.uint64]:
    hashes = np.empty(len(numbers), np.uint64)
    for i in range(len(numbers)):
        hashes[i] = _hash(numbers[i], seed)
    return hashes


@compiled
def _kind(number: int, seed: int, shares: Numbers) -> int:
    if number == 0:
        return 0
    drawn = _share(number, 16 * seed + 1)
    return 1 if drawn < shares[0] else (2 if drawn < shares[1] else (3 if drawn < shares[2] else 0))


@compiled
def _describe(
    numbers: Integers, seed: int, shares: Numbers, similarities: Numbers
) -> tuple[Integers, Integers, Numbers, Integers]:
    kinds, origins = np.zeros(len(numbers), np.int64), numbers.copy()
    aims, ways = np.ones(len(numbers), np.float64), np.zeros(len(numbers), np.int64)
    for i in range(len(numbers)):
        number = numbers[i]
        kinds[i] = _kind(number, seed, shares)
        if kinds[i] == 0:
            continue
        attempt = 0
        while True:
            origins[i] = _below(number, number, 16 * seed + 2 + 1024 * attempt)
            attempt += 1
            if _kind(origins[i], seed, shares) == 0:
                break
        turn = _hash(number, 16 * seed + 3) % np.uint64(2 * len(similarities))
        ways[i] = int(turn) % 2
        if kinds[i] == 2:
            aims[i] = 0.8 + 0.2 * _share(number, 16 * seed + 4)
        elif kinds[i] == 3:
            aims[i] = similarities[int(turn) // 2]
    return kinds, origins, aims, ways


@compiled
def _find_words(data: Bytes, start: int, end: int, starts: Integers, ends: Integers) -> int:
    """Where words are, roughly: runs of ASCII letters and digits and of two-byte characters, single Han characters."""
    count, position, is_open = 0, start, False
    while position < end:
        byte = data[position]
        is_han = 0xE4 <= byte <= 0xE9
        length = 1 if byte < 0xC0 else (2 if byte < 0xE0 else (3 if byte < 0xF0 else 4))
        is_letter = (0x30 <= byte <= 0x39) or (0x41 <= byte <= 0x5A) or (0x61 <= byte <= 0x7A) or (0xC3 <= byte <= 0xDF)
        if is_open and not is_letter:
            ends[count] = position
            count, is_open = count + 1, False
        if is_han:
            starts[count], ends[count] = position, min(end, position + length)
            count += 1
        elif is_letter and not is_open:
            starts[count], is_open = position, True
        position += length
    if is_open:
        ends[count] = end
        count += 1
    return count


@compiled
def _copy(data: Bytes, start: int, end: int, out: Bytes, size: int) -> int:
    for i in range(end - start):
        out[size + i] = data[start + i]
    return size + end - start


@compiled
def _write_original(
    number: int, salt: int, is_chinese: bool, first: int, last: int, offsets: Integers, data: Bytes, out: Bytes
) -> int:
    """Sentences first to last - 1 at random until the document is long enough: its bytes, in `out`."""
    aim, size, count = 1500 + _below(2001, number, salt + 5), 0, 0
    begins, ends = np.empty(3501, np.int64), np.empty(3501, np.int64)
    while size < aim:  # where they are before what they are, so that the cache misses overlap
        sentence = first + _below(last - first, number, salt + 6 + 1024 * count)
        begins[count], ends[count] = offsets[sentence], offsets[sentence + 1]
        size += ends[count] - begins[count] + 1
        count += 1
    size = 0
    for i in range(count):
        size = _copy(data, begins[i], ends[i], out, size)
        if i % 6 == 5 or not is_chinese:
            out[size] = 0x0A if i % 6 == 5 else 0x20
            size += 1
    return size - 1 if out[size - 1] <= 0x20 else size


@compiled
def _mark_changes(
    number: int, salt: int, way: int, similarity: float, num_words: int, marks: npt.NDArray[np.bool_]
) -> None:
    """Which words to replace so that about that similarity of word 5-grams is left."""
    marks[:num_words] = False
    shingles = num_words - 4
    lost = max(1, int(round(shingles * (1.0 - similarity) / (1.0 + similarity))))
    if shingles < 20:
        return
    if way == 1:
        marks[num_words - lost : num_words] = True
        return
    if lost % 5 > 0:
        marks[lost % 5 - 1] = True  # a word so near the beginning is in fewer than five of them
    slots, wanted = (num_words - 13) // 5, lost // 5
    for slot in range(slots):
        if _below(slots - slot, number, salt + 7 + 1024 * slot) < wanted:
            marks[9 + 5 * slot - 1] = True
            wanted -= 1


@compiled
def _edit(
    text: Bytes, length: int, number: int, salt: int, marks: npt.NDArray[np.bool_], num_words: int,
    starts: Integers, ends: Integers, first: int, last: int, data: Bytes, word_starts: Integers, word_ends: Integers,
    out: Bytes, size: int,
) -> int:  # fmt: skip
    """Append the text, its marked words replaced by words first to last - 1 of the sentences."""
    done = 0
    for word in range(num_words):
        if marks[word]:
            size = _copy(text, done, starts[word], out, size)
            new = first + _below(last - first, number, salt + 9 + 1024 * word)
            size = _copy(data, word_starts[new], word_ends[new], out, size)
            done = ends[word]
    return _copy(text, done, length, out, size)


@compiled
def _write_documents(
    numbers: Integers, kinds: Integers, origins: Integers, similarities: Numbers, ways: Integers, seed: int,
    chinese: float, num_english: int, num_english_words: int,
    offsets: Integers, data: Bytes, word_starts: Integers, word_ends: Integers,
) -> tuple[npt.NDArray[np.int32], Bytes]:  # fmt: skip
    """(offsets int32[n+1], data) of the documents. Sentences overshoot and new words may be longer: room for both."""
    room, salt, size = 3 * 3500, 16 * seed, 0
    out, out_offsets = np.empty(len(numbers) * room, np.uint8), np.zeros(len(numbers) + 1, np.int32)
    text, marks = np.empty(room, np.uint8), np.empty(room, np.bool_)
    starts, ends = np.empty(room, np.int64), np.empty(room, np.int64)
    for i in range(len(numbers)):
        number, origin = numbers[i], origins[i]
        is_chinese = _share(origin, salt + 8) < chinese
        first, last = (num_english, len(offsets) - 1) if is_chinese else (0, num_english)
        if kinds[i] < 2:
            size += _write_original(origin, salt, is_chinese, first, last, offsets, data, out[size:])
        else:
            length = _write_original(origin, salt, is_chinese, first, last, offsets, data, text)
            num_words = _find_words(text, 0, length, starts, ends)
            _mark_changes(number, salt, ways[i], similarities[i], num_words, marks)
            first, last = (num_english_words, len(word_starts)) if is_chinese else (0, num_english_words)
            size = _edit(
                text, length, number, salt, marks, num_words, starts, ends, first, last,
                data, word_starts, word_ends, out, size,
            )  # fmt: skip
        out_offsets[i + 1] = size
    return out_offsets, out[:size]
