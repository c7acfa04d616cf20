"""A mixture folder of invented sentences and a preset small enough that a training step takes milliseconds."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from storage.megatron import IndexedWriter, token_dtype
from trainer.models.llama import LlamaConfig
from trainer.settings import Preset, TrainingConfig
from trainer.train import train

END = "<|endoftext|>"
SUBJECTS, VERBS, OBJECTS = (
    ["The miller", "A river", "Die Mühle", "水车"],
    ["grinds", "carries", "mahlt"],
    ["rye", "42", "粮食"],
)


def invent_texts(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    lines = [f"{s} {v} {o}." for s in SUBJECTS for v in VERBS for o in OBJECTS]
    return [" ".join(chance.choices(lines, k=chance.randint(1, 12))) for _ in range(count)]


def train_tokenizer(texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=300, special_tokens=[END], initial_alphabet=alphabet, show_progress=False),
    )
    return tokenizer


def write_mixture(folder: Path) -> None:
    """Two training shards of different weight, two held-out sources."""
    folder.mkdir()
    texts = {name: invent_texts(n, seed) for name, n, seed in (("a", 60, 1), ("b", 40, 2), ("ha", 8, 3), ("hb", 4, 4))}
    tokenizer = train_tokenizer(texts["a"])
    size = tokenizer.get_vocab_size()
    tokens = {}
    for name, place in (
        ("a", "train/a-0000"),
        ("b", "train/b-0000"),
        ("ha", "heldout/a-0000"),
        ("hb", "heldout/b-0000"),
    ):
        with IndexedWriter(folder / place, token_dtype(size)) as writer:
            encoded = [[*tokenizer.encode(text).ids, tokenizer.token_to_id(END)] for text in texts[name]]
            for ids in encoded:
                writer.add(ids)
        tokens[name] = sum(map(len, encoded))
    tokenizer.save(str(folder / "tokenizer.json"))
    num_bytes = {name: sum(len(text.encode()) for text in texts[name]) for name in texts}
    blend = {
        "format_version": 1,
        "train": [
            {"weight": 0.7, "prefix": "train/a-0000", "source": "a", "tokens": tokens["a"]},
            {"weight": 0.3, "prefix": "train/b-0000", "source": "b", "tokens": tokens["b"]},
        ],
        "heldout": {
            "a": {"prefixes": ["heldout/a-0000"], "bytes": num_bytes["ha"], "tokens": tokens["ha"]},
            "b": {"prefixes": ["heldout/b-0000"], "bytes": num_bytes["hb"], "tokens": tokens["hb"]},
        },
        "train_tokens": tokens["a"] + tokens["b"],
        "sequence_length": 32,
        "seed": 1,
        "mixture": "0123456789abcdef0123456789abcdef",
    }
    vocabulary = {
        "format_version": 1,
        "size": size,
        "padded_size": 384,
        "end_of_document": tokenizer.token_to_id(END),
        "dtype": "uint16",
        "sha256": hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest(),
    }
    (folder / "blend.json").write_text(json.dumps(blend))
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary))


SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "ffn_size": 48,
    "max_positions": 64,
}


@pytest.fixture(scope="session")
def mixture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be written to; tests that damage one take `fresh_mixture`."""
    folder = tmp_path_factory.mktemp("mixture") / "m"
    write_mixture(folder)
    return folder


@pytest.fixture
def fresh_mixture(tmp_path: Path) -> Path:
    write_mixture(tmp_path / "mixture")
    return tmp_path / "mixture"


@pytest.fixture(scope="session")
def make_preset() -> Callable[..., Preset]:
    """A preset of the smallest shape; keywords replace training fields."""

    def make(**changes: Any) -> Preset:
        fields: dict[str, Any] = {
            "steps": 20, "sequence_length": 32, "global_batch": 4, "micro_batch": 2, "learning_rate": 1e-2,
            "precision": "fp32", "threads": 1, "device": "cpu", "save_every": 5, "keep": 2,
        }  # fmt: skip
        return Preset(name="smallest", model=SHAPE, training=TrainingConfig(**{**fields, **changes}))

    return make


@pytest.fixture(scope="session")
def shape() -> Callable[..., LlamaConfig]:
    def make(**changes: Any) -> LlamaConfig:
        return LlamaConfig(**{"vocabulary_size": 384, **SHAPE, **changes})

    return make


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, mixture_folder: Path, make_preset: Callable[..., Preset]) -> Path:
    """A whole run of 150 steps, evaluation included."""
    out = tmp_path_factory.mktemp("trained")
    return train(mixture_folder, make_preset(steps=150, save_every=100), out, tell=lambda _: None)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small matrices on a shared machine: threads only cost, and a fixed number keeps sums the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
