"""Model cards: what a distilled classifier is, what it learned from, and how well it does on what it never saw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from classifiers.fasttext.preparation import Preparation

_SHOWN_PHRASES = 10


def describe_fasttext(facts: Mapping[str, Any], preparation: Preparation | None) -> str:
    """The card of a fastText folder, Markdown."""
    settings, heldout = facts["settings"], facts["held_out"]
    lines = [
        f"# fastText classifier: {' against '.join(facts['labels'])}",
        "",
        *_origin(facts),
        f"Trained on {_counts(facts['training'])}. Settings: "
        + ", ".join(f"`{name}` {value}" for name, value in settings.items() if name not in ("names", "words")) + ".",
        "",
        _reproducible(facts["reproducible"]),
        "",
        *_prepared(preparation),
        "## On texts held out",
        "",
        *_at_threshold("p(positive)", heldout.get("at_threshold")),
        *_classes(heldout, facts["labels"]),
        *_languages(heldout.get("by_language", {}), ("precision", "recall", "f1", "auc")),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def describe_encoder(facts: Mapping[str, Any]) -> str:
    """The card of an encoder's folder: Markdown under the metadata that Hugging Face reads."""
    settings, heldout, base = facts["settings"], facts["held_out"], facts["base_model"]
    licence = f"license: {base['licence']}\n" if base["licence"] else ""
    what = "regression" if facts["task"] == "regression" else f"classes {', '.join(facts['labels'])}"
    lines = [
        f"---\n{licence}base_model: {base['name']}\npipeline_tag: text-classification\nlibrary_name: transformers\n---",
        f"# Distilled classifier: {facts['name']}",
        "",
        *_origin(facts),
        f"Base model {base['name']} (licence: {base['licence'] or 'its card names none'}), "
        f"{'frozen but for its pooler and head' if settings['frozen'] else 'fine-tuned whole'}; {what}. "
        f"Texts: {_counts(facts['sides'])}.",
        "",
        "Settings: " + ", ".join(f"`{name}` {value}" for name, value in settings.items()) + ".",
        "",
        f"Best of {len(facts['history'])} epochs: {facts['best_epoch'] + 1}, by the loss on the validation texts. "
        + _reproducible(facts["reproducible"]),
        "",
        "## On texts held out",
        "",
        f"Scores after calibration ({facts['calibration']['kind']}, fitted on the validation texts).",
        "",
        *_graded(heldout),
        *_at_threshold("the score", heldout.get("at_threshold")),
        *_classes(heldout, facts["labels"]),
        *_languages(heldout["by_language"], _LANGUAGE_FIGURES[facts["task"]]),
        "## Loading",
        "",
        "`AutoModelForSequenceClassification.from_pretrained(folder)` gives the raw logits; Gristmill applies the "
        "calibration to them.",
    ]
    return "\n".join(lines) + "\n"


_LANGUAGE_FIGURES = {
    "regression": ("rank_correlation", "quadratic_weighted_kappa", "mean_absolute_error"),
    "classes": ("accuracy", "macro_f1"),
}


def _origin(facts: Mapping[str, Any]) -> list[str]:
    told = facts["origin"]
    return [f"**Labels.** {told['meaning']}", "", f"Left out: {_counts(told['left_out'])}.", ""]


def _reproducible(is_so: bool) -> str:
    if is_so:
        return "The same texts, settings and packages give the same weights on this type of processor."
    return "Trained on several threads or on a GPU: the same command gives slightly other weights."


def _prepared(preparation: Preparation | None) -> Iterator[str]:
    if preparation is None:
        yield "Text is read as it is, line breaks as spaces.\n"
        return
    shown = "; ".join(preparation.phrases[:_SHOWN_PHRASES])
    yield (
        f"Text is cut into words (jieba's dictionary); {len(preparation.stop_words)} stop words and "
        f"{len(preparation.phrases)} phrases are left out, in training as in scoring ({shown}).\n"
    )


def _graded(heldout: Mapping[str, Any]) -> Iterator[str]:
    """Agreement with the labels, and the confusion matrix of whole grades."""
    if "quadratic_weighted_kappa" not in heldout:
        return
    names = ("examples", "rank_correlation", "quadratic_weighted_kappa", "mean_absolute_error")
    yield from _table(["measured", ""], [[name.replace("_", " "), _figure(heldout[name])] for name in names])
    grades = [str(grade) for grade in range(len(heldout["confusion"]))]
    yield from _matrix("whole grades above the lowest", grades, heldout["confusion"])


def _at_threshold(score: str, figures: Mapping[str, Any] | None) -> Iterator[str]:
    if figures is None:
        return
    yield f"Cut where {score} is {figures['threshold']:g}:\n"
    names = ("positives", "precision", "recall", "f1", "auc", "accuracy")
    rows = [[name, _figure(figures[name])] for name in names]
    rows += [[name.replace("_", " "), str(count)] for name, count in figures["confusion"].items()]
    yield from _table(["measured", ""], rows)


def _classes(heldout: Mapping[str, Any], labels: Sequence[str]) -> Iterator[str]:
    if "classes" not in heldout:
        return
    yield f"Accuracy {_figure(heldout['accuracy'])}, macro-F1 {_figure(heldout['macro_f1'])}.\n"
    names = ("examples", "precision", "recall", "f1")
    rows = [[name, *(_figure(of[each]) for each in names)] for name, of in heldout["classes"].items()]
    yield from _table(["class", *names], rows)
    yield from _matrix("classes", labels, heldout["confusion"])


def _matrix(what: str, names: Sequence[str], counts: Sequence[Sequence[int]]) -> Iterator[str]:
    yield f"Confusion of {what} (a row a label, a column an answer):\n"
    yield from _table(["", *names], [[name, *map(str, row)] for name, row in zip(names, counts, strict=True)])


def _languages(figures: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> Iterator[str]:
    rows = [[code, str(of["examples"]), *(_figure(of[name]) for name in names)] for code, of in figures.items()]
    if rows:
        yield from _table(["language", "examples", *(name.replace("_", " ") for name in names)], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items()) or "nothing"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
