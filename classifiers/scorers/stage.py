"""A text classifier as a measuring stage: text → outputs, a number a class, or one alone where it gives a number.

Invariant: the outputs are all that the model says, so which class counts, calibration, scale, clip and buckets come
later and read no text again (see `told.py`). NaN stands for a text in which there is nothing to read, null for one that
a gate kept out. Trade-off: 4 bytes a class and document are kept, 704 for fastText's 176 languages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from classifiers.encoders.calibration import Calibration, read_calibration
from classifiers.encoders.classifier import ClassifierConfig, TextClassifier, open_classifier, score_by_all
from classifiers.encoders.models import ModelFiles, find_classifier
from classifiers.fasttext.file import read_classifier
from classifiers.fasttext.folder import SavedFastText, find_fasttext, is_fasttext_folder
from classifiers.fasttext.model import FastTextClassifier
from storage.errors import ModelError
from storage.stage import Stage

OUTPUTS = "outputs"
FASTTEXT_SUFFIXES = (".bin", ".ftz")
Score = Callable[[pa.StringArray], npt.NDArray[np.float32]]
"""Texts without nulls to float32[N] or [N, classes]."""

_LABEL = "__label__"
_HEADS = ("classifier.", "score.", "fc.", "logits_proj.", "pre_classifier.")
_USUAL_CLASSES = 2
"""What transformers takes where a config.json names no classes."""


def is_fasttext(model: str) -> bool:
    """Whether a scorer's model is a fastText file, or a folder that `gristmill fit fasttext` wrote."""
    return model.endswith(FASTTEXT_SUFFIXES) or is_fasttext_folder(Path(model))


def open_fasttext(model: str) -> SavedFastText:
    """The model's files, looked at once a process as long as they do not change: a checksum of 800 MB takes a second.

    Raises ModelError.
    """
    path = Path(model)
    changed = path.stat().st_mtime_ns if path.exists() else 0
    return _find_fasttext(path, changed)


@lru_cache(maxsize=16)
def _find_fasttext(path: Path, changed: int) -> SavedFastText:
    return find_fasttext(path)


def read_calibration_of(model: str) -> Calibration:
    """How what a model says is turned into what its labels meant; nothing is where it brings no calibration."""
    return Calibration() if is_fasttext(model) else read_calibration(find_classifier(model).folder)


def read_labels(model: str) -> tuple[str, ...]:
    """The classes of a classifier, () of one that gives a number, without opening its weights.

    Raises ModelError for what is no classifier, or unsafe to load.
    """
    if is_fasttext(model):
        labels = read_classifier(open_fasttext(model).weights).labels
        return tuple(label.removeprefix(_LABEL) for label in labels)
    files = find_classifier(model)
    _refuse_headless(files)
    named = files.config.get("id2label")
    if not isinstance(named, Mapping):
        count = int(files.config.get("num_labels", _USUAL_CLASSES))
        named = {i: f"LABEL_{i}" for i in range(count)}
    return (
        tuple(str(name) for _, name in sorted(named.items(), key=lambda item: int(item[0]))) if len(named) > 1 else ()
    )


def scorer_stage(model: str, config: ClassifierConfig | None = None) -> Stage:
    """text → `outputs`, by a sequence classifier's folder or hub name, or a fastText .bin, .ftz or folder.

    The model's place is no part of the identity, its files' hashes are; nor are threads and the size of a batch.
    Raises ModelError for what is no classifier, or unsafe to load.
    """
    config = config or ClassifierConfig()
    width = max(1, len(read_labels(model)))
    fast = is_fasttext(model)
    return Stage(
        name="scorer",
        version=1,
        kind="measure",
        config=None if fast else replace(config, batch_tokens=None, threads=1),
        reads=("text",),
        writes=pa.schema([pa.field(OUTPUTS, pa.list_(pa.float32(), width))]),
        make=partial(open_scorer, model, config, width),
        cpus=float(config.threads),
        packages=() if fast else ("torch", "transformers", "tokenizers"),
        files=open_fasttext(model).files if fast else tuple(str(path) for path in find_classifier(model).paths),
    )


class Scorer:
    """The function of the stage, with its open model."""

    def __init__(self, width: int, score: Score, encoder: TextClassifier | None = None) -> None:
        self.width, self.score, self.encoder = width, score, encoder

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return measure_together([self], [batch])[0]


