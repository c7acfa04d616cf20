"""What each preset calls a near-duplicate in texts that people revised: Clough-Stevenson and Chinese article versions.

Invariant: similarities are the plain implementation's, on sets of strings; the search sees each collection as one
corpus, and its reports are compared with them. Clough and Stevenson (2011) had people answer five questions by copying
an encyclopedia article, revising it lightly or heavily, or not using it: the levels are what they were told to do.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.corpora import FOLDER
from benchmarks.table import Row, publish
from pipelines.dedup.deduplicate import find_duplicates, settle_keepers
from pipelines.dedup.keepers import STANDINGS
from pipelines.dedup.parameters import PRESETS, DedupConfig, near_duplicates
from pipelines.dedup.reference import jaccard, make_shingles
from storage.schema import IDENTIFIER

LEVELS = {"cut": "near copy", "light": "light revision", "heavy": "heavy revision", "non": "not used"}
EDGES = (1.01, 0.9, 0.8, 0.7, 0.5, 0.0)


@dataclass(frozen=True, kw_only=True)
class Revision:
    """A text and what it may be a revision of, by their numbers in the corpus; and what people call it."""

    original: int
    variant: int
    label: str


def main(arguments: list[str]) -> int:
    """Measure, print the table and write it to `benchmarks/results`."""
    options = argparse.ArgumentParser(prog="make bench-near_duplicates", description=__doc__)
    options.add_argument("--data", type=Path, default=FOLDER, help=f"a folder with neardup/  [{FOLDER}]")
    folder = options.parse_args(arguments).data / "neardup"
    if not folder.is_dir():
        options.error(f"there is no {folder}; name its parent: --data FOLDER")
    answers, versions = read_answers(folder), read_versions(folder)
    rows = []
    for preset in PRESETS:
        config = near_duplicates(preset=preset)
        rows += list(rows_of(f"{preset}, Clough-Stevenson", *answers, config, by_similarity=False))
        rows += list(rows_of(f"{preset}, Chinese article versions", *versions, config, by_similarity=True))
    publish("near_duplicates", rows, packages=("numba", "pyarrow"), notes=NOTES)
    return 0


NOTES = (
    "mean Jaccard: of the shingles that the preset makes (words or characters), variant against original",
    "found: reported as a pair; dropped: a duplicate of its original or of another kept text, originals ranked first",
    "Clough-Stevenson's answers are shorter than the articles that they revise, and even a near copy takes over a part "
    "only: by similarity to the whole article most levels lie far below every threshold, and stay",
)


def read_answers(folder: Path) -> tuple[list[str], list[Revision]]:
    """Clough and Stevenson's texts, and each answer with its original; originals stand first."""
    with gzip.open(folder / "clough-stevenson.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = {row["file"]: row["text"] for row in map(json.loads, lines)}
    with (folder / "file_information.csv").open(encoding="utf-8") as lines:
        levels = {row["File"]: row for row in csv.DictReader(lines) if row["File"] in texts}
    names = sorted(texts, key=lambda name: (not name.startswith("orig_"), name))
    revisions = [
        Revision(
            original=names.index(f"orig_task{row['Task']}.txt"),
            variant=names.index(name),
            label=LEVELS[row["Category"]],
        )
        for name, row in levels.items()
        if row["Category"] in LEVELS
    ]
    return [texts[name] for name in names], revisions


def read_versions(folder: Path) -> tuple[list[str], list[Revision]]:
    """The Chinese articles of the earlier dump and then those of the later."""
    with gzip.open(folder / "zh-wikipedia-versions.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    texts = [row[version] for version in "ab" for row in rows]
    return texts, [Revision(original=i, variant=i + len(rows), label="") for i in range(len(rows))]


def rows_of(
    name: str, texts: Sequence[str], revisions: Sequence[Revision], config: DedupConfig, *, by_similarity: bool
) -> Iterator[Row]:
    """How alike, found and dropped, by the people's level or by bands of similarity."""
    sets = [make_shingles(text, config.signature) for text in texts]
    similarity = np.array([jaccard(sets[r.original], sets[r.variant]) for r in revisions])
    found, dropped = search(texts, config)
    hits = np.array([frozenset((r.original, r.variant)) in found for r in revisions])
    gone = np.array([r.variant in dropped for r in revisions])
    labels = np.array(
        [band(value) if by_similarity else r.label for value, r in zip(similarity, revisions, strict=True)]
    )
    for label in dict.fromkeys(sorted(labels, reverse=True) if by_similarity else LEVELS.values()):
        here = labels == label
        count = int(here.sum())
        yield Row(what=f"{name}: {label}, mean Jaccard", figure=float(similarity[here].mean()), unit=f"of {count}")
        yield Row(what=f"{name}: {label}, found", figure=float(hits[here].mean()), unit=f"of {count}")
        yield Row(what=f"{name}: {label}, dropped", figure=float(gone[here].mean()), unit=f"of {count}")
    due = similarity >= config.threshold
    if due.any():
        what = f"{name}: found of those at {config.threshold:g} and above"
        yield Row(what=what, figure=float(hits[due].mean()), unit=f"of {due.sum()}")


def band(similarity: float) -> str:
    """The band of EDGES that the similarity lies in."""
    low, high = next((low, high) for high, low in zip(EDGES, EDGES[1:], strict=False) if similarity >= low)
    return f"Jaccard in [{low:g}, {'1]' if high > 1 else f'{high:g})'}"


def search(texts: Sequence[str], config: DedupConfig) -> tuple[set[frozenset[int]], Mapping[int, int]]:
    """(pairs reported or equal, kept text by dropped text), earlier texts kept first."""
    doc_ids = pa.array([number.to_bytes(16) for number in range(len(texts))], IDENTIFIER)
    part = pa.table({"doc_id": doc_ids, "text": pa.array(texts, pa.string())})
    found = find_duplicates([part], config)
    ranks, eligible = pa.array(np.arange(len(texts))), pa.array(np.ones(len(texts), np.bool_))
    keepers = settle_keepers([part], pa.table([doc_ids, ranks, eligible], schema=STANDINGS), found, config)
    ends = [(found.pairs, ("a_doc_id", "b_doc_id")), (found.copies, ("doc_id", "representative"))]
    pairs = {
        frozenset(pair) for table, names in ends for pair in zip(*(_numbers(table, n) for n in names), strict=True)
    }
    kept = keepers["duplicate_of"].to_pylist()
    return pairs, {i: int.from_bytes(doc_id) for i, doc_id in enumerate(kept) if doc_id is not None}


def _numbers(table: pa.Table, name: str) -> list[int]:
    return [int.from_bytes(doc_id) for doc_id in table[name].to_pylist()]
