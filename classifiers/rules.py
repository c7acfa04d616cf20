"""Stage `rules`: lengths, Gopher's quality and repetition measurements, and a few shares of characters and lines.

Invariant: one row a document, computed from its own text alone; no measurement is null, and a ratio whose denominator
is zero is 0. Ratios are float64, so that a policy's `<= 0.3` decides as datatrove's does.

Formulas are those of datatrove 0.10's GopherQualityFilter and GopherRepetitionFilter on `text.strip()`. Where the
numbers differ, this is why:

- Words are those of `classifiers.words`, in every language; datatrove runs spaCy's English tokenizer, which keeps
  `f(x`, `a{b` and `10/20` whole. Only the share of alphabetic words lies so near its limit on good pages that this
  decides: `alphabetic_english_token_ratio` counts as spaCy does (see `english_tokens`).
- Chinese is cut by jieba's dictionary, Japanese by TinySegmenter, Thai by PyThaiNLP's list (see `segmentation`);
  a `mean_word_length` of 3 to 10 is no rule for them. datatrove lets jieba guess unseen words, and has fewer.
- `num_words` counts words with a letter or a number. datatrove counts what has a character outside its own list of
  punctuation, to which bullets, emoji, `€` and `©` do not belong.
- A line ends at U+000A only; datatrove's bullet and ellipsis rules also break at form feeds, lone carriage returns and
  U+2028, its repetition rules do not. A paragraph is a run of lines that are not empty.
- `symbol_to_word_ratio` is the larger of the two that datatrove compares with one limit, `#` and ellipses.
- A top n-gram that occurs once still has its share, as there: short texts reach high values.

Trade-off: n-grams are measured on the first `max_gram_words` words, which bounds the memory for a 50 MB page.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from classifiers.characters import character_classes
from classifiers.compiled import kernel, piece
from classifiers.english_tokens import Marks, count_english_tokens, token_marks
from classifiers.lines import line_phrases
from classifiers.phrases import Automaton
from classifiers.repetition import (
    DUPLICATE_GRAMS,
    TOP_GRAMS,
    Scratch,
    duplicate_lines,
    join_paragraphs,
    measure_grams,
    scratch_for,
)
from classifiers.scan import (
    BARE_TERMINATED,
    BULLET,
    C4_CHARS,
    C4_LINES,
    C4_SENTENCES,
    ELLIPSIS,
    FINEWEB_CURLY_BRACKET,
    FINEWEB_LOREM_IPSUM,
    FINEWEB_SENTENCES,
    LINE_TALLY_SIZE,
    REFINEDWEB_LINES,
    REFINEDWEB_REMOVED_WORDS,
    SHORT,
    SPACED_ALPHABETIC,
    SPACED_WORD_CHARS,
    SPACED_WORDS,
    TERMINATED,
    VISIBLE,
    Lines,
    Words,
    scan_lines,
    scan_words,
)
from classifiers.segmentation.kernels import Segmenter
from classifiers.segmentation.tables import PACKAGES, open_segmenter
from classifiers.utf8 import Bytes, Classes, count_chars, hash_bytes, signed, strip, utf8_buffers
from storage.stage import Stage

# What is kept or removed, in the order of the verdicts of `classifiers.lines`.
C4_LINE_COUNTS = tuple(
    f"c4_{kind}_line_count"
    for kind in ("kept", "long_word", "unpunctuated", "short", "javascript", "policy", "lorem_ipsum", "curly_bracket")
)
REFINEDWEB_LINE_COUNTS = tuple(
    f"refinedweb_{kind}_line_count" for kind in ("uppercase", "digit", "counter", "one_word", "edited")
)
GRAM_RATIOS = (
    *(f"top_{size}_gram_char_ratio" for size in TOP_GRAMS),
    *(f"duplicate_{size}_gram_char_ratio" for size in DUPLICATE_GRAMS),
)

Whole = NDArray[np.int32]
Ratio = NDArray[np.float64]


class Counts(NamedTuple):
    """Columns of whole numbers, int32[documents]; a family is int32[its names, documents]."""

    num_chars: Whole
    num_bytes: Whole
    num_lines: Whole
    num_paragraphs: Whole
    num_sentences: Whole
    num_words: Whole
    num_spaced_words: Whole
    stop_word_count: Whole
    c4_kept_sentence_count: Whole
    fineweb_kept_sentence_count: Whole
    fineweb_lorem_ipsum_line_count: Whole
    fineweb_curly_bracket_line_count: Whole
    c4_lines: Whole
    refinedweb_lines: Whole


class Ratios(NamedTuple):
    """Columns of ratios and means, float64[documents]; a family is float64[its names, documents]."""

    mean_word_length: Ratio
    symbol_to_word_ratio: Ratio
    alphabetic_word_ratio: Ratio
    digit_ratio: Ratio
    bullet_line_ratio: Ratio
    ellipsis_line_ratio: Ratio
    punctuated_line_ratio: Ratio
    duplicate_line_ratio: Ratio
    duplicate_line_char_ratio: Ratio
    duplicate_paragraph_ratio: Ratio
    duplicate_paragraph_char_ratio: Ratio
    grams: Ratio
    mean_spaced_word_length: Ratio
    alphabetic_spaced_word_ratio: Ratio
    alphabetic_english_token_ratio: Ratio
    mean_sentence_length: Ratio
    bare_punctuated_line_ratio: Ratio
    short_line_ratio: Ratio
    visible_duplicate_char_ratio: Ratio
    newline_to_word_ratio: Ratio
    c4_kept_char_ratio: Ratio
    refinedweb_removed_word_ratio: Ratio


_FAMILIES = {"c4_lines": C4_LINE_COUNTS, "refinedweb_lines": REFINEDWEB_LINE_COUNTS, "grams": GRAM_RATIOS}


def _names(fields: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for field in fields for name in _FAMILIES.get(field, (field,)))


RULES = pa.schema(
    [pa.field(name, pa.int32(), nullable=False) for name in _names(Counts._fields)]
    + [pa.field(name, pa.float64(), nullable=False) for name in _names(Ratios._fields)]
)
GOPHER_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")


@dataclass(frozen=True, kw_only=True)
class RulesConfig:
    """`stop_words` are matched as they are written; `max_gram_words` bounds the words whose n-grams are measured.

    `unicode` is the version of the character classes, Python's own: it can change the numbers, so it is recorded.
    """

    stop_words: tuple[str, ...] = GOPHER_STOP_WORDS
    max_gram_words: int = 1_000_000
    unicode: str = unicodedata.unidata_version


class RulesMeasurer:
    """The function of the stage, with the tables that it reads."""

    def __init__(self, config: RulesConfig) -> None:
        self._max_words = config.max_gram_words
        self._classes = character_classes()
        self._stops = hash_stop_words(config.stop_words)
        self._segmenter = open_segmenter()
        self._phrases = line_phrases()
        self._tally = np.zeros(LINE_TALLY_SIZE, np.int64)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        offsets, data = utf8_buffers(batch.column("text"))
        longest = int(np.diff(offsets).max(initial=0))
        words = Words(*_hashes_and_chars(min(longest, self._max_words)))
        lines = Lines(*_hashes_and_chars(longest + 1), np.empty(longest + 1, np.int32), np.empty(longest + 1, np.bool_))
        counts = Counts(*_columns(Counts._fields, batch.num_rows, np.int32))
        ratios = Ratios(*_columns(Ratios._fields, batch.num_rows, np.float64))
        scratch = scratch_for(longest + 1)
        tables = Tables(self._classes, self._segmenter, self._stops, self._phrases, token_marks())
        measure_documents(data, offsets, tables, Room(words, lines, scratch, self._tally), counts, ratios)
        columns = [column for field in (*counts, *ratios) for column in np.atleast_2d(field)]
        return pa.record_batch([pa.array(column) for column in columns], schema=RULES)


def _columns(fields: tuple[str, ...], rows: int, kind: type[np.generic]) -> Iterator[NDArray[Any]]:
    """Room for each field: a row of numbers, or one a name for a family."""
    return (np.empty((len(_FAMILIES[field]), rows) if field in _FAMILIES else rows, kind) for field in fields)


def _hashes_and_chars(rows: int) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    return np.empty(rows, np.uint64), np.empty(rows, np.int32)


class StopWords(NamedTuple):
    """Hashes as `scan_words` gives them, the length of the longest in characters, and room to tick them off."""

    hashes: NDArray[np.uint64]
    longest: int
    seen: NDArray[np.bool_]


def hash_stop_words(words: tuple[str, ...]) -> StopWords:
    hashes = np.empty(len(words), np.uint64)
    for row, word in enumerate(words):
        data = word.encode()
        hash_text(np.frombuffer(data or b"\0", np.uint8), len(data), hashes[row:])
    return StopWords(hashes, max(map(len, words), default=0), np.empty(len(words), np.bool_))


@kernel
def hash_text(data: Bytes, length: int, out: NDArray[np.uint64]) -> None:
    out[0] = hash_bytes(data, 0, length)


@piece
def count_stop_words(words: Words, count: int, stops: StopWords) -> int:
    """How many different stop words are among the first `count` words."""
    stops.seen[:] = False
    found = 0
    for row in range(count):
        if words.chars[row] > stops.longest:
            continue
        for stop in range(len(stops.hashes)):
            if words.hashes[row] == stops.hashes[stop] and not stops.seen[stop]:
                stops.seen[stop] = True
                found += 1
    return found


@piece
def share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


class Tables(NamedTuple):
    """What is looked up."""

    classes: Classes
    segmenter: Segmenter
    stops: StopWords
    phrases: Automaton
    marks: Marks


class Room(NamedTuple):
    """What one document's scan is written into."""

    words: Words
    lines: Lines
    scratch: Scratch
    tally: NDArray[np.int64]


