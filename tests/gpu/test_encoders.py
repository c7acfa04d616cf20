"""Encoders on a GPU against the CPU: vectors and scores within the written tolerance, whatever the size of a pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from classifiers.encoders.classifier import ClassifierConfig, open_classifier
from classifiers.encoders.models import find_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
TOLERANCE = 0.02
"""Of logits around 0; bfloat16 on the GPU, float32 on the CPU."""
SIZES = {
    "vocab_size": 30522, "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
    "intermediate_size": 256, "max_position_embeddings": 130,
}  # fmt: skip
TEXTS = pa.array([f"text number {i} about the mill by the river " * (1 + i % 17) for i in range(300)])


@pytest.fixture(params=["bert", "deberta-v2"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A regression of random weights: the packed way, and the padded one."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(0)
    config = AutoConfig.for_model(request.param, num_labels=1, **SIZES)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((find_model().folder / "tokenizer.json").read_bytes())
    return str(tmp_path)


def test_scores_are_those_of_the_cpu(model: str) -> None:
    expected = open_classifier(model, ClassifierConfig(dtype="float32"), device=torch.device("cpu")).score(TEXTS)
    found = open_classifier(model).score(TEXTS)
    assert np.abs(found - expected).max() < TOLERANCE


def test_passes_of_any_size_give_the_same_scores(model: str) -> None:
    whole = open_classifier(model).score(TEXTS)
    for batch_tokens in (130, 1000, 10_000):
        found = open_classifier(model, ClassifierConfig(batch_tokens=batch_tokens)).score(TEXTS)
        assert np.abs(found - whole).max() < TOLERANCE
