"""fastText classifiers trained as CCI4.0 (Chinese) and DCLM (English) trained theirs, from labelled texts to a folder.

Invariant: with one thread the same examples, settings and package give the same weights, byte for byte. With more,
threads write into one another's sums (Hogwild), and no two trainings are alike; the card says which it was.
Trade-off: one thread reads 1.7 M words a second, so CCI4.0's 25 epochs over 400,000 documents of 500 words take 50
minutes.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from classifiers.distillation.card import describe_fasttext
from classifiers.distillation.examples import TEST, TRAINING, Examples, part_examples, require_sides
from classifiers.distillation.figures import by_language, measure_classes
from classifiers.fasttext.folder import CARD, WEIGHTS, SavedFastText, save_facts
from classifiers.fasttext.model import FastTextClassifier
from classifiers.fasttext.preparation import Preparation
from classifiers.fasttext.stop_words import find_phrases
from classifiers.quality.metrics import measure_scores
from storage.commit import atomic_path, write_atomically
from storage.errors import InputError, RecipeError
from storage.identity import fingerprint
from storage.stage import package_versions

PREFIX = "__label__"
_END_OF_LINE = "</s>"
PACKAGE = "fasttext-community"
LEAST_EXAMPLES = 10
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class FastTextSettings:
    """fastText's own numbers, and how texts are prepared and counted.

    `names` are the model's labels of the classes `positive` and `negative`. `words`: text is cut into words, stop words
    and the `phrases` commonest phrases left out. `training` and `test` are texts of each class, or as many as there
    are. `threshold`: from which p(positive) on a text counts as positive in the figures.
    """

    names: tuple[str, str]
    words: bool
    epochs: int
    learning_rate: float
    word_grams: int
    least_count: int
    loss: Literal["hs", "softmax", "ns", "ova"]
    buckets: int = 2_000_000
    dimension: int = 100
    phrases: int = 100
    training: int = 200_000
    test: int = 20_000
    threshold: float = 0.5
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "word_grams", "least_count", "dimension", "training", "test", "threads"):
            if getattr(self, name) < 1:
                raise RecipeError(f"fastText's {name} is {getattr(self, name)}; it must be at least 1")
        if self.learning_rate <= 0 or not 0 < self.threshold < 1:
            raise RecipeError(
                f"the learning rate is {self.learning_rate:g} (over 0), the threshold {self.threshold:g} (in 0-1)"
            )

    @property
    def most_per_class(self) -> int:
        return self.training + self.test


PRESETS = {
    "cci4_zh": FastTextSettings(
        names=("1", "0"), words=True, epochs=25, learning_rate=0.1, word_grams=1, least_count=5, loss="hs"
    ),
    "dclm_en": FastTextSettings(
        names=("hq", "cc"), words=False, epochs=5, learning_rate=0.1, word_grams=2, least_count=1, loss="softmax"
    ),
}
"""CCI4.0's numbers as its code has them; of DCLM's its paper gives the bigrams and the counts, and the others are
fastText's defaults, as theirs were."""


def fit_fasttext(
    examples: Examples, settings: FastTextSettings, folder: Path, *, stop_words: tuple[str, ...], origin: dict[str, Any]
) -> dict[str, Any]:
    """Train on one side of the examples, measure on the other, and write the folder; returns what its facts say.

    `origin` is what the card tells of the examples. Raises InputError where they do not suffice.
    """
    examples = _as_classes(examples, settings)
    sides = _sides(examples, settings)
    learned = examples.take(np.flatnonzero(sides == TRAINING))
    preparation = _prepare(learned, settings, stop_words) if settings.words else None
    train(learned, settings, preparation, folder / WEIGHTS)
    saved = SavedFastText(weights=folder / WEIGHTS, preparation=preparation)
    heldout = _measure(examples.take(np.flatnonzero(sides == TEST)), saved, settings, examples.classes)
    binary = set(examples.classes) == set(settings.names)
    facts = {
        "identity": fingerprint({"fasttext": settings, "examples": examples.digest(), "stop_words": stop_words}),
        "labels": list(examples.classes),
        "settings": asdict(settings),
        "reproducible": settings.threads == 1,
        "packages": package_versions((PACKAGE, "jieba")),
        "training": dict(sorted(Counter(learned.table["label"].to_pylist()).items())),
        "held_out": heldout,
        "origin": origin,
    }
    write_atomically(folder / CARD, describe_fasttext(facts, preparation).encode())
    save_facts(folder, preparation=preparation, positive=settings.names[0] if binary else None, facts=facts)
    return facts


def _as_classes(examples: Examples, settings: FastTextSettings) -> Examples:
    """The examples with the model's own labels. Grades are none: there is nothing to cut them by but the recipe."""
    if examples.graded:
        raise InputError(
            "fastText learns classes, and these labels are grades",
            hint='write a labelling recipe with `positive` and `negative`, e.g. `where: "annotation.score >= 3"`',
        )
    names = {"positive": settings.names[0], "negative": settings.names[1]}
    labels = [names.get(label, "_".join(label.split())) for label in examples.table["label"].to_pylist()]
    place = examples.table.column_names.index("label")
    return Examples(examples.table.set_column(place, "label", pa.array(labels, pa.string())))


