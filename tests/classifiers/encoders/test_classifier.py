"""Scores equal those of transformers' own classifiers; what is none, or is unsafe, is refused with a reason."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from classifiers.encoders.classifier import ClassifierConfig, open_classifier, score_by_all
from classifiers.encoders.models import find_model
from storage.errors import ModelError, RecipeError
from tests.classifiers.quality.samples import TEXTS

TOLERANCE = 2e-6
FLOAT32 = ClassifierConfig(dtype="float32")
SIZES = {
    "vocab_size": 30522, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 66,
}  # fmt: skip
RELATIVE = {"relative_attention": True, "position_buckets": 16, "pos_att_type": ["p2c", "c2p"], "share_att_key": True}


def configured(kind: str, **options: Any) -> Any:
    from transformers import BertConfig, DebertaV2Config, RobertaConfig

    if kind == "deberta":
        return DebertaV2Config(**SIZES, **RELATIVE, norm_rel_ebd="layer_norm", position_biased_input=False, **options)
    return {"bert": BertConfig, "roberta": RobertaConfig}[kind](**SIZES, **options)


def save_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes((find_model().folder / "tokenizer.json").read_bytes())


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Any]:
    """Save a small classifier of random weights, with MiniLM's tokenizer; returns its module."""

    def save(kind: str, **options: Any) -> Any:
        from transformers import AutoModelForSequenceClassification

        torch.manual_seed(1)
        module = AutoModelForSequenceClassification.from_config(configured(kind, **options)).eval()
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        module.save_pretrained(tmp_path)
        save_tokenizer(tmp_path)
        return module

    return save


def reference_logits(module: Any, texts: list[str], max_tokens: int) -> torch.Tensor:
    """transformers' tokenizer and model, one padded batch."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(find_model().folder / "tokenizer.json"), pad_token="[PAD]")
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")
    # Padding must not count as RoBERTa's position 1.
    inputs["input_ids"][inputs["attention_mask"] == 0] = module.config.pad_token_id or 0
    with torch.no_grad():
        logits: torch.Tensor = module(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    return logits


@pytest.mark.parametrize(("kind", "max_tokens"), [("bert", 66), ("deberta", 66), ("roberta", 64)])
def test_a_regression_gives_the_raw_logit(make: Callable[..., Any], tmp_path: Path, kind: str, max_tokens: int) -> None:
    module = make(kind, num_labels=1, problem_type="regression")
    found = open_classifier(str(tmp_path), FLOAT32)
    scores = found.score(pa.array(TEXTS))
    assert found.labels == () and scores.shape == (len(TEXTS),) and scores.dtype == np.float32
    expected = reference_logits(module, TEXTS, max_tokens)[:, 0].numpy()
    assert np.abs(scores - expected).max() < TOLERANCE * np.abs(expected).max()
    assert len(np.unique(scores.round(4))) >= 7  # the two blank texts agree, no others do


@pytest.mark.parametrize(("problem", "activation"), [(None, "softmax"), ("multi_label_classification", "sigmoid")])
def test_classes_give_probabilities(
    make: Callable[..., Any], tmp_path: Path, problem: str | None, activation: str
) -> None:
    names = {0: "Sports", 1: "Science", 2: "Adult"}
    module = make("bert", num_labels=3, id2label=names, problem_type=problem)
    found = open_classifier(str(tmp_path), FLOAT32)
    logits = reference_logits(module, TEXTS, 66)
    expected = logits.softmax(-1) if activation == "softmax" else logits.sigmoid()
    assert found.labels == ("Sports", "Science", "Adult")
    assert np.abs(found.score(pa.array(TEXTS)) - expected.numpy()).max() < 1e-5


def save_backbone_classifier(folder: Path, backbone: str) -> tuple[Any, torch.nn.Linear]:
    """As nvidia's model cards describe it: an encoder under `model.`, a linear layer `fc.` over its first position."""
    from safetensors.torch import save_file
    from transformers import AutoModel

    torch.manual_seed(2)
    encoder, head = AutoModel.from_config(configured("deberta")).eval(), torch.nn.Linear(32, 3)
    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    save_file(
        tensors | {"fc.weight": head.weight.detach(), "fc.bias": head.bias.detach()}, folder / "model.safetensors"
    )
    told = {"base_model": backbone, "fc_dropout": 0.2, "id2label": {"0": "High", "1": "Medium", "2": "Low"}}
    (folder / "config.json").write_text(json.dumps(told))
    save_tokenizer(folder)
    return encoder, head