@kernel
def measure_documents(
    data: Bytes,
    offsets: NDArray[np.int32],
    tables: Tables,
    room: Room,
    counts: Counts,
    ratios: Ratios,
) -> None:
    """Fill one row of every column a document."""
    words, lines, scratch, tally = room.words, room.lines, room.scratch, room.tally
    for row in range(len(offsets) - 1):
        first, last = signed(offsets[row]), signed(offsets[row + 1])
        start, end, cut = strip(data, first, last, tables.classes)
        chars = count_chars(data, start, end)
        word = scan_words(data, start, end, tables.classes, tables.segmenter, words, lines)
        num_lines = scan_lines(data, start, end, tables.classes, tables.phrases, lines, tally)
        english_tokens, alphabetic_tokens = count_english_tokens(data, start, end, tables.classes, tables.marks)
        measure_grams(words, word.kept, scratch)
        filled, same_lines, same_line_chars, same_visible_chars = duplicate_lines(lines, num_lines, scratch)
        paragraphs = join_paragraphs(lines, num_lines)
        _, same_paragraphs, same_paragraph_chars, _ = duplicate_lines(lines, paragraphs, scratch)

        counts.num_chars[row] = cut + chars
        counts.num_bytes[row] = last - first
        counts.num_lines[row] = num_lines
        counts.num_paragraphs[row] = paragraphs
        counts.num_sentences[row] = word.sentences
        counts.num_words[row] = word.words
        counts.num_spaced_words[row] = tally[SPACED_WORDS]
        counts.stop_word_count[row] = count_stop_words(words, word.kept, tables.stops)
        counts.c4_kept_sentence_count[row] = tally[C4_SENTENCES]
        counts.fineweb_kept_sentence_count[row] = tally[FINEWEB_SENTENCES]
        counts.fineweb_lorem_ipsum_line_count[row] = tally[FINEWEB_LOREM_IPSUM]
        counts.fineweb_curly_bracket_line_count[row] = tally[FINEWEB_CURLY_BRACKET]
        for verdict in range(len(counts.c4_lines)):
            counts.c4_lines[verdict, row] = tally[C4_LINES + verdict]
        for verdict in range(len(counts.refinedweb_lines)):
            counts.refinedweb_lines[verdict, row] = tally[REFINEDWEB_LINES + 1 + verdict]
        ratios.mean_word_length[row] = share(word.word_chars, word.words)
        ratios.symbol_to_word_ratio[row] = share(max(word.hashes, word.ellipses), word.tokens)
        ratios.alphabetic_word_ratio[row] = share(word.alphabetic, word.tokens)
        ratios.digit_ratio[row] = share(word.digits, chars)
        ratios.bullet_line_ratio[row] = share(tally[BULLET], num_lines)
        ratios.ellipsis_line_ratio[row] = share(tally[ELLIPSIS], num_lines)
        ratios.punctuated_line_ratio[row] = share(tally[TERMINATED], tally[VISIBLE])
        ratios.duplicate_line_ratio[row] = share(same_lines, filled)
        ratios.duplicate_line_char_ratio[row] = share(same_line_chars, chars)
        ratios.duplicate_paragraph_ratio[row] = share(same_paragraphs, paragraphs)
        ratios.duplicate_paragraph_char_ratio[row] = share(same_paragraph_chars, chars)
        for gram in range(len(ratios.grams)):
            ratios.grams[gram, row] = share(scratch.gram_chars[gram], word.kept_chars)
        ratios.mean_spaced_word_length[row] = share(tally[SPACED_WORD_CHARS], tally[SPACED_WORDS])
        ratios.alphabetic_spaced_word_ratio[row] = share(tally[SPACED_ALPHABETIC], tally[SPACED_WORDS])
        ratios.alphabetic_english_token_ratio[row] = share(alphabetic_tokens, english_tokens)
        ratios.mean_sentence_length[row] = share(chars, word.sentences)
        ratios.bare_punctuated_line_ratio[row] = share(tally[BARE_TERMINATED], tally[VISIBLE])
        ratios.short_line_ratio[row] = share(tally[SHORT], tally[VISIBLE])
        ratios.visible_duplicate_char_ratio[row] = share(same_visible_chars, chars - max(num_lines - 1, 0))
        ratios.newline_to_word_ratio[row] = share(max(num_lines - 1, 0), word.tokens)
        ratios.c4_kept_char_ratio[row] = share(tally[C4_CHARS], chars)
        ratios.refinedweb_removed_word_ratio[row] = share(tally[REFINEDWEB_REMOVED_WORDS], tally[SPACED_WORDS])


def rules_stage(config: RulesConfig = RulesConfig()) -> Stage:
    """Stage `rules`: reads `text`; writes RULES."""
    return Stage(
        name="rules",
        version=4,
        kind="measure",
        config=config,
        reads=("text",),
        writes=RULES,
        make=RulesMeasurer,
        packages=PACKAGES,
    )
