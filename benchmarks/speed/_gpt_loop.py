"""The loop that everybody writes first: GPT-2, torch.compile, bf16 autocast, fused AdamW, PyTorch's attention.

Written for the benchmark in the manner of nanoGPT: learned positions, LayerNorm without biases, GELU, tied embeddings,
the whole logits matrix and PyTorch's cross entropy, batches cut from a flat token file at random places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Shape:
    """`hidden` in elements, `length` in tokens, `batch` in samples a step."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    length: int
    batch: int


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.hidden, 3 * shape.hidden, bias=False)
        self.out = nn.Linear(shape.hidden, shape.hidden, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        batch, length, hidden = x_BTD.shape
        parts = self.qkv(x_BTD).split(hidden, dim=2)
        q, k, v = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in parts)
        mixed_BHTK = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed_BHTK.transpose(1, 2).reshape(batch, length, hidden))  # type: ignore[no-any-return]


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(shape.hidden, bias=False)
        self.attention = Attention(shape)
        self.mlp_norm = nn.LayerNorm(shape.hidden, bias=False)
        self.up = nn.Linear(shape.hidden, 4 * shape.hidden, bias=False)
        self.down = nn.Linear(4 * shape.hidden, shape.hidden, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD))
        return x_BTD + self.down(F.gelu(self.up(self.mlp_norm(x_BTD))))  # type: ignore[no-any-return]


class Gpt(nn.Module):
    """Tokens and labels to the mean loss."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.positions = nn.Embedding(shape.length, shape.hidden)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.hidden, bias=False)
        self.head = nn.Linear(shape.hidden, shape.vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, 0.0, 0.02)

    def forward(self, tokens_BT: Tensor, labels_BT: Tensor) -> Tensor:
        x_BTD = self.tokens(tokens_BT) + self.positions(torch.arange(tokens_BT.shape[1], device=tokens_BT.device))
        for block in self.blocks:
            x_BTD = block(x_BTD)
        logits_BTV = self.head(self.norm(x_BTD))
        return F.cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten())


class GptLoop:
    """One call is one step, and gives its loss."""

    def __init__(self, shape: Shape, tokens: npt.NDArray[np.uint16], device: torch.device, *, compile: bool) -> None:
        torch.manual_seed(1)
        self.shape, self.tokens, self.device = shape, tokens, device
        self.model = Gpt(shape).to(device)
        self.num_parameters = sum(parameter.numel() for parameter in self.model.parameters())
        groups = [
            {"params": [p for p in self.model.parameters() if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in self.model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
        self.loss = torch.compile(self.model) if compile else self.model

    def __call__(self) -> float:
        tokens, labels = (part.to(self.device) for part in cut_batch(self.tokens, self.shape))
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = self.loss(tokens, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())


def cut_batch(tokens: npt.NDArray[np.uint16], shape: Shape) -> tuple[Tensor, Tensor]:
    """Tokens and labels [B, T] from random places of a flat file."""
    starts = torch.randint(len(tokens) - shape.length - 1, (shape.batch,)).tolist()
    whole = torch.from_numpy(np.stack([tokens[start : start + shape.length + 1] for start in starts]).astype(np.int64))
    return whole[:, :-1].contiguous(), whole[:, 1:].contiguous()
