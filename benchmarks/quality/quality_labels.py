"""How well small models learn labels that people gave: registers of web text, trained on one language and tested on the
other, and reading levels of news, by article; beside length, perplexity under character n-grams, and chance.

Invariant: every method sees the same training and test texts. No article has versions on both sides, and what marks a
level outside the text itself (a heading, a byte order mark) is taken off. Seeds are fixed; of several the mean of the
probabilities counts. The packaged encoder is English: of French and Swedish it has pieces of words.
Trade-off: the encoder reads `--tokens` (128) of a text, because fine-tuning takes a second for 1,000 and thread.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.corpora import FOLDER
from benchmarks.table import Row, publish
from classifiers.distillation.checkpoint import CheckpointFolder
from classifiers.distillation.encoder_model import class_numbers
from classifiers.distillation.examples import Examples, part_examples
from classifiers.distillation.figures import measure_classes
from classifiers.distillation.loop import Trainer
from classifiers.distillation.model import build_model, make_inputs
from classifiers.distillation.settings import EncoderSettings
from classifiers.encoders.devices import choose_device, choose_dtype, set_threads
from classifiers.encoders.encoder import Encoder, EncoderConfig
from classifiers.encoders.models import DEFAULT_MODEL, find_model
from classifiers.encoders.tokens import TextTokenizer
from classifiers.fasttext.folder import SavedFastText
from classifiers.fasttext.training import PRESETS, predict, train
from classifiers.quality.logistic import fit_line
from classifiers.quality.metrics import rank_correlation
from storage.identity import content_hash

REGISTERS = ("IN", "IP", "NA", "OP")
"""Informational, promotion, narrative, opinion: those with 60 texts or more in both languages."""
LEVELS = ("Ele", "Int", "Adv")
HEADING = "Intermediate"
ORDER = 5
BATCH = 16
VALIDATION_SEED = 1000
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """Texts to learn from and texts to be tested on. `classes` are in the order of their rank where there is one."""

    name: str
    training: Examples
    test: Examples
    classes: tuple[str, ...]
    ranked: bool


@dataclass(frozen=True)
class Budget:
    """What a method may use."""

    model: str
    tokens: int
    steps: int
    seeds: int
    threads: int


Method = Callable[[Task, Budget], Floats]
"""float64[test texts, classes], probabilities or any scores of classes; a seed's mean where it has seeds."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bench-quality-labels", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the labelled texts lie")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="the encoder")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of a text that the encoder reads")
    parser.add_argument("--steps", type=int, default=250, help="of fine-tuning, in whole epochs of 16 texts a step")
    parser.add_argument("--seeds", type=int, default=1, help="fine-tuned so often")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    budget = Budget(options.model, options.tokens, options.steps, options.seeds, options.threads)
    set_threads(options.threads)
    tasks = [*_register_tasks(options.folder), _level_task(options.folder)]
    rows = []
    for task in tasks:
        for name, method in METHODS.items():
            rows += _figures(task, name, method, budget)
            print(f"{rows[-1].what}: {rows[-1].figure:.3f}", file=sys.stderr, flush=True)
    notes = [f"{task.name}: {len(task.training)} texts to learn from, {len(task.test)} tested" for task in tasks]
    notes += [
        f"encoder {options.model}, {options.tokens} tokens a text, {options.steps} steps, {options.seeds} seeds",
        "peer: what always saying the commonest class gives; for rank correlation the length of the text",
        f"perplexity: character {ORDER}-grams of each class's training texts, a text is of the class that it surprises "
        "least; no language model is packaged",
        "the packaged encoder is English: French and Swedish reach it in pieces of words",
    ]
    publish("quality_labels", rows, packages=("torch", "transformers", "fasttext-community"), notes=notes)


def _rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _register_tasks(folder: Path) -> list[Task]:
    rows = [row for row in _rows(folder / "quality/web-registers.jsonl.gz") if row["register"] in REGISTERS]
    sides = {language: _examples([row for row in rows if row["language"] == language], "register") for language in
             ("fr", "sv")}  # fmt: skip
    names = {"fr": "French", "sv": "Swedish"}
    return [
        Task(f"registers, {names[a]} to {names[b]}", sides[a], sides[b], REGISTERS, ranked=False)
        for a, b in (("fr", "sv"), ("sv", "fr"))
    ]


