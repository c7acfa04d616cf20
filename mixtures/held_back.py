"""What a run holds back for its licence: by source, licence and rule, with tokens estimated, for none are stored.

The rate (tokens a byte) is that of all stored documents. Nothing is read where nothing is held back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mixtures.corpus import Corpus
from mixtures.licences import RULES
from mixtures.wording import align_columns, say_count

UNSTATED = "not stated"


@dataclass(frozen=True, kw_only=True)
class HeldBack:
    """Documents of one source and licence that would have been kept, but for a rule of licences."""

    source: str
    licence: str | None
    rule: str
    documents: int
    text_bytes: int
    estimated_tokens: int


def measure_held_back(corpus: Corpus) -> tuple[HeldBack, ...]:
    """All of them, those with most text first."""
    if not any(corpus.verdicts.manifest.facts["decided"].get(rule) for rule in RULES):
        return ()
    documents: Counter[tuple[str, str | None, str]] = Counter()
    sizes: Counter[tuple[str, str | None, str]] = Counter()
    for part, judged in corpus.pairs():
        table = corpus.catalogue.read(part, ["source", "licence", "text_bytes"])
        table = table.append_column("rule", corpus.verdicts.read(judged, ["rule"])["rule"])
        held = table.filter(pc.is_in(table["rule"], value_set=pa.array(RULES)))
        grouped = held.group_by(["source", "licence", "rule"]).aggregate(
            [("text_bytes", "sum"), ("text_bytes", "count")]
        )
        for row in grouped.to_pylist():
            key = row["source"], row["licence"], row["rule"]
            documents[key] += row["text_bytes_count"]
            sizes[key] += row["text_bytes_sum"]
    rate = _rate(corpus)
    found = [
        HeldBack(
            source=key[0],
            licence=key[1],
            rule=key[2],
            documents=documents[key],
            text_bytes=size,
            estimated_tokens=round(size * rate),
        )
        for key, size in sizes.items()
    ]
    return tuple(sorted(found, key=lambda held: (-held.text_bytes, held.source, held.licence or "", held.rule)))


def _rate(corpus: Corpus) -> float:
    facts = corpus.tokens.manifest.facts
    return facts["tokens"] / facts["bytes"] if facts["bytes"] else 0.0


def held_back_lines(held: Sequence[HeldBack]) -> list[str]:
    """A table of texts, and how to take such documents after all; nothing where nothing is held back."""
    if not held:
        return []
    rows = [
        (one.source, f"{one.documents:,}", f"~{say_count(one.estimated_tokens)}", one.licence or UNSTATED, one.rule)
        for one in held
    ]
    table = align_columns([("held back", "documents", "tokens", "licence", "by"), *rows], left=(0, 3, 4))
    restricted = [one.licence for one in held if one.rule == RULES[0] and one.licence]
    hint = f"to train on them: `allow_licences: [{', '.join(dict.fromkeys(restricted))}]` in the recipe"
    return ["", *table, *([hint] if restricted else [])]
