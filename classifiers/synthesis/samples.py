"""What synthesis writes, as tables: drafts, documents and errors, each row with all that says how it came about.

Invariant: a draft names the document, its text's hash and the bytes that it was made from, the brief, its wording, the
model and the seed; its licence is its source's. Nothing is judged here: a document is a draft that screening let
through, and a limit can be moved without paying for the text again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from classifiers.llm.asking import Failed
from classifiers.synthesis.brief import Brief
from classifiers.synthesis.copying import copied_shares
from classifiers.synthesis.passages import Span
from classifiers.synthesis.writing import Outcome, Tokens, Written
from storage.identity import content_hash, fingerprint, hash_bytes
from storage.schema import DOCUMENTS, IDENTIFIER, encode

VERSION = 1
SPAN = pa.struct([pa.field("start", pa.int64(), nullable=False), pa.field("end", pa.int64(), nullable=False)])
PROVENANCE = (
    pa.field("parents", pa.list_(IDENTIFIER), nullable=False),
    pa.field("parent_hash", IDENTIFIER, nullable=False),
    pa.field("spans", pa.list_(SPAN), nullable=False),
    pa.field("language", pa.string()),
    pa.field("brief", pa.string(), nullable=False),
    pa.field("prompt_version", pa.string(), nullable=False),
    pa.field("model", pa.string(), nullable=False),
    pa.field("seed", pa.int64(), nullable=False),
    pa.field("temperature", pa.float64(), nullable=False),
    pa.field("query", pa.string()),
    pa.field("chain", pa.string()),
    pa.field("copied_share", pa.float64(), nullable=False),
    pa.field("written_tokens", pa.int32(), nullable=False),
    pa.field("prompt_tokens", pa.int32(), nullable=False),
    pa.field("completion_tokens", pa.int32(), nullable=False),
    pa.field("attempts", pa.int32(), nullable=False),
)
SYNTHETIC = pa.schema([*DOCUMENTS, *PROVENANCE])
"""DOCUMENTS and where each row comes from. `written_tokens` are those of the answer that stands in the text, the other
tokens all that were paid for."""
DRAFTS = pa.schema([*SYNTHETIC, pa.field("written", pa.string(), nullable=False)])
"""`written` is what the model wrote, without the source's text."""
ERRORS = pa.schema(
    [
        pa.field("doc_id", IDENTIFIER, nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("end", pa.int64(), nullable=False),
        pa.field("step", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("said", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Author:
    """Who writes, by what and how: all that a draft's identity is made of."""

    brief: Brief
    model: str
    model_identity: str
    seed: int

    def identity(self) -> str:
        made_of = [self.brief.name, self.brief.version(), self.model_identity, self.seed]
        return fingerprint({"synthesis": VERSION, "author": made_of})

    @property
    def source(self) -> str:
        """The source that the documents come from."""
        return f"synthetic/{self.brief.name}"


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A document that is written from: a row of DOCUMENTS, its language, and what of it was written from before."""

    row: Mapping[str, Any]
    language: str | None
    done: Sequence[Span] = ()

    @property
    def doc_id(self) -> bytes:
        return bytes(self.row["doc_id"])


def draft_rows(found: Iterable[tuple[Parent, Outcome]], author: Author) -> pa.Table:
    """DRAFTS of the outcomes that are texts, by parent and place."""
    drafts = [(parent, outcome, outcome.result) for parent, outcome in found if isinstance(outcome.result, Written)]
    drafts.sort(key=lambda draft: (draft[0].doc_id, draft[1].passage.span))
    shares = copied_shares([_clean(draft[2].text) for draft in drafts], [draft[1].passage.text for draft in drafts])
    rows = [_row(*draft, author, float(share)) for draft, share in zip(drafts, shares, strict=True)]
    return pa.Table.from_pylist(rows, schema=DRAFTS)


def _row(parent: Parent, outcome: Outcome, written: Written, author: Author, share: float) -> dict[str, Any]:
    brief, made = author.brief, _clean(written.text)
    text = place_source(made, outcome.passage.text, brief)
    spent = total_tokens(outcome.tokens.values())
    return {
        **{name: parent.row[name] for name in ("title", "url", "record", "collected_at", "licence")},
        "doc_id": synthetic_doc_id(author, parent.row, outcome.passage.span),
        "content_hash": content_hash(text.encode()),
        "text": text,
        "source": author.source,
        "parents": [parent.doc_id],
        "parent_hash": parent.row["content_hash"],
        "spans": [vars(span) for span in written.spans],
        "language": parent.language,
        "brief": brief.name,
        "prompt_version": brief.version(),
        "model": author.model,
        "seed": author.seed,
        "temperature": brief.temperature,
        "query": written.query and _clean(written.query),
        "chain": written.chain and _clean(written.chain),
        "copied_share": share,
        "written_tokens": written.tokens,
        "prompt_tokens": spent.prompt,
        "completion_tokens": spent.completion,
        "attempts": outcome.attempts,
        "written": made,
    }


def place_source(written: str, source: str, brief: Brief) -> str:
    """The text of a document: what was written, with its source where the brief says."""
    placed = {"none": (written,), "before": (source, written), "after": (written, source)}[brief.source_text]
    return "\n\n".join(placed)


def synthetic_doc_id(author: Author, parent: Mapping[str, Any], span: Span) -> bytes:
    """The document that an author writes of these bytes of a document."""
    place = f"{span.start}-{span.end}".encode()
    return hash_bytes(b"synthesis", author.identity().encode(), parent["doc_id"], parent["content_hash"], place)


def error_rows(found: Iterable[tuple[Parent, Outcome]]) -> pa.Table:
    """ERRORS of the outcomes that are none, by parent and place."""
    rows = [
        error_row(parent.doc_id, outcome.passage.span, outcome.step, outcome.result, outcome.attempts)
        for parent, outcome in found
        if isinstance(outcome.result, Failed)
    ]
    rows.sort(key=lambda row: (row["doc_id"], row["start"]))
    return pa.Table.from_pylist(rows, schema=ERRORS)


def error_row(doc_id: bytes, span: Span, step: str, failed: Failed, attempts: int) -> dict[str, Any]:
    said = _clean(failed.said)
    return {"doc_id": doc_id, **vars(span), "step": step, "reason": failed.reason, "attempts": attempts, "said": said}


def count_tokens(outcomes: Iterable[Outcome]) -> dict[str, dict[str, int]]:
    """Requests, prompt and completion tokens by step, of texts and failures alike."""
    by_step: dict[str, list[Tokens]] = {}
    for outcome in outcomes:
        for step, tokens in outcome.tokens.items():
            by_step.setdefault(step, []).append(tokens)
    return {step: vars(total_tokens(all_of)) for step, all_of in sorted(by_step.items())}


def total_tokens(tokens: Iterable[Tokens]) -> Tokens:
    held = list(tokens)
    return Tokens(
        sum(one.requests for one in held), sum(one.prompt for one in held), sum(one.completion for one in held)
    )


def _clean(text: str) -> str:
    return encode(text).decode()
