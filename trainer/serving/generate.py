"""Text from a model: one token after another, drawn from its distribution or taken at its peak.

The context is laid out as in training (it opens with end-of-document), so what is sampled is what was learned. Without
a key-value cache a token costs a whole forward pass: 4 ms at 3.3 M parameters, too slow for large models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from storage.errors import ModelError
from trainer.compute import autocast, separate_documents
from trainer.data.batches import make_batch
from trainer.data.mixture import Vocabulary
from trainer.models.contract import LanguageModel
from trainer.settings import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn; temperature 0 takes the likeliest one."""

    max_tokens: int = 96
    temperature: float = 0.8
    top_k: int = 40
    seed: int = 0


def open_tokenizer(path: Path) -> Tokenizer:
    """The `tokenizer.json` at `path`. Raises ModelError when it is not one."""
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ModelError(f"not a tokenizer: {error}", at=str(path)) from error


@torch.no_grad()
def generate_tokens(
    model: LanguageModel, prompt: Sequence[int], vocabulary: Vocabulary, config: TrainingConfig, sampling: Sampling
) -> list[int]:
    """The ids that follow `prompt`, up to end-of-document (left out) or `max_tokens`."""
    model.eval()
    device = model.embedding.weight.device
    random = torch.Generator().manual_seed(sampling.seed)
    window = min(model.config.max_positions, config.sequence_length)
    ids = [vocabulary.end_of_document, *prompt]
    for _ in range(sampling.max_tokens):
        row = np.array([*ids[-window:], vocabulary.end_of_document], dtype=np.int64)
        batch = make_batch([row], vocabulary.end_of_document, config).to(device)
        with autocast(device, config):
            logits = model(batch.tokens, batch.positions, separate_documents(batch, config))[0, -1]
        chosen = choose_token(logits[: vocabulary.size].float().cpu(), sampling, random)
        if chosen == vocabulary.end_of_document:
            break
        ids.append(chosen)
    return ids[1 + len(prompt) :]


def choose_token(logits_V: torch.Tensor, sampling: Sampling, random: torch.Generator) -> int:
    """One id: the likeliest at temperature 0, else drawn from the `top_k` likeliest."""
    if sampling.temperature <= 0:
        return int(logits_V.argmax())
    best, ids = torch.topk(logits_V, min(sampling.top_k, len(logits_V)))
    chances = torch.softmax(best / sampling.temperature, dim=0)
    return int(ids[torch.multinomial(chances, 1, generator=random)])


def generate_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    vocabulary: Vocabulary,
    config: TrainingConfig,
    sampling: Sampling,
) -> str:
    """What the model writes after `prompt`; an empty prompt begins a document."""
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids if prompt else []
    return str(tokenizer.decode(generate_tokens(model, ids, vocabulary, config, sampling)))
