"""The whole near-duplicate search, from Parquet files to the table of keepers, beside datatrove and gaoya.

Invariant: the phases are those of the job, through files on disk as the job does it, in one process and on one thread;
ours and the peers read documents of the same corpus in this run. The corpus is `planted_documents.py`'s: recall is
counted by the Jaccard similarity that the plain implementation measures, and every reported pair is put before it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from benchmarks.corpora import FOLDER
from benchmarks.planted_documents import (
    PlantedCorpus,
    Sentences,
    list_pairs,
    make_documents,
    make_part,
    number_of,
    read_sentences,
)
from benchmarks.table import Row, publish
from pipelines.dedup.keepers import STANDINGS, choose_keepers
from pipelines.dedup.parameters import PRESETS, DedupConfig, near_duplicates
from pipelines.dedup.reference import Shingles, jaccard, make_shingles
from pipelines.dedup.search.run import Task, search_duplicates
from pipelines.dedup.search.texts import PartTexts
from storage.manifests import open_dataset
from storage.parts import commit_table, read_batches

PEER_DOCUMENTS = {"datatrove": 1_500, "gaoya": 20_000}
RECALL_DOCUMENTS, BRUTE_FORCE_DOCUMENTS = 15_000, 500
SHARES = (0.01, 0.30)
TURNS = 3
Result = TypeVar("Result")


@dataclass
class FileSearch:
    """The job's own tasks one after another in this process; `seconds` are CPU seconds by task."""

    folder: Path
    config: DedupConfig
    documents: list[Path]
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> tuple[pa.Table, pa.Table]:
        """(PAIRS, KEEPERS)."""
        self.folder.mkdir(parents=True)
        listing = self.folder / "listing.json"
        listing.write_text(json.dumps([file.name for file in self.documents]))
        texts = PartTexts(folder=self.documents[0].parent, listing=listing)
        checksums = [file.stem for file in self.documents]
        search_duplicates(self.folder, asdict(self.config), checksums, lambda growth: texts, self._each)
        return self._published("pairs"), self._timed("keepers", self._choose_keepers)

    def _each(self, task: Task, arguments: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return self._timed(task.__name__, lambda: [task(each) for each in arguments])

    def _timed(self, name: str, work: Callable[[], Result]) -> Result:
        start = time.process_time()
        result = work()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - start
        return result

    def _choose_keepers(self) -> pa.Table:
        batches = (batch for file in self.documents for batch in read_batches(file, ["doc_id"], rows=1 << 16))
        doc_ids = pa.chunked_array([batch.column("doc_id") for batch in batches])
        ranks, eligible = pa.array(np.arange(len(doc_ids))), pa.array(np.ones(len(doc_ids), np.bool_))
        standings = pa.table([doc_ids, ranks, eligible], schema=STANDINGS)
        return choose_keepers(standings, self._published("pairs"), self._published("copies"))

    def _published(self, kind: str) -> pa.Table:
        dataset = open_dataset(self.folder / kind)
        return pa.concat_tables([dataset.read(part) for part in dataset.parts])


def main(arguments: list[str]) -> int:
    """Measure, print the table and write it to `benchmarks/results`."""
    options = argparse.ArgumentParser(prog="make bench-dedup", description=__doc__)
    options.add_argument("--documents", type=int, default=100_000, help="documents of the corpus  [100000]")
    options.add_argument("--data", type=Path, default=FOLDER, help=f"a folder of real texts  [{FOLDER}]")
    chosen = options.parse_args(arguments)
    sentences = read_sentences(chosen.data)
    with tempfile.TemporaryDirectory() as folder:
        rows, notes = measure(sentences, chosen.documents, Path(folder))
        publish("dedup", rows, packages=("datatrove", "gaoya", "spacy", "numba", "numpy", "pyarrow"), notes=notes)
    return 0


def measure(sentences: Sentences, num_documents: int, folder: Path) -> tuple[list[Row], list[str]]:
    """(rows, notes): rates beside the peers', then recall and precision."""
    warm_up(sentences, folder)
    sample = make_documents(sentences, corpus_of(SHARES[0], num_documents), np.arange(max(PEER_DOCUMENTS.values())))
    peers = {"datatrove": datatrove_rate(sample, folder), "gaoya": gaoya_rate(sample)}
    rows, notes = [], ["CPU seconds of one process on one thread; the shared machine only ever adds to them"]
    for share, preset in [*((share, "default") for share in SHARES), *((0.01, p) for p in PRESETS if p != "default")]:
        found, note = end_to_end(sentences, num_documents, share, preset, folder, peers)
        rows += found
        notes.append(note)
    return [*rows, *recall_rows(sentences, folder), *precision_rows(sentences, folder)], notes


def corpus_of(share: float, num_documents: int) -> PlantedCorpus:
    return PlantedCorpus(near_duplicates=share, documents_per_part=min(10_000, num_documents))


def corpus_of_pairs(num_documents: int, share: float = 0.0) -> PlantedCorpus:
    """Without copies: a pair is reported of a copy group's representative, which need not be the planted original."""
    return PlantedCorpus(near_duplicates=share, pairs=0.3, copies=0.0, documents_per_part=min(10_000, num_documents))


def write_corpus(sentences: Sentences, corpus: PlantedCorpus, num_documents: int, folder: Path) -> list[Path]:
    parts = range(-(-num_documents // corpus.documents_per_part))
    tables = (make_part(sentences, corpus, part) for part in parts)
    return [
        folder / commit_table(folder, f"{part:032x}", table, schema=table.schema).file
        for part, table in zip(parts, tables, strict=True)
    ]


def warm_up(sentences: Sentences, folder: Path) -> None:
    """Compile every kernel, and touch what a process touches once."""
    files = write_corpus(sentences, corpus_of(0.3, 500), 500, folder / "warm")
    for preset in PRESETS:
        FileSearch(folder / "warm" / preset, near_duplicates(preset=preset), files).run()


def end_to_end(
    sentences: Sentences, num_documents: int, share: float, preset: str, folder: Path, peers: dict[str, float | None]
) -> tuple[list[Row], str]:
    """(rows, note) of the cheapest of several turns."""
    files = write_corpus(sentences, corpus_of(share, num_documents), num_documents, folder / f"documents-{share}")
    seconds, size, found = cheapest_turn(folder / "search", near_duplicates(preset=preset), files)
    documents, text = found["documents"], sum(text_bytes(file) for file in files)
    total = sum(seconds.values())
    what = f"end to end with verification, {share:.0%} near-duplicates" + ("" if preset == "default" else f", {preset}")
    unit = f"documents/core-second at {text / documents / 1000:.1f} KB"
    spent = ", ".join(f"{task} {1e6 * took / documents:.1f}" for task, took in seconds.items())
    counts = f"{found['pairs']:,} pairs, {found['dropped']:,} dropped, files of {size // documents:,} bytes a document"
    note = f"{what}: {spent} µs a document; {counts}"
    if preset != "default":
        return [Row(what=what, figure=documents / total, unit=unit)], note
    rates = [Row(what=what, figure=documents / total, unit=unit, peer=p, peer_figure=peers[p]) for p in peers]
    return [*rates, Row(what=f"{what}: cost", figure=total / 3600 / (text / 1e12), unit="core-hours/TB of text")], note


def cheapest_turn(folder: Path, config: DedupConfig, files: list[Path]) -> tuple[dict[str, float], int, dict[str, int]]:
    """(CPU seconds by task, bytes of the search's files, counts) of the cheapest of TURNS turns.

    Each turn starts anew; the first pays for memory that the machine never gave out before.
    """
    turns = []
    for _ in range(TURNS):
        search = FileSearch(folder, config, files)
        pairs, keepers = search.run()
        dropped = len(keepers) - keepers["duplicate_of"].null_count
        counts = {"documents": len(keepers), "pairs": len(pairs), "dropped": dropped}
        turns.append((search.seconds, folder_bytes(folder), counts))
        shutil.rmtree(folder)
    return min(turns, key=lambda turn: sum(turn[0].values()))


def text_bytes(file: Path) -> int:
    """Bytes of text in a documents file."""
    return sum(int(np.diff(_offsets(batch.column("text"))).sum()) for batch in read_batches(file, ["text"]))


def _offsets(texts: pa.Array) -> np.ndarray:  # type: ignore[type-arg]
    return np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]


def folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*.*"))


def datatrove_rate(documents: pa.Table, folder: Path) -> float | None:
    """Documents per CPU second of its four steps with its defaults; None where it or spaCy is not here."""
    try:
        from datatrove.data import Document
        from datatrove.pipeline.dedup.minhash import (
            MinhashConfig,
            MinhashDedupBuckets,
            MinhashDedupCluster,
            MinhashDedupFilter,
            MinhashDedupSignature,
        )
        from datatrove.utils.hashing import HashConfig

        config = MinhashConfig(hash_config=HashConfig(hash_fc="sha1", precision=64))
        signatures = MinhashDedupSignature(str(folder / "sigs"), config)
        signatures.word_tokenizer.word_tokenize("loads its model once")
    except ImportError:
        return None
    texts = documents["text"][: PEER_DOCUMENTS["datatrove"]].to_pylist()

    def stream() -> Iterator[Document]:
        return (Document(text=text, id=str(i)) for i, text in enumerate(texts))

    start = time.process_time()
    signatures.run(stream(), 0, 1)
    for bucket in range(config.num_buckets):
        MinhashDedupBuckets(str(folder / "sigs"), str(folder / "buckets"), config=config).run(
            None, bucket, config.num_buckets
        )
    MinhashDedupCluster(str(folder / "buckets"), str(folder / "remove"), config=config).run(None, 0, 1)
    kept = sum(1 for _ in MinhashDedupFilter(str(folder / "remove")).run(stream(), 0, 1))
    assert 0 < kept <= len(texts)
    return len(texts) / (time.process_time() - start)


def gaoya_rate(documents: pa.Table) -> float | None:
    """Documents per CPU second of inserting all and querying all, word 5-grams, 16 x 7; None where it is not here."""
    try:
        from gaoya.minhash import MinHashStringIndex
    except ImportError:
        return None
    texts = documents["text"][: PEER_DOCUMENTS["gaoya"]].to_pylist()
    index = MinHashStringIndex(32, 0.8, 16, 7, None, "word", True, (5, 5))
    start = time.process_time()
    for i, text in enumerate(texts):
        index.insert_document(i, text)
    found = sum(len(index.query(text)) for text in texts)
    assert found >= len(texts)
    return len(texts) / (time.process_time() - start)


def recall_rows(sentences: Sentences, folder: Path) -> list[Row]:
    """Found of the planted pairs, by the similarity that the plain implementation measures."""
    corpus, config = corpus_of_pairs(RECALL_DOCUMENTS), DedupConfig()
    files = write_corpus(sentences, corpus, RECALL_DOCUMENTS, folder / "recall-documents")
    pairs, _ = FileSearch(folder / "recall", config, files).run()
    reported = _numbers_of(pairs)
    planted = list_pairs(corpus, np.arange(RECALL_DOCUMENTS))
    ends = list(zip(planted["original"].to_pylist(), planted["variant"].to_pylist(), strict=True))
    sets = shingles_of(sentences, corpus, sorted({end for pair in ends for end in pair}), config)
    measured = np.array([jaccard(sets[a], sets[b]) for a, b in ends])
    hits = np.array([frozenset(pair) in reported for pair in ends])
    rows = []
    for low, high in ((0.85, 1.01), (0.80, 0.85), (0.70, 0.80), (0.0, 0.70)):
        inside = (measured >= low) & (measured < high)
        bracket = "1]" if high > 1 else f"{high:.2f})"
        what = f"recall of pairs whose measured Jaccard is in [{low:.2f}, {bracket}"
        rows.append(Row(what=what, figure=float(hits[inside].mean()), unit=f"of {inside.sum()}"))
    return rows


def _numbers_of(pairs: pa.Table) -> set[frozenset[int]]:
    ends = (map(number_of, pairs[name].to_pylist()) for name in ("a_doc_id", "b_doc_id"))
    return {frozenset(pair) for pair in zip(*ends, strict=True)}


def shingles_of(
    sentences: Sentences, corpus: PlantedCorpus, numbers: Sequence[int], config: DedupConfig
) -> dict[int, Shingles]:
    texts = make_documents(sentences, corpus, np.array(numbers))["text"].to_pylist()
    return {number: make_shingles(text, config.signature) for number, text in zip(numbers, texts, strict=True)}


def precision_rows(sentences: Sentences, folder: Path) -> list[Row]:
    """How much of what is reported and dropped is true by brute force over all pairs of a small corpus."""
    corpus, config = corpus_of_pairs(BRUTE_FORCE_DOCUMENTS, 0.3), DedupConfig()
    files = write_corpus(sentences, corpus, BRUTE_FORCE_DOCUMENTS, folder / "brute-documents")
    pairs, keepers = FileSearch(folder / "brute", config, files).run()
    sets = shingles_of(sentences, corpus, range(BRUTE_FORCE_DOCUMENTS), config)
    true = {
        frozenset(p) for p in itertools.combinations(sets, 2) if jaccard(sets[p[0]], sets[p[1]]) >= config.threshold
    }
    reported = _numbers_of(pairs)
    dropped = zip(keepers["doc_id"].to_pylist(), keepers["duplicate_of"].to_pylist(), strict=True)
    drops = [(number_of(one), number_of(kept)) for one, kept in dropped if kept is not None]
    honest = sum(jaccard(sets[one], sets[kept]) >= config.threshold for one, kept in drops)
    return [
        Row(
            what="precision of reported pairs, by brute force",
            figure=len(reported & true) / len(reported),
            unit=f"of {len(reported)}",
        ),
        Row(
            what="drops that name a kept document at the threshold, by brute force",
            figure=honest / len(drops),
            unit=f"of {len(drops)}",
        ),
    ]
