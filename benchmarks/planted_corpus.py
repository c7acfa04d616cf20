"""A run's catalogue, verdicts and token store of any size, in the form that a run leaves on disk, made of real rows.

Real documents are measured by the default stages and tokenized; every row of the run is one of these rows under an
identifier of its own, and its tokens are that document's. Invariant: the same size, seed and folder of documents give
the same run, part by part. A row takes 250 bytes of disk, and as many tokens as asked for are stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.corpora import RealText, read_documents
from classifiers.fused import fuse, measured_schema
from mixtures.catalogue import catalogue_part, publish_catalogue
from mixtures.judge import VERDICTS
from pipelines.stages import measuring_stages
from storage.identity import fingerprint
from storage.manifests import Dataset, Manifest, write_manifest
from storage.megatron import IndexedWriter
from storage.parts import Part, commit_table
from storage.schema import IDENTIFIER, Document, documents_table
from tokenizer.encode import Encoder
from tokenizer.store import MAP
from tokenizer.training import TrainingConfig, train_tokenizer
from tokenizer.vocabulary import TokenizerFile, describe_tokenizer, write_vocabulary

KEPT, GROUPED, GROUP_SIZE = 0.85, 0.1, 4
SOURCES = {"encyclopedia": "encyclopedia", "quality": "teaching", "neardup": "answers"}
QUALITY = pa.struct([("score", pa.float32()), ("bucket", pa.int8())])
POLICY = {"name": "planted", "rules": []}


@dataclass(frozen=True)
class RealRows:
    """Real documents: their catalogue rows, and the tokens of each with its end-of-document id."""

    catalogue: pa.Table
    tokens: list[npt.NDArray[np.uint16]]
    tokenizer: TokenizerFile


@dataclass(frozen=True, kw_only=True)
class PlantedRun:
    """How many documents in parts of how many; `stored` writes their tokens, too, and not only the map."""

    folder: Path
    documents: int
    per_part: int = 100_000
    stored: bool = False
    seed: int = 1

    @property
    def places(self) -> dict[str, Path]:
        return {name: self.folder / name for name in ("catalogue", "decisions", "tokens", "vocabulary")}


def read_rows(data: Path, *, every: int) -> RealRows:
    """Measure and tokenize every so many real documents."""
    real = read_documents(data, every=every)
    texts = [document.text for document in real]
    settings = train_tokenizer([pa.array(texts[::4])], TrainingConfig(size=8192))
    tokenizer = TokenizerFile(settings, describe_tokenizer(settings))
    encoded, end = Encoder(tokenizer).encode(pa.array(texts)), tokenizer.vocabulary.end_of_document
    cut = [encoded.ids[a:b] for a, b in zip(encoded.offsets, encoded.offsets[1:], strict=False)]
    return RealRows(_catalogue_of(real), [np.append(ids, end).astype(np.uint16) for ids in cut], tokenizer)


def _catalogue_of(real: Sequence[RealText]) -> pa.Table:
    stages = measuring_stages()
    with TemporaryDirectory() as folder:
        documents = documents_table([_document(i, text) for i, text in enumerate(real)])
        measured = pa.Table.from_batches(map(fuse(stages), documents.to_batches(1024)), schema=measured_schema(stages))
        quality = pa.table({"doc_id": documents["doc_id"], "quality": _quality(len(real))})
        written = [
            _dataset(Path(folder) / name, table)
            for name, table in (("documents", documents), ("measure", measured), ("quality", quality))
        ]
        return catalogue_part(written[0], written[0].parts[0], written[1:])


def _document(i: int, real: RealText) -> Document:
    source = SOURCES.get(real.file.partition("/")[0], "web")
    url = f"https://www.host{i % 300}.org/{i}.html" if source == "web" else None
    return Document(
        doc_id=i.to_bytes(16, "big"), text=real.text, title=real.file, source=source, url=url, file=real.file,
        offset=0, length=1, page=None, collected_at=None, licence=None,
    )  # fmt: skip


def _quality(count: int) -> pa.Array:
    scores = np.random.default_rng(0).random(count, np.float32)
    return pa.StructArray.from_arrays([pa.array(scores), pa.array((20 * scores).astype(np.int8))], fields=list(QUALITY))


def _dataset(folder: Path, table: pa.Table) -> Dataset:
    of = fingerprint("documents")
    part = commit_table(folder, fingerprint(folder.name), table, schema=table.schema, of=of)
    if folder.name == "documents":
        part = Part(identity=part.identity, file=part.file, rows=part.rows, bytes=part.bytes, sha256=of)
    manifest = Manifest(kind=folder.name, identity=part.identity, stage={}, parts=(part,))
    write_manifest(folder, manifest)
    return Dataset(folder, manifest)


def plant_run(run: PlantedRun, rows: RealRows, *, processes: int = 2) -> int:
    """Write what is not there yet; returns how many tokens the store counts."""
    numbers = range(-(-run.documents // run.per_part))
    with get_context("fork").Pool(processes) as pool:
        parts = pool.map(partial(_plant_part, run, rows), numbers, chunksize=1)
    catalogue, verdicts, tokens = (list(kind) for kind in zip(*parts, strict=True))
    places = run.places
    publish_catalogue(places["catalogue"], [], catalogue)
    stage = {"policy": POLICY, "policy_identity": fingerprint(POLICY)}
    for kind, folder, listed in (
        ("verdicts", places["decisions"] / "verdicts", verdicts),
        ("tokens", places["tokens"], tokens),
    ):
        identity = fingerprint([kind, *(part.identity for part in listed)])
        write_manifest(folder, Manifest(kind=kind, identity=identity, stage=stage, parts=tuple(listed)))
    write_vocabulary(places["vocabulary"], rows.tokenizer)
    return sum(part.facts["tokens"] for part in tokens)


def _plant_part(run: PlantedRun, rows: RealRows, number: int) -> tuple[Part, Part, Part]:
    count = min(run.per_part, run.documents - number * run.per_part)
    chance = np.random.default_rng([run.seed, number])
    chosen = chance.integers(0, len(rows.tokens), count)
    ids, of = _identifiers(chance, count), fingerprint({"documents": number, "seed": run.seed})
    kept = chance.random(count) < KEPT
    catalogue = rows.catalogue.take(chosen).set_column(0, rows.catalogue.schema.field(0), ids)
    identity = fingerprint({"part": number, "seed": run.seed, "documents": run.documents})
    first = commit_table(
        run.places["catalogue"], identity, catalogue, schema=catalogue.schema, of=of, facts={"part": of}, narrow=True
    )
    verdicts = commit_table(
        run.places["decisions"] / "verdicts",
        identity,
        _verdicts(run, chance, ids, kept),
        schema=VERDICTS,
        of=of,
        facts={"catalogue": first.sha256},
        narrow=True,
    )
    stored = np.flatnonzero(kept)
    lengths = np.array([len(tokens) for tokens in rows.tokens], np.int64)[chosen[stored]]
    if run.stored:
        _store(run.places["tokens"] / identity, (rows.tokens[i] for i in chosen[stored]))
    return first, verdicts, _map(run, identity, of, rows.catalogue, chosen, ids, stored, lengths)


def _identifiers(chance: np.random.Generator, count: int) -> pa.FixedSizeBinaryArray:
    return pa.FixedSizeBinaryArray.from_buffers(IDENTIFIER, count, [None, pa.py_buffer(chance.bytes(16 * count))])


def _verdicts(run: PlantedRun, chance: np.random.Generator, ids: pa.Array, kept: npt.NDArray[np.bool_]) -> pa.Table:
    """Every tenth document is in a group of about four; the others are alone."""
    grouped = chance.random(len(ids)) < GROUPED
    group = chance.integers(0, max(1, int(run.documents * GROUPED / GROUP_SIZE)), len(ids))
    named = np.zeros((len(ids), 2), "<u8")
    named[:, 0] = group
    alone = np.frombuffer(ids.buffers()[1], "<u8").reshape(-1, 2)
    cluster = np.ascontiguousarray(np.where(grouped[:, None], named, alone))
    return pa.table(
        {
            "doc_id": ids,
            "verdict": pa.array(np.where(kept, "kept", "dropped")),
            "rule": pc.if_else(pa.array(kept), pa.scalar(None, pa.string()), "too_short"),
            "cluster_id": pa.FixedSizeBinaryArray.from_buffers(IDENTIFIER, len(ids), [None, pa.py_buffer(cluster)]),
            "cluster_size": pa.array(np.where(grouped, GROUP_SIZE, 1).astype(np.int32)),
        },
        schema=VERDICTS,
    )


def _store(prefix: Path, documents: Iterator[npt.NDArray[np.uint16]]) -> None:
    with IndexedWriter(prefix, np.uint16) as writer:
        for tokens in documents:
            writer.add(tokens)


def _map(
    run: PlantedRun,
    identity: str,
    of: str,
    catalogue: pa.Table,
    chosen: npt.NDArray[np.int64],
    ids: pa.Array,
    stored: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
) -> Part:
    count = len(stored)
    table = pa.table(
        {
            "bin": pa.array([identity] * count),
            "sequence": np.arange(count),
            "byte_offset": (np.cumsum(lengths) - lengths) * 2,
            "tokens": lengths.astype(np.int32),
            "bytes": np.asarray(catalogue["text_bytes"])[chosen[stored]].astype(np.int32),
            "doc_id": ids.take(pa.array(stored)),
            "part": pa.array([of] * count),
            "row": stored,
        },
        schema=MAP,
    )
    facts = {"part": of, "tokens": int(lengths.sum()), "bytes": 0, "empty_rows": [], "files": {}}
    return commit_table(run.places["tokens"], identity, table, schema=MAP, of=of, facts=facts, narrow=True)
