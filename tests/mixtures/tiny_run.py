"""A tiny run: documents whose names are their ids, measured, catalogued, judged and tokenized."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mixtures.binding import bind_policy
from mixtures.catalogue import publish_catalogue, write_catalogue_part
from mixtures.corpus import Corpus, open_corpus
from mixtures.decisions import commit_decisions, publish_decisions
from mixtures.judge import judge_duplicates, judge_rules
from mixtures.policy import Policy
from storage.identity import fingerprint
from storage.manifests import Dataset, Manifest, open_dataset, write_manifest
from storage.megatron import IndexedWriter
from storage.parts import Part, commit_table
from storage.schema import DOCUMENTS, IDENTIFIER, Document, documents_table

END = 0
KEEP_ALL = """
format_version: 1
name: nearly_all
rules:
  - {rule: too_few_words, measure: rules.num_words, min: 3}
"""


@dataclass(frozen=True)
class Doc:
    """A document as the tests say it; `tokens` counts the end-of-document id."""

    name: str
    source: str = "web"
    words: int | None = 10
    label: str = "en"
    score: float | None = 0.9
    bucket: int | None = 10
    ratio: float = 0.0
    host: str | None = "example.org"
    tokens: int = 11
    cluster: str | None = None
    cluster_size: int = 1
    text: str = "some text"
    licence: str | None = None
    metadata_only: bool = False
    author: str | None = None
    published_at: datetime | None = None

    @property
    def doc_id(self) -> bytes:
        return doc_id(self.name)


def doc_id(name: str) -> bytes:
    return name.encode().ljust(16, b".")


def name_of(identifier: bytes) -> str:
    return identifier.rstrip(b".").decode()


MEASURE = pa.schema(
    [
        pa.field("doc_id", IDENTIFIER, nullable=False),
        ("language", pa.struct([("label", pa.string()), ("score", pa.float32())])),
        (
            "rules",
            pa.struct(
                [
                    ("num_words", pa.int32()),
                    ("num_bytes", pa.int32()),
                    ("ratio", pa.float32()),
                    ("spans", pa.list_(pa.int32())),
                ]
            ),
        ),
        ("url", pa.struct([("host", pa.string())])),
    ]
)
QUALITY = pa.schema(
    [
        pa.field("doc_id", IDENTIFIER, nullable=False),
        ("quality", pa.struct([("score", pa.float32()), ("bucket", pa.int8())])),
    ]
)


@dataclass
class Run:
    """The folders of a tiny run."""

    root: Path
    docs: Sequence[Doc]
    part_rows: int
    documents: Dataset = field(init=False)
    attributes: list[Dataset] = field(init=False)
    catalogue: Dataset = field(init=False)

    def __post_init__(self) -> None:
        self.cuts = [list(self.docs[i : i + self.part_rows]) for i in range(0, len(self.docs), self.part_rows)] or [[]]
        self.documents = self._write("documents", DOCUMENTS, lambda docs: documents_table([_document(d) for d in docs]))
        of = {part.identity: part.sha256 for part in self.documents.parts}
        self.attributes = [
            self._write("attributes/measure", MEASURE, _measure, of),
            self._write("attributes/quality", QUALITY, _quality, of),
        ]
        folder = self.root / "catalogue"
        parts = [write_catalogue_part(folder, self.documents, p, self.attributes) for p in self.documents.parts]
        publish_catalogue(folder, self.attributes, parts)
        self.catalogue = open_dataset(folder)

    def _write(
        self, name: str, schema: pa.Schema, make: Callable[[Sequence[Doc]], pa.Table], of: dict[str, str] | None = None
    ) -> Dataset:
        folder, parts = self.root / name, []
        for i, docs in enumerate(self.cuts):
            identity = fingerprint({"part": i})
            parts.append(commit_table(folder, identity, make(docs), schema=schema, of=of[identity] if of else None))
        write_manifest(folder, Manifest(kind=name, identity=fingerprint(name), stage={}, parts=tuple(parts)))
        return open_dataset(folder)

    def clusters(self) -> pa.Table:
        members = [doc for doc in self.docs if doc.cluster]
        return pa.table(
            {
                "doc_id": pa.array([doc.doc_id for doc in members], IDENTIFIER),
                "cluster_id": pa.array([doc_id(doc.cluster or "") for doc in members], IDENTIFIER),
                "cluster_size": pa.array([doc.cluster_size for doc in members], pa.int32()),
            }
        )

    def judge(self, policy: Policy, duplicates: pa.Table | None = None) -> Path:
        folder, parts = self.root / "decisions" / policy.identity(), []
        for part in self.catalogue.parts:
            table = self.catalogue.read(part)
            bound = bind_policy(policy, table.schema)
            failures = judge_rules(table, bound)
            decided = judge_duplicates(table, bound, failures, duplicates=duplicates, clusters=self.clusters())
            parts.append(commit_decisions(folder, part, bound, decided))
        publish_decisions(folder, policy, parts)
        return folder

    def tokenize(self, dtype: str = "uint16") -> Path:
        """A store with one pair a part; all tokens of a document are its number in the run, counted from 1."""
        folder, parts, number = self.root / "tokens", [], 0
        for part, docs in zip(self.documents.parts, self.cuts, strict=True):
            parts.append(_store_part(folder, part, docs, number, dtype))
            number += len(docs)
        told = {"tokens": sum(doc.tokens for doc in self.docs), "bytes": sum(len(doc.text) for doc in self.docs)}
        identity = fingerprint({"tokens": dtype})
        manifest = Manifest(kind="tokens", identity=identity, stage={}, parts=tuple(parts), facts=told)
        write_manifest(folder, manifest)
        return folder

    def vocabulary(self, dtype: str = "uint16") -> Path:
        folder = self.root / "vocabulary"
        folder.mkdir(exist_ok=True)
        facts = {"format_version": 1, "size": 1000, "padded_size": 1024, "end_of_document": END, "dtype": dtype}
        (folder / "vocabulary.json").write_text(json.dumps({**facts, "sha256": sha256(b"{}").hexdigest()}))
        (folder / "tokenizer.json").write_text("{}")
        return folder

    def corpus(self, policy: Policy, duplicates: pa.Table | None = None) -> Corpus:
        return open_corpus(self.root / "catalogue", self.judge(policy, duplicates), self.tokenize())


def _document(doc: Doc) -> Document:
    return Document(
        doc_id=doc.doc_id, text=doc.text, title=doc.name, source=doc.source, url=f"https://example.org/{doc.name}",
        file="file", offset=0, length=1, page=None, collected_at=None, licence=doc.licence,
        metadata_only=doc.metadata_only, author=doc.author, published_at=doc.published_at,
    )  # fmt: skip


def _measure(docs: Sequence[Doc]) -> pa.Table:
    rows = [
        {
            "doc_id": doc.doc_id,
            "language": {"label": doc.label, "score": doc.score},
            "rules": {"num_words": doc.words, "num_bytes": len(doc.text.encode()), "ratio": doc.ratio, "spans": [1]},
            "url": {"host": doc.host},
        }
        for doc in docs
    ]
    return pa.Table.from_pylist(rows, MEASURE)


def _quality(docs: Sequence[Doc]) -> pa.Table:
    rows = [
        {"doc_id": d.doc_id, "quality": None if d.bucket is None else {"score": d.bucket / 20, "bucket": d.bucket}}
        for d in docs
    ]
    return pa.Table.from_pylist(rows, QUALITY)


def _store_part(folder: Path, part: Part, docs: Sequence[Doc], first: int, dtype: str) -> Part:
    identity = fingerprint({"store": part.identity, "dtype": dtype})
    held = [(row, doc) for row, doc in enumerate(docs) if doc.tokens]
    lengths = np.array([doc.tokens for _, doc in held], np.int64)
    if held:
        writer = IndexedWriter(folder / identity, dtype)
        for row, doc in held:
            writer.add(np.array([first + row + 1] * (doc.tokens - 1) + [END], dtype))
        writer.finish()
    table = pa.table(
        {
            "bin": pa.array([identity] * len(held), pa.string()),
            "sequence": pa.array(np.arange(len(held))),
            "byte_offset": pa.array((np.cumsum(lengths) - lengths) * np.dtype(dtype).itemsize),
            "tokens": pa.array(lengths.astype(np.int32)),
            "bytes": pa.array([len(doc.text) for _, doc in held], pa.int32()),
            "doc_id": pa.array([doc.doc_id for _, doc in held], IDENTIFIER),
            "part": pa.array([part.identity] * len(held), pa.string()),
            "row": pa.array([row for row, _ in held], pa.int64()),
        }
    )
    empty = [row for row, doc in enumerate(docs) if not doc.tokens]
    facts = {"part": part.identity, "empty_rows": empty}
    return commit_table(folder, identity, table, schema=table.schema, of=part.sha256, facts=facts)


def facts(value: Any) -> Any:
    """Arrow values with doc_ids as names."""
    if isinstance(value, bytes):
        return name_of(value)
    if isinstance(value, dict):
        return {key: facts(item) for key, item in value.items()}
    return [facts(item) for item in value] if isinstance(value, list) else value
