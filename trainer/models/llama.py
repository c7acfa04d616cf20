"""A LLaMA-type language model: RoPE, RMSNorm, SwiGLU, grouped-query attention, embeddings tied or not.

Its logits equal `transformers`' LlamaForCausalLM for the same weights (rotation by halves, norms in float32), and with
`qk_norm` and `norm_after` its Olmo2ForCausalLM (2501.00656: queries and keys normed over all heads at once, and norms
on what a block adds instead of on what it reads).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from trainer.models.attention import Documents, Mask, attend, attention_mask
from trainer.models.contract import Fault, LanguageModel, ModelConfig
from trainer.models.layers import RMSNorm, Rotary, Rotation, SwiGLU, rotate
from trainer.models.loss import compute_dtype


@dataclass(frozen=True, kw_only=True)
class LlamaConfig(ModelConfig):
    """The shape of a LLaMA-type model; sizes in elements."""

    kind: str = "llama"
    num_kv_heads: int
    ffn_size: int
    rope_base: float = 10_000.0
    qk_norm: bool = False
    norm_after: bool = False

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads

    def faults(self) -> list[Fault]:
        if faults := [*super().faults(), *self.too_small("num_kv_heads", "ffn_size")]:
            return faults
        if self.hidden_size % (2 * self.num_heads):
            faults.append(("num_heads", f"is {self.num_heads}; hidden_size must be an even multiple of it"))
        if self.num_heads % self.num_kv_heads:
            faults.append(("num_kv_heads", f"is {self.num_kv_heads}; num_heads must be a multiple of it"))
        return faults

    def flops_per_token(self, sequence_length: int) -> float:
        """Forward and backward, as PaLM counts them (2204.02311, appendix B), embeddings' look-up free."""
        width = (2 * self.num_heads + 2 * self.num_kv_heads) * self.head_size
        block = width * self.hidden_size + 3 * self.hidden_size * self.ffn_size
        attention = 2 * self.num_heads * self.head_size * sequence_length
        return 6.0 * (self.num_layers * (block + attention) + self.hidden_size * self.vocabulary_size)


class Attention(nn.Module):
    """Causal attention with rotary positions; several query heads may share one key and value head."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.head_size = config.head_size
        self.widths = [
            heads * config.head_size for heads in (config.num_heads, config.num_kv_heads, config.num_kv_heads)
        ]
        self.qkv = nn.Linear(config.hidden_size, sum(self.widths), bias=False)
        self.out = nn.Linear(self.widths[0], config.hidden_size, bias=False)
        self.q_norm = RMSNorm(self.widths[0], config.norm_epsilon) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(self.widths[1], config.norm_epsilon) if config.qk_norm else nn.Identity()

    def forward(self, x_BTD: Tensor, rotation: Rotation, mask: Mask) -> Tensor:
        q, k, v = self.qkv(x_BTD).split(self.widths, dim=-1)
        q_BTHK, k_BTGK = self._heads(self.q_norm(q)), self._heads(self.k_norm(k))
        q_BHTK, k_BGTK = rotate(q_BTHK, rotation).transpose(1, 2), rotate(k_BTGK, rotation).transpose(1, 2)
        mixed_BHTK = attend(q_BHTK, k_BGTK, self._heads(v).transpose(1, 2), mask)
        return self.out(mixed_BHTK.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.view(*x_BTD.shape[:2], -1, self.head_size)


class Block(nn.Module):
    """Attention, then feed-forward; norms before each of them, or after each with `norm_after`."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.norm_after = config.norm_after
        self.attention_norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.attention = Attention(config)
        self.ffn_norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.ffn = SwiGLU(config.hidden_size, config.ffn_size)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x_BTD: Tensor, rotation: Rotation, mask: Mask) -> Tensor:
        if self.norm_after:
            x_BTD = x_BTD + self.dropout(self.attention_norm(self.attention(x_BTD, rotation, mask)))
            return x_BTD + self.dropout(self.ffn_norm(self.ffn(x_BTD)))  # type: ignore[no-any-return]
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD), rotation, mask))
        return x_BTD + self.dropout(self.ffn(self.ffn_norm(x_BTD)))  # type: ignore[no-any-return]


class Llama(LanguageModel):
    """Tokens to logits, or to the losses when labels are given."""

    residual_writers: ClassVar = ("attention.out.weight", "ffn.down.weight")
    config: LlamaConfig
    norm: RMSNorm

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocabulary_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.head = nn.Linear(config.hidden_size, config.vocabulary_size, bias=False)
        if config.tied_embeddings:
            self.head.weight = self.embedding.weight
        self.rotary = Rotary(config.head_size, config.max_positions, config.rope_base)

    def states(self, tokens_BT: Tensor, positions_BT: Tensor, documents_BT: Documents) -> Tensor:
        x_BTD = self.embed(tokens_BT, positions_BT)
        rotation = self.rotary(positions_BT)
        mask = attention_mask(documents_BT, positions_BT, compute_dtype(x_BTD))
        for block in self.blocks:
            x_BTD = self.run_block(block, x_BTD, rotation, mask)
        return self.norm(x_BTD)  # type: ignore[no-any-return]
