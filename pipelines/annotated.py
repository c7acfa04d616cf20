"""Annotations as labels: the ratings of a run's documents beside their texts, as the quality head learns from them.

Invariant: a rating counts for the text that was rated, whole, by which the head's folds know it; where the document was
rewritten or removed since, it is left out. The label is the expected value on the rubric's scale, so the head learns a
regression, and the rubric's threshold is where its figures are cut into classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from classifiers.annotation.labels import KIND
from classifiers.annotation.rubric import Rubric
from classifiers.quality.head import HeadConfig
from classifiers.quality.labels import LABELLED, LabelledTexts, LabelMeaning, read_labels
from pipelines.run_folder import RunFolder
from storage.errors import InputError
from storage.identity import hash_file
from storage.manifests import Dataset, find_manifest, open_dataset, read_manifest


def is_annotation(path: Path) -> bool:
    """Whether the folder holds a dataset of labels."""
    manifest = find_manifest(path) if path.is_dir() else None
    return manifest is not None and manifest.kind == KIND


def identify_labels(path: Path) -> str:
    """What stands for a user's labels, a file or annotations, in an identity."""
    return read_manifest(path).identity if path.is_dir() else hash_file(path)


def head_config(path: Path) -> HeadConfig:
    """How a head is trained on these labels: annotations are cut into classes at their rubric's threshold."""
    if not path.is_dir():
        return HeadConfig()
    rubric = _rubric(open_dataset(path))
    return HeadConfig(threshold=(rubric.threshold - rubric.lowest) / (rubric.highest - rubric.lowest))


def read_labelled(path: Path) -> LabelledTexts:
    """The labelled texts of a user's JSONL file, or of `<run>/annotations/<name>`. Raises InputError for neither."""
    if not path.is_dir():
        return read_labels(path)
    dataset = open_dataset(path)
    rubric = _rubric(dataset)
    ratings = pa.concat_tables([dataset.read(part, ["doc_id", "content_hash", "score"]) for part in dataset.parts])
    table = pa.concat_tables(
        [LABELLED.empty_table(), *_texts(RunFolder(path.absolute().parent.parent), ratings, rubric)]
    )
    if not table.num_rows:
        raise InputError(
            "none of the rated texts is among the run's documents", at=str(path), hint="run `gristmill annotate` again"
        )
    return LabelledTexts(table, 5, _meaning(dataset, rubric))


def _rubric(dataset: Dataset) -> Rubric:
    return Rubric(**dataset.manifest.stage["rubric"])


def _meaning(dataset: Dataset, rubric: Rubric) -> LabelMeaning:
    stage = dataset.manifest.stage
    return LabelMeaning(
        name=f"{rubric.name}, rated by {stage['model']}",
        positive=rubric.best,
        negative=rubric.worst,
        origin=f"rubric {rubric.name}, wording {rubric.version()[:12]}, rated by {stage['model']}",
    )


def _texts(folder: RunFolder, ratings: pa.Table, rubric: Rubric) -> Iterator[pa.Table]:
    """LABELLED rows of each documents part."""
    documents = open_dataset(folder.documents)
    known = ratings["doc_id"].combine_chunks()
    for part in documents.parts:
        for batch in documents.batches(part, ["doc_id", "content_hash", "text"]):
            place = pc.index_in(batch.column("doc_id"), value_set=known)
            rated = ratings.take(place.filter(place.is_valid()))
            rows = batch.filter(place.is_valid())
            same = pc.equal(rows.column("content_hash"), rated["content_hash"].combine_chunks())
            texts = rows.column("text").filter(same)
            label = pc.divide(
                pc.subtract(rated["score"].filter(same).combine_chunks(), float(rubric.lowest)),
                float(rubric.highest - rubric.lowest),
            )
            yield pa.table([texts, label], schema=LABELLED)