@pytest.mark.parametrize("where", ["absolute", "relative"])
def test_the_layout_of_nvidias_classifiers(tmp_path: Path, where: str) -> None:
    backbone = tmp_path / "backbone"
    configured("deberta").save_pretrained(backbone)
    encoder, head = save_backbone_classifier(tmp_path, str(backbone) if where == "absolute" else "backbone")
    found = open_classifier(str(tmp_path), FLOAT32)
    rows = found.tokenize(pa.array(TEXTS))
    with torch.no_grad():
        expected = [
            head(encoder(input_ids=torch.from_numpy(rows.take([i]).ids)[None]).last_hidden_state[0, 0]).softmax(-1)
            for i in range(len(TEXTS))
        ]
    assert found.labels == ("High", "Medium", "Low") and rows.lengths.max() == 66
    assert np.abs(found.score(pa.array(TEXTS)) - torch.stack(expected).numpy()).max() < 1e-5


def test_a_backbone_that_is_nowhere_is_named(tmp_path: Path) -> None:
    save_backbone_classifier(tmp_path, "nobody-here/deberta-nowhere")
    with pytest.raises(ModelError, match="stands on `nobody-here/deberta-nowhere`") as caught:
        open_classifier(str(tmp_path))
    assert "put the config.json" in str(caught.value.hint)


def test_weights_of_another_backbone_are_refused(tmp_path: Path) -> None:
    configured("bert").save_pretrained(tmp_path / "backbone")
    save_backbone_classifier(tmp_path, "backbone")
    with pytest.raises(ModelError, match="weights are missing"):
        open_classifier(str(tmp_path))


def test_an_encoder_alone_is_no_classifier(small_model: Path) -> None:
    with pytest.raises(ModelError, match="an encoder without a classifier"):
        open_classifier(str(small_model))


def test_pickles_are_refused_unopened(make: Callable[..., Any], tmp_path: Path) -> None:
    make("bert", num_labels=1)
    (tmp_path / "model.safetensors").rename(tmp_path / "away")
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(ModelError, match=r"pickles \(pytorch_model.bin\)"):
        open_classifier(str(tmp_path))


def test_a_text_does_not_depend_on_its_neighbours(make: Callable[..., Any], tmp_path: Path) -> None:
    make("deberta", num_labels=2)
    found = open_classifier(str(tmp_path), ClassifierConfig(max_tokens=40))
    whole = found.score(pa.array(TEXTS))
    halves = [found.score(pa.array(TEXTS[:3])), found.score(pa.array(TEXTS[3:]))]
    assert np.concatenate(halves).tobytes() == whole.tobytes()


def test_no_texts(make: Callable[..., Any], tmp_path: Path) -> None:
    make("bert", num_labels=1)
    assert open_classifier(str(tmp_path)).score(pa.array([], pa.string())).shape == (0,)


def test_padded_batches_stay_within_the_tolerance(make: Callable[..., Any], tmp_path: Path) -> None:
    make("roberta", num_labels=1)
    alone = open_classifier(str(tmp_path), FLOAT32).score(pa.array(TEXTS))
    batched = open_classifier(str(tmp_path), ClassifierConfig(dtype="float32", batch_tokens=200))
    assert np.abs(batched.score(pa.array(TEXTS)) - alone).max() < TOLERANCE * np.abs(alone).max()


def test_settings_that_cannot_work(make: Callable[..., Any], tmp_path: Path) -> None:
    make("roberta", num_labels=1)
    with pytest.raises(RecipeError, match="max_tokens is 0"):
        ClassifierConfig(max_tokens=0)
    with pytest.raises(ModelError, match="max_tokens is 65, but the model takes at most 64"):
        open_classifier(str(tmp_path), ClassifierConfig(max_tokens=65))


def test_several_models_read_the_texts_once(make: Callable[..., Any], tmp_path: Path) -> None:
    make("bert", num_labels=1)
    first = open_classifier(str(tmp_path), FLOAT32)
    make("roberta", num_labels=3)
    second, shorter = (
        open_classifier(str(tmp_path), FLOAT32),
        open_classifier(str(tmp_path), ClassifierConfig(max_tokens=9)),
    )
    assert first.tokenize.identity != second.tokenize.identity  # 66 tokens, 64 tokens
    panel = {"first": first, "again": first, "second": second, "shorter": shorter}
    found = score_by_all(panel, pa.array(TEXTS))
    assert list(found) == list(panel)
    assert all(found[name].tobytes() == panel[name].score(pa.array(TEXTS)).tobytes() for name in panel)