def open_scorer(model: str, config: ClassifierConfig, width: int, _: Any = None) -> Scorer:
    """Open the classifier and return the stage's function."""
    if is_fasttext(model):
        return Scorer(width, _score_fasttext(open_fasttext(model)))
    encoder = replace(open_classifier(model, config), calibration=Calibration())
    return Scorer(width, encoder.score, encoder)


def measure_together(scorers: Sequence[Scorer], batches: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Of each scorer its batch with the column `text` to `outputs`, row for row; models are given what is not empty.

    Encoders that are given the same texts share their tokens, where their tokenizers are the same.
    """
    filled = [_filled(batch.column("text")) for batch in batches]
    scores: dict[int, npt.NDArray[np.float32]] = {}
    for group in _alike(scorers, filled):
        texts = batches[group[0]].column("text").filter(pa.array(filled[group[0]]))
        scores |= _score_alike(scorers, group, texts) if len(texts) else {}
    return [
        _outputs(batch.column("text"), filled[i], scores.get(i), scorers[i].width) for i, batch in enumerate(batches)
    ]


def _filled(texts: pa.StringArray) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.fill_null(pc.greater(pc.binary_length(pc.utf8_trim_whitespace(texts)), 0), False), dtype=bool)


def _alike(scorers: Sequence[Scorer], filled: Sequence[npt.NDArray[np.bool_]]) -> list[list[int]]:
    """Places of encoders that are given the same rows; each fastText model is alone."""
    groups: dict[object, list[int]] = {}
    for place, (scorer, rows) in enumerate(zip(scorers, filled, strict=True)):
        groups.setdefault(rows.tobytes() if scorer.encoder else place, []).append(place)
    return list(groups.values())


def _score_alike(
    scorers: Sequence[Scorer], group: Sequence[int], texts: pa.StringArray
) -> dict[int, npt.NDArray[np.float32]]:
    encoders = {str(place): encoder for place in group if (encoder := scorers[place].encoder)}
    if not encoders:
        return {place: scorers[place].score(texts) for place in group}
    return {int(place): scores for place, scores in score_by_all(encoders, texts).items()}


def _outputs(
    texts: pa.StringArray, filled: npt.NDArray[np.bool_], scores: npt.NDArray[np.float32] | None, width: int
) -> pa.RecordBatch:
    outputs = np.full((len(texts), width), np.nan, np.float32)
    if scores is not None:
        outputs[filled] = scores.reshape(-1, width)
    unknown = np.asarray(texts.is_null(), dtype=bool)
    column = pa.FixedSizeListArray.from_arrays(pa.array(outputs.ravel()), width, mask=pa.array(unknown))
    return pa.record_batch({OUTPUTS: column})


def outputs_of(column: pa.FixedSizeListArray) -> npt.NDArray[np.float32]:
    """The `outputs` column as float32[N, width], NaN where a row was not measured."""
    width = column.type.list_size
    flat = np.asarray(column.values, np.float32).reshape(-1, width)[column.offset : column.offset + len(column)]
    known = np.asarray(column.is_valid(), dtype=bool)
    return np.where(known[:, None], flat, np.float32(np.nan))


def _score_fasttext(found: SavedFastText) -> Score:
    model, prepare = FastTextClassifier.open(found.weights), found.open_preparation()

    def score(texts: pa.StringArray) -> npt.NDArray[np.float32]:
        """Every label's probability in the file's order; a text of which the model knows nothing has zeros."""
        places, scores = model.predict(prepare(texts), best=len(model.labels))
        spread = np.zeros((len(texts), len(model.labels)), np.float32)
        rows, ranks = np.nonzero(places >= 0)
        spread[rows, places[rows, ranks]] = scores[rows, ranks]
        return spread

    return score


def _refuse_headless(files: ModelFiles) -> None:
    """Raises ModelError for an encoder without a classifier on it, as the names of its weights tell."""
    from safetensors import SafetensorError, safe_open

    if any(name.endswith("ForSequenceClassification") for name in files.config.get("architectures") or ()):
        return
    for path in files.paths:
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="numpy") as weights:
                    if any(name.startswith(_HEADS) for name in weights.keys()):  # noqa: SIM118
                        return
            except (SafetensorError, OSError) as error:
                raise ModelError(
                    f"the weights cannot be read: {error}", at=str(path), hint="download the model again"
                ) from error
    raise ModelError(
        "the model is an encoder without a classifier on it",
        at=str(files.folder),
        hint="give a sequence classifier, or score with this encoder: `--encoder PATH --labels labels.jsonl`",
    )
