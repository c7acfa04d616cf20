"""Semantic duplicates: how many of the pairs that brute force finds the clusters find, and what cosine and MinHash say
of the answers of Clough and Stevenson, which students copied, revised or wrote on their own.

Invariant: recall is against every pair of the same stored vectors. Costs are CPU seconds of this process, one thread.
Trade-off: brute force is quadratic, so `--documents` 6,000 is the default; encoding them takes two minutes of a core.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.corpora import FOLDER
from benchmarks.table import Row, least_cpu_seconds, publish
from classifiers.encoders.encoder import Encoder, EncoderConfig
from pipelines.dedup.parameters import SemanticConfig, SignatureConfig
from pipelines.dedup.reference import jaccard, make_shingles
from pipelines.dedup.semantic import (
    choose_num_clusters,
    exact_cosines,
    find_semantic_pairs,
    fit_centroids,
    scatter_vectors,
    unit,
)
from storage.schema import IDENTIFIER

Halves = npt.NDArray[np.float16]
THRESHOLDS = (0.95, 0.9, 0.85, 0.8)
VISITS = (1, 2, 3, 5)
ANSWERS = "neardup/clough-stevenson.jsonl.gz"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the real texts lie")
    parser.add_argument("--documents", type=int, default=6000)
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    encoder = Encoder(EncoderConfig())
    texts = _read_texts(options.folder, options.documents)
    seconds, vectors = least_cpu_seconds(lambda: _embed(encoder, texts), turns=1)
    rows = [Row(what="documents encoded", figure=len(texts) / seconds, unit="documents/s")]
    rows += _measure_recall(vectors)
    rows += _measure_answers(options.folder, encoder)
    publish("semantic_duplicates", rows, packages=("torch", "transformers"), notes=[f"{len(texts):,} documents"])


def _read_texts(folder: Path, limit: int) -> list[str]:
    """Texts of every file, taken in turns."""
    files = [*sorted((folder / "text").glob("*.jsonl.gz")), *sorted((folder / "quality").glob("*.jsonl.gz"))]
    files.append(folder / "neardup" / "zh-wikipedia-versions.jsonl.gz")
    texts = [text for file in files for row in _rows(file) for name in ("text", "a", "b") if (text := row.get(name))]
    return texts[:: max(1, len(texts) // limit)][:limit]


def _rows(file: Path) -> list[dict[str, str]]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _embed(encoder: Encoder, texts: Sequence[str]) -> Halves:
    return encoder.embed(pa.array(texts, pa.string())).vectors.astype(np.float16)


def _measure_recall(vectors: Halves) -> list[Row]:
    names = pa.array([i.to_bytes(16) for i in range(len(vectors))], IDENTIFIER)
    centroids = fit_centroids(unit(vectors), choose_num_clusters(len(vectors)))
    true_cosines = exact_cosines(vectors, *np.triu_indices(len(vectors), 1))
    rows = []
    for visits in VISITS:
        table = scatter_vectors(names, np.arange(len(vectors)), vectors, centroids, 1, visits)
        for threshold in THRESHOLDS:
            config = SemanticConfig(threshold=threshold, visits=visits, neighbour_limit=len(vectors))
            seconds, pairs = least_cpu_seconds(lambda: find_semantic_pairs(table, config), turns=3)  # noqa: B023
            truth = int((true_cosines >= threshold).sum())
            what = f"recall of {truth:,} pairs with a cosine of {threshold:g} or more, {visits} clusters a document"
            rows.append(Row(what=what, figure=len(pairs) / max(1, truth), unit="share"))
        rows.append(
            Row(what=f"compared, {visits} clusters a document", figure=len(vectors) / seconds, unit="documents/s")
        )
    return rows


def _measure_answers(folder: Path, encoder: Encoder) -> list[Row]:
    """Of 95 answers to five questions, by their similarity to the source that some were made from."""
    texts = {row["file"]: row["text"] for row in _rows(folder / ANSWERS)}
    sources = {name.removeprefix("orig_"): name for name in texts if name.startswith("orig_")}
    answers = [name for name in texts if not name.startswith("orig_")]
    vectors = dict(zip(texts, _embed(encoder, list(texts.values())), strict=True))
    shingles = {name: make_shingles(text, SignatureConfig(shingle_size=3)) for name, text in texts.items()}
    rows = []
    for low, high in ((0.5, 1.01), (0.2, 0.5), (0.05, 0.2), (0.0, 0.05)):
        own = [(name, sources[name.partition("_")[2]]) for name in answers]
        inside = [pair for pair in own if low <= jaccard(shingles[pair[0]], shingles[pair[1]]) < high]
        rows += _answers_found(f"answers with Jaccard {low:g}–{min(high, 1):g} (3 words)", inside, texts, vectors)
    others = [(name, source) for name in answers for task, source in sources.items() if not name.endswith(task)]
    return rows + _answers_found("answers beside the source of another question", others, texts, vectors)


def _answers_found(
    what: str, pairs: Sequence[tuple[str, str]], texts: dict[str, str], vectors: dict[str, npt.NDArray[np.float16]]
) -> list[Row]:
    config = SignatureConfig()
    stacked = np.array([vectors[name] for pair in pairs for name in pair])
    cosines = exact_cosines(stacked, np.arange(0, len(stacked), 2), np.arange(1, len(stacked), 2))
    alike = [jaccard(*(make_shingles(texts[name], config) for name in pair)) >= 0.8 for pair in pairs]
    named = f"{len(pairs)} {what}"
    return [
        Row(
            what=f"{named}: found at a cosine of {threshold:g}",
            figure=float((cosines >= threshold).mean()),
            unit="share",
            peer="MinHash's 0.8 (5 words)",
            peer_figure=float(np.mean(alike)),
        )
        for threshold in (0.9, 0.8)
    ]


if __name__ == "__main__":
    main()
