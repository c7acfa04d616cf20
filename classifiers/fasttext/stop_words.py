"""What Chinese text is stripped of before fastText learns from it: stop words and phrases that stand everywhere.

CCI4.0 took five lists (baidu, cn, hit, scu, emoji). They have no licence and are not shipped: give yours by path.
Without a list, stop words are those that jieba's dictionary (MIT) tags as particles, prepositions, conjunctions,
pronouns, adverbs, numerals, measure words or places, and counts 5,000 times or more: 445 words. Symbols and emoji are
no words here, so they need no list.
Trade-off: phrases are counted in 20,000 documents, 250 MB of hashes; what stands in every tenth of a hundred documents
is found in those as surely as in 400,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from classifiers.fasttext.preparation import (
    LONGEST,
    SHORTEST,
    Preparation,
    WordPreparer,
    hash_phrase,
    phrase_hashes,
)
from classifiers.segmentation.tables import package_file
from storage.errors import InputError

FUNCTION_TAGS = frozenset("u uj ul ug uz ud uv p c r rr rz d y e o k f q m h".split())
LEAST_COUNT = 5_000
COUNTED_DOCUMENTS = 20_000


def default_stop_words() -> tuple[str, ...]:
    """Frequent function words of jieba's dictionary, sorted."""
    lines = package_file("jieba", "dict.txt").read_text("utf-8").splitlines()
    rows = [line.split() for line in lines]
    tagged = [row for row in rows if len(row) == 3 and row[2] in FUNCTION_TAGS]
    return tuple(sorted(word for word, count, _ in tagged if int(count) >= LEAST_COUNT))


def read_stop_words(files: Sequence[Path]) -> tuple[str, ...]:
    """The words of lists of one word a line, sorted. Raises InputError for what is no such file."""
    found: set[str] = set()
    for file in files:
        try:
            found.update(word for line in file.read_text("utf-8-sig").splitlines() if (word := line.strip()))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"the stop words cannot be read: {error}", at=str(file), hint="give a UTF-8 file of one word a line"
            ) from error
    return tuple(sorted(found))


def find_phrases(texts: pa.Array, stop_words: tuple[str, ...], *, most: int, least_documents: int) -> tuple[str, ...]:
    """The phrases of most documents, at most `most`, each of `least_documents` or more, the commonest first."""
    stopped = WordPreparer(Preparation(stop_words=stop_words))
    sample = [text.as_py() for text in texts.slice(0, COUNTED_DOCUMENTS)]
    hashes = np.concatenate([np.empty(0, np.uint64), *(phrase_hashes(text, stopped) for text in sample)])
    distinct, counts = np.unique(hashes, return_counts=True)
    order = np.lexsort((distinct, -counts))
    chosen = [int(distinct[i]) for i in order[:most] if counts[i] >= least_documents]
    spelled = _spell(sample, stopped, set(chosen))
    return tuple(spelled[each] for each in chosen)


def _spell(sample: Sequence[str], stopped: WordPreparer, wanted: set[int]) -> dict[int, str]:
    """The words behind hashes, from the first text that has each."""
    found: dict[int, str] = {}
    for text in sample:
        if len(found) == len(wanted):
            break
        if wanted.intersection(phrase_hashes(text, stopped).tolist()) - found.keys():
            words = stopped(pa.array([text], pa.string()))[0].as_py().split(" ")
            runs = (words[i : i + size] for size in range(SHORTEST, LONGEST + 1) for i in range(len(words) - size + 1))
            found |= {each: " ".join(run) for run in runs if (each := hash_phrase(run)) in wanted}
    return found
