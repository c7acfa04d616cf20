"""A GPT-Neo language model, as TinyStories' models are (2305.07759): learned positions, LayerNorm, GELU, local layers.

Its logits equal `transformers`' GPTNeoForCausalLM for the same weights: attention scores are not scaled by the size of
a head, and with `attention: alternating` every second layer sees no further back than `window_size` tokens. Positions
are learned, and start anew with each document as rotary ones do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.attention import Documents, Mask, attend, attention_mask
from trainer.models.contract import Fault, LanguageModel, ModelConfig
from trainer.models.loss import compute_dtype

PATTERNS = ("alternating", "global")


@dataclass(frozen=True, kw_only=True)
class GPTNeoConfig(ModelConfig):
    """The shape of a GPT-Neo; sizes in elements, the window in tokens."""

    kind: str = "gpt_neo"
    ffn_size: int
    attention: str = "alternating"
    window_size: int = 256

    @property
    def windows(self) -> list[int | None]:
        """How many tokens each layer sees; none stands for all."""
        local = self.attention == "alternating"
        return [self.window_size if local and number % 2 else None for number in range(self.num_layers)]

    def faults(self) -> list[Fault]:
        if faults := [*super().faults(), *self.too_small("ffn_size", "window_size")]:
            return faults
        if self.hidden_size % self.num_heads:
            faults.append(("num_heads", f"is {self.num_heads}; hidden_size must be a multiple of it"))
        if self.attention not in PATTERNS:
            faults.append(("attention", f"is `{self.attention}`; it must be one of {', '.join(PATTERNS)}"))
        return faults

    def flops_per_token(self, sequence_length: int) -> float:
        seen = sum(min(window or sequence_length, sequence_length) for window in self.windows)
        block = 4 * self.hidden_size**2 + 2 * self.hidden_size * self.ffn_size
        return 6.0 * (self.num_layers * block + 2 * self.hidden_size * seen + self.hidden_size * self.vocabulary_size)


class Attention(nn.Module):
    """Causal attention whose scores are not scaled; only the last product has a bias."""

    def __init__(self, config: GPTNeoConfig) -> None:
        super().__init__()
        self.head_size = config.hidden_size // config.num_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x_BTD: Tensor, mask: Mask) -> Tensor:
        heads_BTNK = self.qkv(x_BTD).view(*x_BTD.shape[:2], -1, self.head_size)
        q_BHTK, k_BHTK, v_BHTK = heads_BTNK.transpose(1, 2).chunk(3, dim=1)
        mixed_BHTK = attend(q_BHTK, k_BHTK, v_BHTK, mask, scale=1.0)
        return self.out(mixed_BHTK.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Two products with biases, GELU's tanh form between them."""

    def __init__(self, config: GPTNeoConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.ffn_size)
        self.down = nn.Linear(config.ffn_size, config.hidden_size)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x_BTD), approximate="tanh"))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention, which sees `window` tokens or all, then feed-forward."""

    def __init__(self, config: GPTNeoConfig, window: int | None) -> None:
        super().__init__()
        self.window = window
        self.attention_norm = nn.LayerNorm(config.hidden_size, config.norm_epsilon)
        self.attention = Attention(config)
        self.ffn_norm = nn.LayerNorm(config.hidden_size, config.norm_epsilon)
        self.ffn = FeedForward(config)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x_BTD: Tensor, mask: Mask) -> Tensor:
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD), mask))
        return x_BTD + self.dropout(self.ffn(self.ffn_norm(x_BTD)))  # type: ignore[no-any-return]


class GPTNeo(LanguageModel):
    """Tokens to logits, or to the losses when labels are given."""

    residual_writers: ClassVar = ("attention.out.weight", "ffn.down.weight")
    entrance: ClassVar = ("embedding", "positions")
    config: GPTNeoConfig

    def __init__(self, config: GPTNeoConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocabulary_size, config.hidden_size)
        self.positions = nn.Embedding(config.max_positions, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config, window) for window in config.windows)
        self.norm = nn.LayerNorm(config.hidden_size, config.norm_epsilon)
        self.head = nn.Linear(config.hidden_size, config.vocabulary_size, bias=False)
        if config.tied_embeddings:
            self.head.weight = self.embedding.weight

    def embed(self, tokens_BT: Tensor, positions_BT: Tensor) -> Tensor:
        return self.dropout(self.embedding(tokens_BT) + self.positions(positions_BT))  # type: ignore[no-any-return]

    def states(self, tokens_BT: Tensor, positions_BT: Tensor, documents_BT: Documents) -> Tensor:
        x_BTD = self.embed(tokens_BT, positions_BT)
        dtype, blocks = compute_dtype(x_BTD), cast(list[Block], list(self.blocks))
        masks = {window: attention_mask(documents_BT, x_BTD, dtype, window) for window in {b.window for b in blocks}}
        for block in blocks:
            x_BTD = self.run_block(block, x_BTD, masks[block.window])
        return self.norm(x_BTD)  # type: ignore[no-any-return]
