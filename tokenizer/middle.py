"""Fill-in-the-middle: a document's middle moved to its end, so that a model learns to write between two texts.

As OpenSeek does it (`tools/preprocess_data_args.py`): two different cuts between a document's tokens, so that none of
the three pieces is empty, then `begin`, prefix, `hole`, suffix, `end`, middle. The order that puts the suffix first
(SPM: Bavarian et al., 2022, 2207.14255) is `begin`, `hole`, suffix, `end`, prefix, middle. The tokens are the
document's own, none encoded anew, so `restore` gives them back exactly; three more tokens a document are the price.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.errors import ModelError
from storage.identity import hash_bytes

AS_IT_IS, PREFIX_FIRST, SUFFIX_FIRST = 0, 1, 2
FEWEST_TOKENS = 3
KNOWN = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    ("<|extra_200|>", "<|extra_201|>", "<|extra_202|>"),
)
"""Tokens before the prefix, the suffix and the middle: Qwen2.5-Coder; StarCoder; DeepSeek-Coder; OpenSeek."""

Ids = npt.NDArray[np.uint32]
Orders = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class FillInMiddle:
    """The three tokens, and `chosen`: the identity of what says which documents are rearranged, and how."""

    begin: int
    hole: int
    end: int
    chosen: str


def find_tokens(added: dict[str, int], named: Sequence[str] | None, at: str | None = None) -> tuple[int, int, int]:
    """The ids of the three tokens among a tokenizer's added ones. Raises ModelError where they are not there."""
    for names in (tuple(named),) if named else KNOWN:
        if all(name in added for name in names):
            begin, hole, end = (added[name] for name in names)
            return begin, hole, end
    missing = [name for name in named or () if name not in added]
    raise ModelError(
        f"the tokenizer has no added token {missing[0]!r}"
        if missing
        else "the tokenizer has no tokens for fill-in-the-middle that are known",
        at=at,
        hint="name the three before prefix, suffix and middle: `fill_in_middle` of the recipe's `tokenizer`",
    )


def rearrange(
    ids: Ids, offsets: npt.NDArray[np.int64], doc_ids: Sequence[bytes], orders: Orders, by: FillInMiddle
) -> tuple[Ids, npt.NDArray[np.int64]]:
    """The same documents (`ids[offsets[i]:offsets[i + 1]]`), each in its order; those of under 3 tokens as they are."""
    lengths = np.diff(offsets)
    moved = np.flatnonzero((orders != AS_IT_IS) & (lengths >= FEWEST_TOKENS))
    pieces, after = [ids[:0]], 0
    for i in moved.tolist():
        pieces += [ids[after : offsets[i]], *_cut(ids[offsets[i] : offsets[i + 1]], doc_ids[i], int(orders[i]), by)]
        after = int(offsets[i + 1])
    longer = lengths.copy()
    longer[moved] += 3
    return np.concatenate([*pieces, ids[after:]]), np.concatenate([[0], np.cumsum(longer)]).astype(np.int64)


def _cut(ids: Ids, doc_id: bytes, order: int, by: FillInMiddle) -> list[Ids]:
    first, second = find_cuts(doc_id, len(ids))
    prefix, middle, suffix = ids[:first], ids[first:second], ids[second:]
    begin, hole, end = (np.array([token], ids.dtype) for token in (by.begin, by.hole, by.end))
    if order == SUFFIX_FIRST:
        return [begin, hole, suffix, end, prefix, middle]
    return [begin, prefix, hole, suffix, end, middle]


def find_cuts(doc_id: bytes, length: int) -> tuple[int, int]:
    """Two different places from 1 to `length` - 1, in order: the same for a document wherever it is tokenized."""
    digest = hash_bytes(b"fill-in-the-middle", doc_id)
    first = int.from_bytes(digest[:8], "little") % (length - 1)
    second = int.from_bytes(digest[8:], "little") % (length - 2)
    second += second >= first
    return min(first, second) + 1, max(first, second) + 1


def restore(ids: npt.NDArray[Any], by: FillInMiddle | None) -> npt.NDArray[Any]:
    """A document's ids in their own order, without the three tokens; others are returned as they are."""
    if by is None or not len(ids) or ids[0] != by.begin:
        return ids
    hole, end = (int(np.flatnonzero(ids == token)[0]) for token in (by.hole, by.end))
    return np.concatenate([ids[1:hole], ids[end + 1 :], ids[hole + 1 : end]])