def _sides(examples: Examples, settings: FastTextSettings) -> npt.NDArray[np.int8]:
    """TRAINING, TEST, or -1 for what is over the numbers of a class."""
    share = settings.test / settings.most_per_class
    sides = part_examples(examples, (1 - share, 0.0, share), settings.seed)
    labels = np.asarray(examples.table["label"])
    for side, most in ((TRAINING, settings.training), (TEST, settings.test)):
        for label in examples.classes:
            sides[np.flatnonzero((sides == side) & (labels == label))[most:]] = -1
    require_sides(examples, sides, least=LEAST_EXAMPLES, needed=(TRAINING, TEST))
    return sides


def _prepare(learned: Examples, settings: FastTextSettings, stop_words: tuple[str, ...]) -> Preparation:
    """Phrases are counted in training texts alone."""
    phrases = find_phrases(learned.texts(), stop_words, most=settings.phrases, least_documents=settings.least_count)
    return Preparation(stop_words=stop_words, phrases=phrases)


def train(learned: Examples, settings: FastTextSettings, preparation: Preparation | None, weights: Path) -> None:
    import fasttext

    weights.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=weights.parent, prefix=".tmp-") as scratch:
        lines = Path(scratch) / "lines.txt"
        _write_lines(lines, learned, preparation)
        try:
            model = fasttext.train_supervised(
                str(lines),
                epoch=settings.epochs,
                lr=settings.learning_rate,
                wordNgrams=settings.word_grams,
                minCount=settings.least_count,
                loss=settings.loss,
                bucket=settings.buckets,
                dim=settings.dimension,
                thread=settings.threads,
                seed=settings.seed,
                verbose=0,
            )
            if set(model.get_words()) <= {_END_OF_LINE}:
                raise ValueError(f"no word occurs {settings.least_count:,} times")
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"fastText cannot learn from {len(learned):,} texts: {error}",
                hint="give more texts, lower `--least-count` where the vocabulary is empty, or `--learning-rate`",
            ) from error
        with atomic_path(weights) as temporary:
            model.save_model(str(temporary))


def _write_lines(path: Path, learned: Examples, preparation: Preparation | None) -> None:
    """One text a line after its label, in the order of the draw; what fastText would take for a label or an end of
    line is written so that it is neither."""
    prepare = SavedFastText(weights=path, preparation=preparation).open_preparation()
    with path.open("w", encoding="utf-8", newline="") as file:
        for batch in learned.table.select(["label", "text"]).to_batches(_ROWS_AT_ONCE):
            texts = prepare(batch["text"].cast(pa.string()))
            for pattern, instead in (("\n", " "), (PREFIX, "__label_"), (_END_OF_LINE, "</s")):
                texts = pc.replace_substring(texts, pattern, instead)
            for label, text in zip(batch["label"].to_pylist(), texts.to_pylist(), strict=True):
                file.write(f"{PREFIX}{label} {text}\n")


def predict(saved: SavedFastText, texts: pa.Array, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """float64[N, names]: the model's probabilities, with its own preparation; 0 for all where it knows no word."""
    model, prepare = FastTextClassifier.open(saved.weights), saved.open_preparation()
    order = [names.index(label.removeprefix(PREFIX)) for label in model.labels]
    found = np.zeros((len(texts), len(names)))
    for start in range(0, len(texts), _ROWS_AT_ONCE):
        piece = texts.slice(start, _ROWS_AT_ONCE).cast(pa.string())
        places, scores = model.predict(prepare(piece), best=len(order))
        rows, ranks = np.nonzero(places >= 0)
        found[start + rows, np.array(order)[places[rows, ranks]]] = scores[rows, ranks]
    return found


def _measure(
    heldout: Examples, saved: SavedFastText, settings: FastTextSettings, names: tuple[str, ...]
) -> dict[str, Any]:
    """Classes as they are; with two of them also the figures of p(positive) at the threshold, by language too."""
    probabilities = predict(saved, heldout.texts(), names)
    labels = np.searchsorted(names, np.asarray(heldout.table["label"]).astype(str))
    figures = measure_classes(probabilities, labels, names)
    if set(names) != set(settings.names):
        return figures
    positive = names.index(settings.names[0])
    scores, meant = probabilities[:, positive], (labels == positive).astype(np.float64)

    def at_threshold(rows: npt.NDArray[np.intp]) -> dict[str, Any]:
        return measure_scores(scores[rows], meant[rows], settings.threshold)

    return {
        **figures,
        "at_threshold": at_threshold(np.arange(len(meant))),
        "by_language": by_language(heldout.languages, at_threshold),
    }


def read_settings(preset: str, **given: Any) -> FastTextSettings:
    """A preset with what is given (not None) in place of its own."""
    if preset not in PRESETS:
        raise InputError(f"there is no preset `{preset}`", hint=f"presets: {', '.join(PRESETS)}")
    return replace(PRESETS[preset], **{name: value for name, value in given.items() if value is not None})
