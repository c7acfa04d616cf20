"""Keeping the most frequent entries of a tokenizer, as TinyStories kept 10,000 of GPT-Neo's 50,257.

Definition: the entries are ranked by how often they come up in texts; all single bytes and added tokens stay, then
entries are taken by rank, each with the entries that it is merged from, until `size` are there. The rest go with their
merges, and what they stood for is spelled with the entries that stay: nothing becomes unknown, every text comes back.
Invariant: a text whose tokens all stayed has the same tokens as before. Ids are new, in the order of the old ones.
Trade-off: entries on the way to frequent ones take places too: of GPT-2's, 10,000 kept on an English encyclopedia are
the 8,060 most frequent and 1,940 on the way to them; a token is then 3.93 bytes of text, where it was 4.65.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.errors import ModelError
from tokenizer.encode import Encoder
from tokenizer.training import byte_letters
from tokenizer.vocabulary import parse_tokenizer

Counts = npt.NDArray[np.int64]


def count_entries(encoder: Encoder, batches: Iterable[pa.StringArray]) -> Counts:
    """int64[size]: how often each entry comes up in the texts."""
    counts = np.zeros(encoder.vocabulary.size, np.int64)
    for batch in batches:
        counts += np.bincount(encoder.encode(batch).ids, minlength=len(counts))
    return counts


def keep_frequent(data: bytes, counts: Counts, size: int) -> tuple[bytes, list[int]]:
    """The `tokenizer.json` with `size` entries, and the old id of each.

    Raises ModelError for a tokenizer that is no byte-level BPE, or has no more than `size` entries.
    """
    settings = _settings(data)
    vocabulary: dict[str, int] = settings["model"]["vocab"]
    added = {token["content"]: token["id"] for token in settings["added_tokens"]}
    kept = _choose(vocabulary, added, _parts(settings["model"]["merges"]), counts, size)
    new = {old: number for number, old in enumerate(sorted(kept))}
    settings["model"]["vocab"] = {name: new[old] for name, old in vocabulary.items() if old in new}
    settings["model"]["merges"] = [
        [left, right]
        for left, right in map(_pair, settings["model"]["merges"])
        if {left, right, left + right} <= settings["model"]["vocab"].keys()
    ]
    for token in settings["added_tokens"]:
        token["id"] = new[token["id"]]
    settings["post_processor"] = None  # it may name tokens by their old ids; documents are encoded without one
    return json.dumps(settings, ensure_ascii=False, indent=1).encode(), list(new)


def _settings(data: bytes) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(parse_tokenizer(data).to_str())
    model = settings["model"]
    if model["type"] != "BPE" or not _byte_letters_of(model["vocab"]) or model.get("continuing_subword_prefix"):
        raise ModelError(
            f"only a byte-level BPE can be made smaller; this is a {model['type']} model that cannot spell all bytes",
            hint="name a tokenizer like GPT-2's, or train one of the size that you want",
        )
    return settings


def _byte_letters_of(vocabulary: Mapping[str, int]) -> Sequence[str]:
    """The letters of all bytes, or nothing where one of them is missing."""
    letters = byte_letters()
    return letters if all(letter in vocabulary for letter in letters) else ()


def _pair(merge: str | list[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _parts(merges: list[Any]) -> dict[str, tuple[str, str]]:
    """For each entry the first pair that it is merged from."""
    parts: dict[str, tuple[str, str]] = {}
    for merge in merges:
        left, right = _pair(merge)
        parts.setdefault(left + right, (left, right))
    return parts


def _choose(
    vocabulary: Mapping[str, int],
    added: Mapping[str, int],
    parts: Mapping[str, tuple[str, str]],
    counts: Counts,
    size: int,
) -> set[int]:
    kept = {*added.values(), *(vocabulary[letter] for letter in _byte_letters_of(vocabulary))}
    if not len(kept) <= size <= len({*vocabulary.values(), *added.values()}):
        raise ModelError(
            f"{size:,} entries cannot be kept of {len(vocabulary):,}",
            hint=f"ask for a number between the two, and for {len(kept):,} at least: bytes and added tokens stay",
        )
    for name in sorted(vocabulary, key=lambda name: (-counts[vocabulary[name]], vocabulary[name])):
        needed = _with_parts(name, parts, vocabulary, kept)
        if len(kept) + len(needed) <= size:
            kept |= needed
        if len(kept) == size:
            break
    return kept


def _with_parts(
    name: str, parts: Mapping[str, tuple[str, str]], vocabulary: Mapping[str, int], kept: set[int]
) -> set[int]:
    """An entry and what it is merged from, as far as it is not kept yet."""
    needed: set[int] = set()
    waiting = [name]
    while waiting:
        entry = waiting.pop()
        if vocabulary[entry] not in kept and vocabulary[entry] not in needed:
            needed.add(vocabulary[entry])
            waiting.extend(parts.get(entry, ()))
    return needed
