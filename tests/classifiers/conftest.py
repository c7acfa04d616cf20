"""The real MiniLM, opened once, and a small model of random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from classifiers.encoders.encoder import Encoder, EncoderConfig
from classifiers.encoders.models import find_model


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return Encoder(EncoderConfig(dtype="float32"))


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of one layer and 16 dimensions with MiniLM's tokenizer: loads in milliseconds."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=30522, max_position_embeddings=64, **sizes)).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((find_model().folder / "tokenizer.json").read_bytes())
    return folder
