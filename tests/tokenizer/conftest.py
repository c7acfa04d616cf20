"""A small vocabulary over several scripts, trained once."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from tokenizer.encode import Encoder
from tokenizer.training import TrainingConfig, train_tokenizer
from tokenizer.vocabulary import TokenizerFile, describe_tokenizer

CORPUS = [
    "The mill grinds the grain, and the miller's daughter counts 1234 sacks of flour in 2024.",
    "def grind(grain):\n    for kernel in grain:\n        if kernel:\n            yield kernel / 2\n",
    "Die Mühle mahlt das Korn. Der Müller zählt die Säcke, und die Müllerin wiegt das Mehl.",
    "磨坊把谷物磨成面粉。磨坊主数着麻袋。麻袋里装着面粉。",
    "Мельница мелет зерно. Мельник считает мешки с мукой.",
    "चक्की अनाज पीसती है। चक्की वाला बोरियाँ गिनता है।",
] * 4


@pytest.fixture(scope="session")
def trained() -> TokenizerFile:
    data = train_tokenizer([pa.array(CORPUS)], TrainingConfig(size=600))
    return TokenizerFile(data, describe_tokenizer(data))


@pytest.fixture(scope="session")
def encoder(trained: TokenizerFile) -> Encoder:
    return Encoder(trained, fast=False)


@pytest.fixture(scope="session")
def wide() -> TokenizerFile:
    """The same kind of vocabulary with more entries than 16 bits hold, as LLaMA 3 and Qwen have."""
    settings = json.loads(train_tokenizer([pa.array(CORPUS)], TrainingConfig(size=400)))
    vocabulary = settings["model"]["vocab"]
    for number in range(len(vocabulary), 70_000):
        vocabulary[f"unused{number}"] = number
    data = json.dumps(settings).encode()
    return TokenizerFile(data, describe_tokenizer(data))
