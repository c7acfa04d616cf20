"""Rewrite `mask_privacy`: what stage `privacy` would find of the chosen kinds is replaced.

Invariant: text outside the spans keeps its bytes, and what is put in is not found again: labels hold no address, and
replacement addresses are FineWeb's two for e-mail, or of the ranges kept for documentation (RFC 5737, 3849). FineWeb's
IP replacements are not taken: they are public addresses that did not answer a ping. Equal values of a document get
equal replacements, as far as there are as many.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from classifiers.encoders.models import find_model
from classifiers.privacy.addresses import REPLACEMENTS
from classifiers.privacy.finder import FinderConfig, Finds, find_private
from classifiers.privacy.kinds import ENTITIES, KINDS, MASKED, Span, settle
from classifiers.rewriting import TEXT, replace_texts
from storage.stage import BatchFunction, Stage

LABELS, ADDRESSES = "<{KIND}>", "addresses"
DOCUMENTATION = {
    "email": REPLACEMENTS,
    "ipv4": ("192.0.2.1", "198.51.100.2", "203.0.113.3", "192.0.2.4", "198.51.100.5", "203.0.113.6"),
    "ipv6": ("2001:db8::1", "2001:db8::2", "2001:db8::3"),
}
COUNTED = (*KINDS, *ENTITIES)
MASKS = pa.schema(
    [TEXT]
    + [pa.field(kind, pa.int32(), nullable=False) for kind in COUNTED]
    + [pa.field("is_complete", pa.bool_(), nullable=False)]
)


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """`kinds` are masked by `replacement`: a text in which {KIND} or {kind} becomes the name of the kind, or
    `addresses` for documentation addresses where the kind has them, labels elsewhere."""

    kinds: tuple[str, ...] = MASKED
    replacement: str = LABELS
    finder: FinderConfig = FinderConfig(most_candidates=2_000_000)

    def __post_init__(self) -> None:
        known = (*KINDS, *ENTITIES)
        if unknown := sorted(set(self.kinds) - set(known)):
            raise ValueError(f"there is no kind {', '.join(unknown)}: the kinds are {', '.join(known)}")


FindEntities = Callable[[str], list[Span]]


def mask_private(
    config: MaskConfig, batch: pa.RecordBatch, find_entities: FindEntities | None = None
) -> pa.RecordBatch:
    """MASKS of a batch with `text` and `url`; `find_entities` gives a text's spans in bytes."""
    column, rows = batch.column("text"), batch.num_rows
    counts, is_complete = np.zeros((len(COUNTED), rows), np.int32), np.ones(rows, np.bool_)
    texts: dict[int, str] = {}
    for found in _finds(batch, config, find_entities):
        is_complete[found.row] = found.is_complete
        masked = [span for span in found.spans if span.kind in config.kinds]
        for span in masked:
            counts[COUNTED.index(span.kind), found.row] += 1
        if masked:
            texts[found.row] = _masked(memoryview(column[found.row].as_buffer()), masked, config)
    columns = [pa.array(values) for values in (*counts, is_complete)]
    return pa.record_batch([replace_texts(column, texts), *columns], schema=MASKS)


def _finds(batch: pa.RecordBatch, config: MaskConfig, find_entities: FindEntities | None) -> Iterator[Finds]:
    if find_entities is None:
        yield from find_private(batch, config.finder)
        return
    by_rule = {found.row: found for found in find_private(batch, config.finder)}
    for row, text in enumerate(batch.column("text").to_pylist()):
        found = by_rule.get(row, Finds(row, [], True))
        yield Finds(row, settle([*found.spans, *find_entities(text)]), found.is_complete)


def _masked(text: memoryview, spans: list[Span], config: MaskConfig) -> str:
    pieces, place = [], 0
    known: dict[tuple[str, bytes], str] = {}
    for span in spans:
        value = (span.kind, bytes(text[span.start : span.end]))
        if value not in known:
            known[value] = _replacement(span.kind, sum(kind == span.kind for kind, _ in known), config)
        pieces += [bytes(text[place : span.start]), known[value].encode()]
        place = span.end
    return b"".join([*pieces, bytes(text[place:])]).decode("utf-8", "replace")


def _replacement(kind: str, number: int, config: MaskConfig) -> str:
    """What stands for the document's `number`-th value of a kind."""
    addresses = DOCUMENTATION.get(kind, ())
    if config.replacement == ADDRESSES and addresses:
        return addresses[number % len(addresses)]
    template = LABELS if config.replacement == ADDRESSES else config.replacement
    return template.replace("{KIND}", kind.upper()).replace("{kind}", kind)


def _open(model: str | None, config: MaskConfig) -> BatchFunction:
    if model is None:
        return functools.partial(mask_private, config)
    from classifiers.privacy.entities import EntityConfig, EntityFinder

    finder = EntityFinder(model, EntityConfig())
    return functools.partial(mask_private, config, find_entities=finder.find_bytes)


def mask_stage(config: MaskConfig = MaskConfig(), *, model: str | None = None) -> Stage:
    """Rewrite `mask_privacy`: reads `text` and `url`; writes MASKS. `model` is a token classifier whose entities count.

    Raises ModelError where there is no such model, or where it is unsafe to load.
    """
    packages = ("phonenumbers", "tld", *(("torch", "transformers", "tokenizers") if model else ()))
    return Stage(
        name="mask_privacy",
        version=1,
        kind="rewrite",
        config=config,
        reads=("text", "url"),
        writes=MASKS,
        make=functools.partial(_open, model),
        packages=packages,
        files=tuple(str(path) for path in find_model(model).paths) if model else (),
    )
