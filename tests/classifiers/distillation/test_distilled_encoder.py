"""Encoders distilled: transformers' logits, calibration, resuming after a kill, memory that runs out, bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from classifiers.distillation import encoder_model
from classifiers.distillation.checkpoint import CheckpointFolder
from classifiers.distillation.encoder_model import fit_encoder, identify
from classifiers.distillation.examples import TEST, TRAINING, VALIDATION, Examples, part_examples
from classifiers.distillation.loop import Trainer, epoch_batches, schedule
from classifiers.distillation.model import StateInputs, TokenInputs, build_model, head_logits, make_inputs
from classifiers.distillation.settings import EncoderSettings
from classifiers.encoders.calibration import Calibration, read_calibration
from classifiers.encoders.classifier import ClassifierConfig, open_classifier
from classifiers.encoders.models import find_model
from classifiers.encoders.tokens import TextTokenizer
from storage.errors import InputError, ModelError, RecipeError, ResourceError
from storage.identity import content_hash

SIZES = {
    "vocab_size": 30522, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 66,
}  # fmt: skip
ORIGIN: dict[str, Any] = {"meaning": "5 is about mills", "left_out": {}}
SMALL = EncoderSettings(max_tokens=16, epochs=3, batch=8, learning_rate=3e-3, shares=(0.6, 0.2, 0.2))
WORDS = "the mill stands by river its wheel turns grain into flour shop sells cheap shoes buy now best price".split()


def save_base(folder: Path, kind: str = "bert") -> str:
    from transformers import AutoModel, BertConfig, DebertaV2Config, DistilBertConfig, RobertaConfig

    config = {
        "bert": lambda: BertConfig(**SIZES),
        "roberta": lambda: RobertaConfig(**SIZES, pad_token_id=0),
        "deberta": lambda: DebertaV2Config(**SIZES),
        "distilbert": lambda: DistilBertConfig(vocab_size=30522, dim=32, n_layers=1, n_heads=2, hidden_dim=32),
    }[kind]()
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((find_model().folder / "tokenizer.json").read_bytes())
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return str(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_base(tmp_path_factory.mktemp("base"))


def examples(num: int = 100, *, graded: bool = True) -> Examples:
    """The grade is the share of the first half of the words."""
    draw = np.random.default_rng(0)
    chosen = [draw.choice(18, size=int(draw.integers(4, 30)), p=_shares(i % 6)) for i in range(num)]
    grades = [5.0 * float((words < 9).mean()) for words in chosen]
    return Examples(
        pa.table(
            {
                "text": pa.array([" ".join(WORDS[word] for word in words) for words in chosen], pa.large_string()),
                "label": ["mill" if grade >= 2.5 else "shop" for grade in grades],
                "grade": pa.array(grades if graded else [None] * num, pa.float64()),
                "language": pa.array([("en", None)[i % 2] for i in range(num)], pa.string()),
                "group": pa.array([content_hash(str(i // 2).encode()) for i in range(num)], pa.binary(16)),
            }
        )
    )


def _shares(grade: int) -> list[float]:
    return [grade / 45] * 9 + [(5 - grade) / 45] * 9


def fitted(base: str, folder: Path, settings: EncoderSettings = SMALL, **options: Any) -> dict[str, Any]:
    data = examples(graded=options.pop("graded", True))
    return fit_encoder(data, settings, base, folder, name="mills", origin=ORIGIN, **options)


@pytest.mark.parametrize("graded", [True, False])
def test_a_fitted_folder_gives_transformers_logits_and_the_measured_figures(
    base: str, tmp_path: Path, graded: bool
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path / "model"
    facts = fitted(base, folder, graded=graded)
    texts = examples().texts().cast(pa.string()).slice(0, 12)
    ours = open_classifier(str(folder), ClassifierConfig(dtype="float32"))
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    encoded = AutoTokenizer.from_pretrained(folder)(
        texts.to_pylist(), padding=True, truncation=True, return_tensors="pt"
    )
    assert encoded["input_ids"].shape[1] <= SMALL.max_tokens, "the folder knows how much of a text it reads"
    with torch.inference_mode():
        logits = theirs(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits
    raw = (logits[:, 0] if graded else logits.softmax(-1)).numpy()
    calibration = read_calibration(folder)
    assert np.abs(ours.score(texts) - calibration.apply(raw)).max() < 5e-5
    assert np.abs(calibration.apply(raw) - raw).max() > 1e-3, "the calibration is applied, and it does something"
    assert ours.labels == (() if graded else ("mill", "shop"))
    assert ("rank_correlation" if graded else "macro_f1") in facts["held_out"]
    card = (folder / "README.md").read_text()
    assert "5 is about mills" in card and "| unknown |" in card and "seed" in card
    assert calibration == _from_json(facts["calibration"])


def _from_json(told: dict[str, Any]) -> Calibration:
    return Calibration(**{**told, "points": tuple(tuple(point) for point in told["points"])})


def test_it_learns(base: str, tmp_path: Path) -> None:
    facts = fitted(base, tmp_path / "model", replace(SMALL, epochs=12))
    assert facts["held_out"]["rank_correlation"] > 0.7
    assert facts["history"][facts["best_epoch"]]["validation_loss"] < facts["history"][0]["validation_loss"]


def test_the_same_again_is_the_same_bytes(base: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        fitted(base, tmp_path / name)
    for file in ("model.safetensors", "gristmill.json", "README.md"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


class Killed(BaseException):
    """As a signal would end it."""


@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_killed_training_ends_in_the_same_weights(base: str, tmp_path: Path, frozen: bool, after: int) -> None:
    settings = replace(SMALL, frozen=frozen)
    fitted(base, tmp_path / "whole", settings)

    def kill(done: int, *_: object) -> None:
        if done == after:
            raise Killed

    with pytest.raises(Killed):
        fitted(base, tmp_path / "killed", settings, heard=kill)
    assert not (tmp_path / "killed" / "gristmill.json").exists()
    heard: list[int] = []
    fitted(base, tmp_path / "killed", settings, heard=lambda done, *_: heard.append(done))
    assert heard == list(range(after + 1, 4)), "what was learned is not learned again"
    whole, killed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed"))
    assert whole == killed and not (tmp_path / "killed" / "checkpoints").exists()


@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta", "distilbert"])
def test_the_head_sees_through_kept_states_what_it_sees_itself(tmp_path: Path, kind: str) -> None:
    files = find_model(save_base(tmp_path, kind))
    settings = replace(SMALL, frozen=True)
    model = build_model(files, settings, classes=("a", "b"), mean=0.0)
    rows = TextTokenizer(files, 16)(examples().texts().cast(pa.string()).slice(0, 6))
    kept = make_inputs(model, rows, settings)
    assert isinstance(kept, StateInputs)
    model.eval()
    with torch.inference_mode():
        whole = TokenInputs(model, rows).logits(range(6))
        assert torch.allclose(whole, kept.logits(range(6)), atol=1e-5)
    assert all(not each.requires_grad for name, each in model.base_model.named_parameters() if "pooler" not in name)


def test_a_frozen_encoder_does_not_change(base: str, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    fitted(base, tmp_path / "model", replace(SMALL, frozen=True))
    before = load_file(Path(base) / "model.safetensors")
    after = load_file(tmp_path / "model" / "model.safetensors")
    body = {name: each for name, each in before.items() if not name.startswith("pooler.")}
    assert body and all(np.array_equal(each, after[f"bert.{name}"]) for name, each in body.items())
    assert not np.array_equal(before["pooler.dense.weight"], after["bert.pooler.dense.weight"])


def open_trainer(base: str, **options: Any) -> Trainer:
    settings = replace(SMALL, **options)
    files = find_model(base)
    model = build_model(files, settings, classes=(), mean=2.5)
    data = examples()
    rows = TextTokenizer(files, 16)(data.texts().cast(pa.string()))
    return Trainer(TokenInputs(model, rows), torch.from_numpy(data.grades.astype(np.float32)), settings)


def test_out_of_memory_halves_the_passes_and_keeps_the_gradient(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, halved = open_trainer(base), open_trainer(base)
    logits = TokenInputs.logits
    sizes: list[int] = []

    def short_of_memory(self: TokenInputs, rows: Any) -> torch.Tensor:
        sizes.append(len(rows))
        if self is halved.inputs and len(rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return logits(self, rows)

    monkeypatch.setattr(TokenInputs, "logits", short_of_memory)
    for trainer in (whole, halved):
        trainer.model.eval()  # without dropout, whose draws follow the passes
        trainer.accumulate(range(8))
    assert halved.batch_tokens < whole.batch_tokens and max(sizes[-3:]) <= 3
    for name, parameter in whole.learning.items():
        if parameter.grad is not None:
            found = halved.learning[name].grad
            assert found is not None and torch.allclose(parameter.grad, found, atol=1e-5)


def test_one_text_without_memory_is_told(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: TokenInputs, rows: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    trainer = open_trainer(base)
    monkeypatch.setattr(TokenInputs, "logits", full)
    with pytest.raises(ResourceError, match="no memory to train"):
        trainer.accumulate(range(8))


def test_training_stops_when_validation_no_longer_improves(base: str, tmp_path: Path) -> None:
    trainer = open_trainer(base, epochs=50, patience=2)
    losses = iter([3.0, 2.0, 2.5, 2.4, 9.0])
    trainer.measure = lambda rows: next(losses)  # type: ignore[method-assign]
    progress = trainer.fit(np.arange(60), np.arange(60, 80), CheckpointFolder(tmp_path, "x"))
    assert progress.epochs == 4 and progress.best_epoch == 1


def test_divergence_is_told(base: str, tmp_path: Path) -> None:
    trainer = open_trainer(base)
    trainer.measure = lambda rows: float("nan")  # type: ignore[method-assign]
    with pytest.raises(InputError, match="diverged"):
        trainer.fit(np.arange(60), np.arange(60, 80), CheckpointFolder(tmp_path, "x"))


def test_batches_hold_every_row_once_and_rows_of_like_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, 1000)
    batches = list(epoch_batches(lengths, np.arange(1000), 16, seed=1))
    assert sorted(row for batch in batches for row in batch) == list(range(1000))
    padding = 1 - lengths.sum() / sum(len(batch) * lengths[batch].max() for batch in batches)
    assert padding < 0.06
    assert batches == list(epoch_batches(lengths, np.arange(1000), 16, seed=1))
    assert batches != list(epoch_batches(lengths, np.arange(1000), 16, seed=2))


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[0] == 0.1 and max(rates) == rates[9] == rates[10] == 1.0 and 0 < rates[-1] < 0.02
    assert schedule(0, 3, 0.0) == 1.0


def test_groups_are_never_on_two_sides() -> None:
    data = examples(400)
    sides = part_examples(data, (0.6, 0.2, 0.2), seed=0)
    of: dict[bytes, set[int]] = {}
    for group, side in zip(data.table["group"].to_pylist(), sides.tolist(), strict=True):
        of.setdefault(group, set()).add(side)
    assert all(len(found) == 1 for found in of.values())
    assert {side: (sides == side).mean() > 0.1 for side in (TRAINING, VALIDATION, TEST)} == dict.fromkeys(
        range(3), True
    )
    assert not np.array_equal(sides, part_examples(data, (0.6, 0.2, 0.2), seed=1))


def test_what_cannot_be_fitted_is_refused(base: str, tmp_path: Path, make_bad: Callable[[str], str]) -> None:
    with pytest.raises(ModelError, match="at most 66"):
        fitted(base, tmp_path / "m", replace(SMALL, max_tokens=100))
    with pytest.raises(InputError, match="the scale from"):
        fitted(base, tmp_path / "m", replace(SMALL, scale=(0.0, 1.0), threshold=0.5))
    with pytest.raises(InputError, match="are needed"):
        fit_encoder(examples(20), SMALL, base, tmp_path / "m", name="m", origin=ORIGIN)
    with pytest.raises(ModelError):
        fitted(make_bad(base), tmp_path / "m")
    for wrong in ({"epochs": 0}, {"learning_rate": -1.0}, {"shares": (0.9, 0.1, 0.1)}, {"threshold": 7.0}):
        with pytest.raises(RecipeError):
            replace(SMALL, **wrong)  # type: ignore[arg-type]


@pytest.fixture
def make_bad(tmp_path: Path) -> Callable[[str], str]:
    def without_weights(base: str) -> str:
        shutil.copytree(base, tmp_path / "bad")
        (tmp_path / "bad" / "model.safetensors").unlink()
        return str(tmp_path / "bad")

    return without_weights


def test_the_identity_counts_what_changes_weights_and_nothing_else(base: str) -> None:
    files, data = find_model(base), examples()
    plain = identify(data, SMALL, files)
    assert identify(data, replace(SMALL, batch_tokens=99), files) == plain
    assert identify(data, replace(SMALL, seed=5), files) != plain
    assert identify(data.take(np.arange(99)), SMALL, files) != plain


def test_a_folder_of_another_calibration_format_is_refused(base: str, tmp_path: Path) -> None:
    fitted(base, tmp_path / "m")
    facts = json.loads((tmp_path / "m" / encoder_model.FACTS).read_text())
    bent = {**facts["calibration"], "points": [[0, 1], [1, 0]]}
    for change in ({"format_version": 9}, {"calibration": bent}, {"calibration": 3}):
        (tmp_path / "m" / encoder_model.FACTS).write_text(json.dumps({**facts, **change}))
        with pytest.raises(ModelError, match="calibration"):
            read_calibration(tmp_path / "m")


def test_states_reach_the_head_only(base: str) -> None:
    model = build_model(find_model(base), replace(SMALL, frozen=True), classes=(), mean=2.5)
    body = model.base_model
    assert head_logits(model, torch.zeros(2, 1, 32)).shape == (2, 1) and model.base_model is body
