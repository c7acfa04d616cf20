"""Canaries: pairs of known similarity, planted beside real documents of the run, that measure the run's own search.

Variants are made in memory from a sample of the run's texts, half by scattered word edits and half by another text's
ending; their true similarity comes from the plain implementation in `reference.py`. Originals and variants pass through
all phases with the run's configuration, and nothing of them is written. 400 pairs take about 2 s.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.dedup.deduplicate import find_duplicates
from pipelines.dedup.parameters import DedupConfig, candidate_probability
from pipelines.dedup.reference import Shingles, Span, find_tokens, jaccard, make_shingles, normalise_text
from storage.schema import IDENTIFIER

NUM_PAIRS = 400
FEWEST_TOKENS = 60
MOST_TOKENS = 400
_STEPS_ABOVE = 4


@dataclass(frozen=True, kw_only=True)
class RecallBand:
    """Planted pairs whose measured Jaccard is in [lowest, highest), with 1 in the last band; `expected` is the recall
    that bands and rows give them on paper, 0 below the threshold."""

    lowest: float
    highest: float
    planted: int
    found: int
    expected: float


@dataclass(frozen=True, kw_only=True)
class CanaryReport:
    """`reported`: all pairs that the search reported, natural ones too; `confirmed`: those that the plain
    implementation puts at the threshold or above."""

    bands: tuple[RecallBand, ...]
    reported: int
    confirmed: int

    @property
    def recall(self) -> float | None:
        """Found / planted at and above the threshold; None when nothing could be planted."""
        planted = sum(band.planted for band in self.bands[1:])
        return sum(band.found for band in self.bands[1:]) / planted if planted else None

    @property
    def precision(self) -> float | None:
        """Confirmed / reported; None when nothing was reported."""
        return self.confirmed / self.reported if self.reported else None


@dataclass(frozen=True)
class _Canary:
    original: str
    variant: str
    similarity: float


def measure_recall(config: DedupConfig, texts: Sequence[str], seed: int, num_pairs: int = NUM_PAIRS) -> CanaryReport:
    """Recall by band of Jaccard similarity and precision, measured on pairs made from `texts` (a sample of the run).

    Texts under 60 tokens, or two shingles, cannot carry an edit of known size and are left out; longer than 400 they
    are cut.
    """
    canaries = plant_canaries(config, texts, random.Random(seed), num_pairs)
    originals, variants = [c.original for c in canaries], [c.variant for c in canaries]
    every_text = originals + variants
    doc_ids = pa.array([i.to_bytes(16) for i in range(len(every_text))], IDENTIFIER)
    found = find_duplicates([pa.table({"doc_id": doc_ids, "text": pa.array(every_text, pa.string())})], config)
    reported = {
        (int.from_bytes(a), int.from_bytes(b))
        for a, b in zip(*(found.pairs.column(name).to_pylist() for name in ("a_doc_id", "b_doc_id")), strict=True)
    }
    sets = [make_shingles(text, config.signature) for text in every_text]
    confirmed = sum(jaccard(sets[a], sets[b]) >= config.threshold for a, b in reported)
    hits = [(i, i + len(canaries)) in reported for i in range(len(canaries))]
    return CanaryReport(bands=_count(config, canaries, hits), reported=len(reported), confirmed=confirmed)


def plant_canaries(config: DedupConfig, texts: Sequence[str], chance: random.Random, num_pairs: int) -> list[_Canary]:
    """Up to `num_pairs` originals with a variant each, their similarities spread from below the threshold to 1."""
    pool = _usable(config, texts, chance, num_pairs)
    canaries: list[_Canary] = []
    for i, (text, spans) in enumerate(pool if len(pool) > 1 else []):
        other, other_spans = pool[i - 1]
        target = chance.uniform(*_band_edges(config)[i % (_STEPS_ABOVE + 1)])
        lost = (1 - target) / (1 + target)
        edit = _scatter if i // (_STEPS_ABOVE + 1) % 2 else _replace_end
        variant = edit(text, spans, other, other_spans, lost, config.signature.shingle_size, chance)
        similarity = jaccard(*(make_shingles(each, config.signature) for each in (text, variant)))
        if normalise_text(variant) != text:
            canaries.append(_Canary(text, variant, similarity))
    return canaries


def _usable(
    config: DedupConfig, texts: Sequence[str], chance: random.Random, num_pairs: int
) -> list[tuple[str, list[Span]]]:
    """Distinct texts that are long enough, normalised and cut, with their tokens."""
    found: dict[Shingles, tuple[str, list[Span]]] = {}
    for text in chance.sample(texts, len(texts)):
        if len(found) == num_pairs:
            break
        text = normalise_text(text)
        spans = find_tokens(text, config.signature)[:MOST_TOKENS]
        if len(spans) >= max(FEWEST_TOKENS, 2 * config.signature.shingle_size):
            text = text[: spans[-1][1]].rstrip()
            found[make_shingles(text, config.signature)] = (text, spans)
    return list(found.values())


def _scatter(
    text: str, spans: list[Span], other: str, other_spans: list[Span], lost: float, size: int, chance: random.Random
) -> str:
    """Replace single tokens, at least a shingle apart, until the share `lost` of the shingles is gone."""
    places = range(size - 1, len(spans) - size + 1, size)
    count = max(1, min(len(places), round(lost * (len(spans) - size + 1) / size)))
    for i in sorted(chance.sample(places, count), reverse=True):
        start, end = chance.choice(other_spans)
        text = text[: spans[i][0]] + other[start:end] + text[spans[i][1] :]
    return text


def _replace_end(
    text: str, spans: list[Span], other: str, other_spans: list[Span], lost: float, size: int, chance: random.Random
) -> str:
    """Replace the last tokens by as many of the other text's."""
    count = max(1, min(len(spans), len(other_spans), round(lost * (len(spans) - size + 1))))
    return text[: spans[-count][0]] + other[other_spans[-count][0] :]


def _band_edges(config: DedupConfig) -> list[tuple[float, float]]:
    """One band below the threshold, as wide as two of the four above it."""
    step = (1 - config.threshold) / _STEPS_ABOVE
    edges = [round(config.threshold + i * step, 6) for i in range(_STEPS_ABOVE)] + [1.0]
    below = round(max(0.0, config.threshold - 2 * step), 6)
    return list(zip([below, *edges], edges, strict=False))


def _count(config: DedupConfig, canaries: Sequence[_Canary], hits: Sequence[bool]) -> tuple[RecallBand, ...]:
    bands = []
    for number, (lowest, highest) in enumerate(_band_edges(config)):
        reach = float("inf") if number == _STEPS_ABOVE else highest
        inside = [i for i, canary in enumerate(canaries) if lowest <= canary.similarity < reach]
        chances = [_chance(config, canaries[i].similarity) for i in inside] if number else []
        bands.append(
            RecallBand(
                lowest=lowest,
                highest=highest,
                planted=len(inside),
                found=sum(hits[i] for i in inside),
                expected=sum(chances) / len(chances) if chances else 0.0,
            )
        )
    return tuple(bands)


def _chance(config: DedupConfig, similarity: float) -> float:
    return candidate_probability(similarity, config.signature.bands, config.signature.rows)
