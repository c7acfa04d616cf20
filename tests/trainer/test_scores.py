"""Bits per byte against closed forms, generated text against its own rules, and the export against transformers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.checkpoints.trained import Trained, open_trained
from trainer.data.mixture import open_mixture
from trainer.evaluation.held_out import documents_of, evaluate_model, fit_unigram, packed_batches
from trainer.exchange.export import export_model
from trainer.models.llama import Llama, LlamaConfig
from trainer.parallel.world import World
from trainer.serving.generate import generate_tokens
from trainer.serving.sampling import Sampling
from trainer.settings import Preset

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
MakePreset = Callable[..., Preset]


def test_every_heldout_token_is_scored_once_in_order(mixture_folder: Path, make_preset: MakePreset) -> None:
    mixture = open_mixture(mixture_folder)
    readers = mixture.heldout_readers("a")
    end = mixture.vocabulary.end_of_document
    batches = list(packed_batches(documents_of(readers), end, make_preset(eod_mask_loss=True).training))
    scored = [int(t) for b in batches for t, w in zip(b.labels.flatten(), b.weights.flatten(), strict=True) if w]
    assert scored == np.concatenate([readers[0][i] for i in range(len(readers[0]))]).tolist()
    inputs = torch.cat([batch.tokens for batch in batches]).flatten()
    assert inputs[: len(scored)].tolist() == [end, *scored[:-1]]


def test_a_model_that_knows_nothing_takes_the_logarithm_of_its_vocabulary(
    mixture_folder: Path, make_preset: MakePreset, shape: Callable[..., LlamaConfig]
) -> None:
    model = Llama(shape(tied_embeddings=False))
    torch.nn.init.zeros_(model.head.weight)
    result = evaluate_model(model, open_mixture(mixture_folder), make_preset().training, ALONE, prompts=("",))
    for score in result.sources.values():
        assert score.loss == pytest.approx(math.log(384), rel=1e-5)
        assert score.bits_per_byte == pytest.approx(score.tokens * math.log2(384) / score.bytes, rel=1e-5)
        assert score.unigram_bits_per_byte < score.bits_per_byte


def test_the_unigram_follows_the_blend(mixture_folder: Path) -> None:
    mixture = open_mixture(mixture_folder)
    size = mixture.vocabulary.size
    counts = []
    for reader in mixture.readers:
        tokens = np.concatenate([reader[i] for i in range(len(reader))]).tolist()
        counts.append([tokens.count(token) / len(tokens) for token in range(size)])
    total = mixture.train_tokens
    for token, nats in enumerate(fit_unigram(mixture)):
        expected = (total * (0.7 * counts[0][token] + 0.3 * counts[1][token]) + 1) / (total + size)
        assert nats == pytest.approx(-math.log(expected))


@pytest.fixture(scope="module")
def opened(trained: Path) -> Trained:
    return open_trained(trained)


def test_draws_follow_seed_temperature_and_top_k(opened: Trained) -> None:
    def write(**changes: float) -> list[int]:
        sampling = Sampling(**{"max_tokens": 40, **changes})  # type: ignore[arg-type]
        return generate_tokens(opened.model, [], opened.vocabulary, opened.training, sampling)

    assert write(seed=1) == write(seed=1)
    assert len({tuple(write(seed=seed, temperature=1.5)) for seed in range(4)}) > 1
    assert write(temperature=0) == write(top_k=1, seed=9)
    wild = write(temperature=100.0, top_k=10**6, max_tokens=80)
    assert wild and max(wild) < opened.vocabulary.size


def test_text_longer_than_the_context_goes_on(opened: Trained) -> None:
    prompt = [5] * 100
    assert generate_tokens(opened.model, prompt, opened.vocabulary, opened.training, Sampling(max_tokens=3))


def test_the_exported_tokenizer_ends_documents_as_ours(opened: Trained, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    export_model(opened, tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.eos_token_id == opened.vocabulary.end_of_document
    assert tokenizer.decode(tokenizer.encode("The miller 水车.")) == "The miller 水车."
    assert json.loads((tmp_path / "config.json").read_text())["vocab_size"] == opened.vocabulary.padded_size
