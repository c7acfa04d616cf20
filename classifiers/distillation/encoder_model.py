"""An encoder distilled from labels: fitted, calibrated, measured on texts held out, and saved as a Hugging Face folder.

Invariant: the folder loads in transformers with the logits that it was measured by; its gristmill.json is written last,
so a folder that has one is whole. Calibration is fitted on the validation texts, the figures are of the test texts,
and no group of copies has texts on two sides.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from classifiers.distillation.calibrating import calibrate_classes, calibrate_grades
from classifiers.distillation.card import describe_encoder
from classifiers.distillation.checkpoint import CheckpointFolder
from classifiers.distillation.examples import (
    SIDES,
    TEST,
    TRAINING,
    VALIDATION,
    Examples,
    part_examples,
    require_sides,
)
from classifiers.distillation.figures import by_language, measure_classes, measure_grades
from classifiers.distillation.loop import Listener, Trainer
from classifiers.distillation.model import build_model, make_inputs
from classifiers.distillation.settings import EncoderSettings
from classifiers.encoders.calibration import FACTS, FORMAT_VERSION, Calibration
from classifiers.encoders.devices import choose_device, set_threads
from classifiers.encoders.models import ModelFiles, find_model
from classifiers.encoders.opening import quiet_transformers
from classifiers.encoders.tokens import TextTokenizer
from storage.commit import write_atomically
from storage.errors import InputError, ModelError
from storage.identity import fingerprint, hash_file
from storage.stage import package_versions

KIND = "encoder"
CARD, CHECKPOINTS = "README.md", "checkpoints"
LEAST_EXAMPLES = 10
PACKAGES = ("torch", "transformers", "tokenizers")
Rows = npt.NDArray[np.intp]


def fit_encoder(
    examples: Examples,
    settings: EncoderSettings,
    base: str,
    folder: Path,
    *,
    name: str,
    origin: dict[str, Any],
    heard: Listener | None = None,
) -> dict[str, Any]:
    """Fit `base` (a folder, a hub name or the packaged encoder) and write `folder`; returns what its facts say.

    A training that was killed goes on from its last whole epoch. Raises InputError for examples that do not suffice,
    and ModelError for a base that cannot be fitted.
    """
    files = find_model(base)
    _check(examples, settings, files)
    identity = identify(examples, settings, files)
    set_threads(settings.threads)
    sides = part_examples(examples, settings.shares, settings.seed)
    require_sides(examples, sides, least=LEAST_EXAMPLES, needed=(TRAINING, VALIDATION, TEST))
    trainer = _open_trainer(examples, settings, files, sides)
    checkpoints = CheckpointFolder(folder / CHECKPOINTS, identity)
    progress = trainer.fit(_rows(sides, TRAINING), _rows(sides, VALIDATION), checkpoints, heard)
    calibration = _calibrate(trainer, examples, settings, _rows(sides, VALIDATION))
    facts = {
        "format_version": FORMAT_VERSION,
        "kind": KIND,
        "identity": identity,
        "name": name,
        "task": "regression" if examples.graded else "classes",
        "labels": [] if examples.graded else list(examples.classes),
        "scale": list(settings.scale) if examples.graded else None,
        "calibration": asdict(calibration),
        "base_model": {"name": _base_name(base, files), "licence": _licence(files), "files": _hashes(files)},
        "settings": {**asdict(settings), "epochs": settings.num_epochs, "learning_rate": settings.rate},
        "reproducible": trainer.model.device.type == "cpu",
        "packages": package_versions(PACKAGES),
        "sides": {side: int((sides == i).sum()) for i, side in enumerate(SIDES)},
        "best_epoch": progress.best_epoch,
        "history": progress.history,
        "held_out": _measure(trainer, examples, settings, calibration, _rows(sides, TEST)),
        "origin": origin,
    }
    _save(folder, trainer.model, files, settings, facts)
    checkpoints.remove()
    return facts


def identify(examples: Examples, settings: EncoderSettings, files: ModelFiles) -> str:
    """What a distilled encoder is made of: base model, examples, settings; not the memory or the threads it had."""
    numbers = {name: value for name, value in asdict(settings).items() if name not in ("batch_tokens", "threads")}
    return fingerprint({"encoder": 1, "base": _hashes(files), "settings": numbers, "examples": examples.digest()})


def _check(examples: Examples, settings: EncoderSettings, files: ModelFiles) -> None:
    if files.max_tokens is not None and settings.max_tokens > files.max_tokens:
        raise ModelError(
            f"max_tokens is {settings.max_tokens}, but the model takes at most {files.max_tokens}",
            at=str(files.folder),
            hint=f"give `--max-tokens {files.max_tokens}`",
        )
    lowest, highest = settings.scale
    if examples.graded and not ((examples.grades >= lowest) & (examples.grades <= highest)).all():
        found = f"{examples.grades.min():g} to {examples.grades.max():g}"
        raise InputError(
            f"the grades go from {found}, the scale from {lowest:g} to {highest:g}",
            hint="give `--scale LOWEST HIGHEST`, or bring them to it in the recipe's `label`",
        )


def _open_trainer(
    examples: Examples, settings: EncoderSettings, files: ModelFiles, sides: npt.NDArray[np.int8]
) -> Trainer:
    import pyarrow as pa
    import torch

    graded = examples.graded
    mean = float(examples.grades[sides == TRAINING].mean()) if graded else 0.0
    classes = () if graded else examples.classes
    model = build_model(files, settings, classes=classes, mean=mean).to(choose_device())
    tokenize = TextTokenizer(files, settings.max_tokens)
    tokenize.check_vocabulary(model.get_input_embeddings().num_embeddings, files)
    inputs = make_inputs(model, tokenize(examples.texts().cast(pa.string())), settings)
    targets = torch.from_numpy(examples.grades.astype(np.float32) if graded else class_numbers(examples))
    return Trainer(inputs, targets, settings)


def class_numbers(examples: Examples) -> npt.NDArray[np.int64]:
    """int64[N]: places in `examples.classes`."""
    labels = np.asarray(examples.table["label"]).astype(str)
    return np.searchsorted(np.array(examples.classes), labels).astype(np.int64)


def _rows(sides: npt.NDArray[np.int8], side: int) -> Rows:
    return np.flatnonzero(sides == side)


def _scores(trainer: Trainer, examples: Examples, rows: Rows) -> npt.NDArray[np.float32]:
    """What `TextClassifier.score` would say but for the calibration: raw values [N], or probabilities [N, classes]."""
    logits = trainer.predict(rows)
    if examples.graded:
        return logits[:, 0]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def _calibrate(trainer: Trainer, examples: Examples, settings: EncoderSettings, rows: Rows) -> Calibration:
    scores = _scores(trainer, examples, rows).astype(np.float64)
    if examples.graded:
        return calibrate_grades(scores, examples.grades[rows], settings.scale)
    return calibrate_classes(scores, class_numbers(examples)[rows])


def _measure(
    trainer: Trainer, examples: Examples, settings: EncoderSettings, calibration: Calibration, rows: Rows
) -> dict[str, Any]:
    """The figures of calibrated scores, of all these texts and by language."""
    scores = calibration.apply(_scores(trainer, examples, rows)).astype(np.float64)
    measure = _graded(scores, examples.grades[rows], settings) if examples.graded else _classed(scores, examples, rows)
    languages = [examples.languages[row] for row in rows]
    return {**measure(np.arange(len(rows))), "by_language": by_language(languages, measure)}


Measure = Callable[[Rows], dict[str, Any]]


def _graded(scores: npt.NDArray[np.float64], grades: npt.NDArray[np.float64], settings: EncoderSettings) -> Measure:
    clipped = np.clip(scores, *settings.scale)
    return lambda rows: measure_grades(clipped[rows], grades[rows], threshold=settings.threshold, scale=settings.scale)


def _classed(scores: npt.NDArray[np.float64], examples: Examples, rows: Rows) -> Measure:
    labels, names = class_numbers(examples)[rows], examples.classes
    return lambda chosen: measure_classes(scores[chosen], labels[chosen], names)


def _save(folder: Path, model: Any, files: ModelFiles, settings: EncoderSettings, facts: dict[str, Any]) -> None:
    """Weights and config by transformers, the base's tokenizer with our limit, the card, and last the facts."""
    from transformers import AutoTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    (folder / FACTS).unlink(missing_ok=True)
    with quiet_transformers():
        model.to("cpu").save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(files.folder, trust_remote_code=False, local_files_only=True)
        tokenizer.model_max_length = settings.max_tokens
        tokenizer.save_pretrained(folder)
    write_atomically(folder / CARD, describe_encoder(facts).encode())
    write_atomically(folder / FACTS, (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode())


def _base_name(base: str, files: ModelFiles) -> str:
    """As it was given, but of a folder its last part: a card says nothing of a machine."""
    return files.folder.name if Path(base).expanduser().is_dir() else base


def _licence(files: ModelFiles) -> str | None:
    """What the metadata of the base model's card says."""
    card = files.folder / CARD
    lines = card.read_text("utf-8", errors="replace").splitlines()[:200] if card.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(("license:", "licence:"))), None)


def _hashes(files: ModelFiles) -> list[str]:
    return [f"{path.name} {hash_file(path)}" for path in files.paths]