def _level_task(folder: Path) -> Task:
    rows = [{**row, "text": _without_marks(row["text"])} for row in _rows(folder / "quality/onestop-english.jsonl.gz")]
    # Intermediate ones are there twice, once without any typographic mark: that would be learned, too.
    rows.sort(key=lambda row: sum(not character.isascii() for character in row["text"]))
    once = {(_article(row), row["level"]): row for row in rows}
    found = _examples(list(once.values()), "level", _article)
    sides = part_examples(found, (0.7, 0.0, 0.3), 0)
    return Task(
        "reading levels", found.take(np.flatnonzero(sides == 0)), found.take(np.flatnonzero(sides == 2)), LEVELS, True
    )


def _without_marks(text: str) -> str:
    """A level's versions begin with a byte order mark or with its name: a model would learn that and nothing else."""
    return text.lstrip("\ufeff").strip().removeprefix(HEADING).strip()


def _article(row: dict[str, str]) -> str:
    return row["file"].rpartition("-")[0].lower()


def _examples(
    rows: Sequence[dict[str, str]], label: str, group: Callable[[dict[str, str]], str] = lambda row: row["text"]
) -> Examples:
    """Each distinct text once."""
    distinct = list({row["text"]: row for row in rows}.values())
    return Examples(
        pa.table(
            {
                "text": pa.array([row["text"] for row in distinct], pa.large_string()),
                "label": [row[label] for row in distinct],
                "grade": pa.nulls(len(distinct), pa.float64()),
                "language": pa.array([row.get("language", "en") for row in distinct]),
                "group": pa.array([content_hash(group(row).encode()) for row in distinct], pa.binary(16)),
            }
        )
    )


def _figures(task: Task, name: str, method: Method, budget: Budget) -> list[Row]:
    """Macro-F1, and for classes with a rank the rank correlation of the expected one."""
    scores = method(task, budget)
    labels = _numbers(task.test, task.classes)
    commonest = Counter(_numbers(task.training, task.classes).tolist()).most_common(1)[0][0]
    always = np.eye(len(task.classes))[np.full(len(labels), commonest)]
    rows = [
        Row(
            what=f"{task.name}: macro-F1 of {name}",
            figure=measure_classes(scores, labels, task.classes)["macro_f1"],
            unit="F1",
            peer="commonest class",
            peer_figure=measure_classes(always, labels, task.classes)["macro_f1"],
        )
    ]
    if task.ranked:
        expected = scores @ np.arange(len(task.classes))
        length = np.array([len(text) for text in task.test.texts().to_pylist()], np.float64)
        rows.append(
            Row(
                what=f"{task.name}: rank correlation of {name}",
                figure=rank_correlation(expected, labels.astype(np.float64)) or 0.0,
                unit="Spearman",
                peer="length",
                peer_figure=rank_correlation(length, labels.astype(np.float64)) or 0.0,
            )
        )
    return rows


