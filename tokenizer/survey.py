"""What a tokenizer does to a corpus: bytes per token, tokens per word, entries that never come up, texts that change.

Definitions: a word is a run of letters, marks and digits; in scripts without spaces (Han, kana, Thai, Lao, Khmer,
Burmese) each character is one. Fertility is tokens per word. A text changes when decoding its ids gives another one.
End-of-document ids are not counted. Entries are unused when no text of the survey has them; added tokens do not count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tokenizer.encode import Encoder, TokenBatch

_SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORD = rf"[{_SPACELESS}]|(?:[^\P{{L}}{_SPACELESS}]|\p{{N}}|\p{{M}})+"
"""In RE2's notation, which Arrow reads."""


@dataclass(kw_only=True)
class Tally:
    """What the documents of one group come to."""

    documents: int = 0
    bytes: int = 0
    words: int = 0
    tokens: int = 0
    changed: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(**{name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__})

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / self.tokens if self.tokens else 0.0

    @property
    def tokens_per_word(self) -> float:
        return self.tokens / self.words if self.words else 0.0


@dataclass(kw_only=True)
class Survey:
    """Tallies by group, and how often each entry came up (int64[size])."""

    counts: npt.NDArray[np.int64]
    groups: dict[tuple[str, ...], Tally] = field(default_factory=dict)

    @property
    def total(self) -> Tally:
        return sum(self.groups.values(), Tally())

    def along(self, column: int) -> dict[str, Tally]:
        """The tallies by one column of the groups' names, those with the most bytes first."""
        found: dict[str, Tally] = {}
        for group, tally in self.groups.items():
            found[group[column]] = found.get(group[column], Tally()) + tally
        return dict(sorted(found.items(), key=lambda item: (-item[1].bytes, item[0])))

    def unused(self, added: Iterable[int] = ()) -> npt.NDArray[np.int64]:
        """Ids of the entries that never came up, without the added ones."""
        return np.setdiff1d(np.flatnonzero(self.counts == 0), np.fromiter(added, np.int64))


def survey_tokenizer(encoder: Encoder, batches: Iterable[tuple[list[tuple[str, ...]], pa.StringArray]]) -> Survey:
    """Encode and decode the texts of each batch; the list beside them names each text's group."""
    survey = Survey(counts=np.zeros(encoder.vocabulary.size, np.int64))
    for groups, texts in batches:
        encoded = encoder.encode(texts)
        survey.counts += np.bincount(encoded.ids, minlength=len(survey.counts))
        columns = {
            "bytes": pc.fill_null(pc.binary_length(texts), 0).to_pylist(),
            "words": pc.fill_null(pc.count_substring_regex(texts, WORD), 0).to_pylist(),
            "tokens": np.diff(encoded.offsets).tolist(),
            "changed": _changed(encoder, encoded, texts),
        }
        for i, group in enumerate(groups):
            tally = Tally(documents=1, **{name: column[i] for name, column in columns.items()})
            survey.groups[group] = survey.groups.get(group, Tally()) + tally
    return survey


def _changed(encoder: Encoder, encoded: TokenBatch, texts: pa.StringArray) -> list[int]:
    ends = zip(encoded.offsets, encoded.offsets[1:], strict=False)
    decoded = encoder.decode_batch([encoded.ids[start:stop] for start, stop in ends])
    return [int(text != (original.as_py() or "")) for text, original in zip(decoded, texts, strict=True)]


def survey_json(survey: Survey, columns: tuple[str, ...], added: Iterable[int] = ()) -> dict[str, Any]:
    """The survey as JSON: all texts, the groups of each column, and the unused entries by id."""
    unused = survey.unused(added)
    return {
        "all": _tally_json(survey.total),
        **{
            name: {group: _tally_json(tally) for group, tally in survey.along(i).items()}
            for i, name in enumerate(columns)
        },
        "entries": len(survey.counts),
        "unused": unused.tolist(),
    }


def _tally_json(tally: Tally) -> dict[str, float]:
    return {
        **{name: getattr(tally, name) for name in tally.__dataclass_fields__},
        "bytes_per_token": round(tally.bytes_per_token, 4),
        "tokens_per_word": round(tally.tokens_per_word, 4),
    }
