"""Tiny classifiers: BERTs of random weights as transformers saves them, and a fastText model trained here."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import fasttext

from classifiers.encoders.models import find_model

GOOD = "mill river grain flour wheel water stone miller".split()
BAD = "buy cheap click offer deal sale now free".split()


def write_classifier(folder: Path, labels: Mapping[int, str] | None = None, *, seed: int = 1) -> Path:
    """A sequence classifier of 32 dimensions with MiniLM's tokenizer; a regression without labels."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    sizes = {
        "vocab_size": 30522, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 128,
    }  # fmt: skip
    told = {"num_labels": 1, "problem_type": "regression"} if labels is None else {"id2label": dict(labels)}
    module = BertForSequenceClassification(BertConfig(**sizes, **told)).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    module.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((find_model().folder / "tokenizer.json").read_bytes())
    return folder


def write_fasttext(path: Path) -> Path:
    """Labels `hq` for texts on mills and `cc` for advertisements."""
    draw = random.Random(3)
    lines = [
        f"__label__{label} {' '.join(draw.choices(words, k=12))}\n"
        for _ in range(300)
        for label, words in (("hq", GOOD), ("cc", BAD))
    ]
    training = path.with_suffix(".txt")
    training.write_text("".join(lines))
    model = fasttext.train_supervised(str(training), dim=8, epoch=5, lr=0.5, thread=1, verbose=0, bucket=2000)
    model.save_model(str(path))
    return path