def _numbers(examples: Examples, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    return np.array([classes.index(label) for label in examples.table["label"].to_pylist()], np.int64)


def _length(task: Task, _: Budget) -> Floats:
    """A logistic line for each class over the logarithm of the length and its square."""

    def features(examples: Examples) -> Floats:
        logs = np.array([math.log(1 + len(text)) for text in examples.texts().to_pylist()])
        return np.column_stack([logs, logs**2])

    return _lines(features(task.training), features(task.test), task)


def _perplexity(task: Task, _: Budget) -> Floats:
    """Of each class the chance that it, by character n-grams with add-one smoothing, wrote the text."""
    models = [_CharacterModel(_texts_of(task.training, name)) for name in task.classes]
    losses = np.array([[model.loss(text) for model in models] for text in task.test.texts().to_pylist()])
    powers = np.exp(-20 * (losses - losses.min(axis=1, keepdims=True)))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


def _texts_of(examples: Examples, name: str) -> list[str]:
    pairs = zip(examples.texts().to_pylist(), examples.table["label"].to_pylist(), strict=True)
    return [text for text, label in pairs if label == name]


class _CharacterModel:
    """Counts of ORDER characters and of the ORDER - 1 before the last."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.grams: Counter[str] = Counter()
        for text in texts:
            self.grams.update(text[i : i + ORDER] for i in range(len(text) - ORDER + 1))
        self.contexts: Counter[str] = Counter()
        for gram, count in self.grams.items():
            self.contexts[gram[:-1]] += count
        self.symbols = len({gram[-1] for gram in self.grams}) + 1

    def loss(self, text: str) -> float:
        """Mean nats a character."""
        text = text[:4000]
        grams = [text[i : i + ORDER] for i in range(len(text) - ORDER + 1)]
        chances = ((self.grams[gram] + 0.1) / (self.contexts[gram[:-1]] + 0.1 * self.symbols) for gram in grams)
        return -sum(map(math.log, chances)) / max(1, len(grams))


def _fasttext(task: Task, _: Budget) -> Floats:
    """Words, with a rate and epochs for hundreds of texts; one thread, so that it is the same each time."""
    settings = replace(PRESETS["dclm_en"], word_grams=1, epochs=100, learning_rate=1.0, least_count=2, dimension=20)
    with tempfile.TemporaryDirectory() as folder:
        saved = SavedFastText(weights=Path(folder) / "model.bin")
        train(task.training, settings, None, saved.weights)
        return predict(saved, task.test.texts(), task.classes)


def _frozen_head(task: Task, budget: Budget) -> Floats:
    """Mean-pooled vectors of the encoder, and a logistic line for each class."""
    encoder = Encoder(EncoderConfig(max_tokens=budget.tokens, threads=budget.threads), budget.model)
    vectors = [
        encoder.embed(each.texts().cast(pa.string())).vectors.astype(np.float64) for each in (task.training, task.test)
    ]
    return _lines(vectors[0], vectors[1], task)


def _lines(training: Floats, test: Floats, task: Task, l2: float = 0.1) -> Floats:
    """One class against the others, made to sum to one."""
    labels = _numbers(task.training, task.classes)
    weights = np.ones(len(labels))
    logits = [
        fit_line(training, (labels == i).astype(np.float64), weights, l2).logits(test) for i in range(len(task.classes))
    ]
    chances = 1 / (1 + np.exp(-np.column_stack(logits)))
    return np.asarray(chances / chances.sum(axis=1, keepdims=True), np.float64)


def _frozen_pooler(task: Task, budget: Budget) -> Floats:
    return _distilled(task, budget, EncoderSettings(frozen=True, epochs=20, max_tokens=budget.tokens, batch=BATCH))


def _fine_tuned(task: Task, budget: Budget) -> Floats:
    epochs = math.ceil(budget.steps * BATCH / len(task.training))
    settings = EncoderSettings(epochs=epochs, max_tokens=budget.tokens, batch=BATCH, learning_rate=1e-4)
    return _distilled(task, budget, settings)


def _distilled(task: Task, budget: Budget, settings: EncoderSettings) -> Floats:
    """The mean probabilities of the seeds' models; a tenth of the training texts is their validation."""
    found = [_one_seed(task, budget, replace(settings, seed=seed)) for seed in range(budget.seeds)]
    return np.asarray(np.mean(found, axis=0), np.float64)


def _one_seed(task: Task, budget: Budget, settings: EncoderSettings) -> Floats:
    import torch

    device = choose_device()
    half = choose_dtype("auto", device) == torch.bfloat16
    settings = replace(settings, dtype="bfloat16" if half else "float32", threads=budget.threads)
    both = Examples(pa.concat_tables([task.training.table, task.test.table]))
    files = find_model(budget.model)
    model = build_model(files, settings, classes=both.classes, mean=0.0).to(device)
    rows = TextTokenizer(files, settings.max_tokens)(both.texts().cast(pa.string()))
    trainer = Trainer(make_inputs(model, rows, settings), torch.from_numpy(class_numbers(both)), settings)
    # Another draw than that of the test texts: with the same one no training text would be left for validation.
    sides = part_examples(task.training, (0.9, 0.1, 0.0), VALIDATION_SEED + settings.seed)
    with tempfile.TemporaryDirectory() as folder:
        trainer.fit(np.flatnonzero(sides == 0), np.flatnonzero(sides == 1), CheckpointFolder(Path(folder), "bench"))
    logits = trainer.predict(np.arange(len(task.training), len(both))).astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    order = [both.classes.index(name) for name in task.classes]
    return np.asarray((powers / powers.sum(axis=1, keepdims=True))[:, order], np.float64)


METHODS: dict[str, Method] = {
    "length": _length,
    "perplexity by class": _perplexity,
    "fastText": _fasttext,
    "frozen encoder, logistic head": _frozen_head,
    "frozen encoder, pooler and head": _frozen_pooler,
    "fine-tuned encoder": _fine_tuned,
}


if __name__ == "__main__":
    main()
