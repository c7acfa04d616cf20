"""How the next token is drawn: temperature, the likeliest k, the likeliest that make up p, a seed of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from storage.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a text is drawn; temperature 0 takes the likeliest token.

    `top_k` 0 and `top_p` 1 leave no token out; `stop` are texts before which the writing ends.
    """

    max_tokens: int = 96
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        faults = []
        if self.max_tokens < 0:
            faults.append(f"max_tokens is {self.max_tokens}; it must be 0 or more")
        if not 0 <= self.temperature < float("inf"):
            faults.append(f"temperature is {self.temperature}; it must be 0 or more")
        if self.top_k < 0:
            faults.append(f"top_k is {self.top_k}; it must be 0 (all) or more")
        if not 0 < self.top_p <= 1:
            faults.append(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if not all(self.stop):
            faults.append("a stop text is empty")
        if faults:
            raise InputError("; ".join(faults))


def choose_token(logits_V: Tensor, sampling: Sampling, random: torch.Generator) -> int:
    """One id: the likeliest at temperature 0, else drawn."""
    if sampling.temperature <= 0:
        return int(logits_V.argmax())
    best, ids = torch.topk(logits_V, min(sampling.top_k or len(logits_V), len(logits_V)))
    chances = torch.softmax(best.float() / sampling.temperature, dim=0)
    if sampling.top_p < 1:
        before = chances.cumsum(0) - chances
        chances = chances * (before < sampling.top_p)
    return int(ids[torch.multinomial(chances, 1, generator=random)])
