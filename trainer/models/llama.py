"""A LLaMA-type language model in one file: RoPE, RMSNorm, SwiGLU, grouped-query attention, embeddings tied or not.

Its logits equal `transformers`' LlamaForCausalLM for the same weights (rotation by halves, norms in float32), and a
document's logits in a packed sample equal those of the document alone.

Two trade-offs, both measured on one AMX-less AVX-512 core at 4,096 tokens a step: attention over short sequences in
bfloat16 is plain matrix products (13 ms a layer, PyTorch's CPU kernel 37 ms); the loss runs over chunks of rows and
makes its gradients at once, so that no [tokens, vocabulary] matrix is ever kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHORT_SEQUENCE = 1024
LOSS_CHUNK_ELEMENTS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a model; sizes in elements."""

    vocabulary_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    ffn_size: int
    max_positions: int
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5
    tied_embeddings: bool = True
    init_std: float = 0.02

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads


class RMSNorm(nn.Module):
    """Root-mean-square norm (1910.07467)."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x_BTD: Tensor) -> Tensor:
        return F.rms_norm(x_BTD, (x_BTD.shape[-1],), self.weight, self.epsilon)


class Attention(nn.Module):
    """Causal attention with rotary positions; several query heads may share one key and value head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_size = config.num_heads, config.num_kv_heads, config.head_size
        width = (config.num_heads + 2 * config.num_kv_heads) * config.head_size
        self.qkv = nn.Linear(config.hidden_size, width, bias=False)
        self.out = nn.Linear(config.num_heads * config.head_size, config.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        batch, length, _ = x_BTD.shape
        heads_BTHK = self.qkv(x_BTD).view(batch, length, -1, self.head_size)
        q, k, v = heads_BTHK.split([self.num_heads, self.num_kv_heads, self.num_kv_heads], dim=2)
        q_BHTK, k_BGTK = rotate(q, rotation).transpose(1, 2), rotate(k, rotation).transpose(1, 2)
        mixed_BHTK = attend(q_BHTK, k_BGTK, v.transpose(1, 2), mask)
        return self.out(mixed_BHTK.transpose(1, 2).reshape(batch, length, -1))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """SwiGLU (2002.05202): one product makes gate and value."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.hidden_size, 2 * config.ffn_size, bias=False)
        self.down = nn.Linear(config.ffn_size, config.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        gate, up = self.gate_up(x_BTD).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)  # type: ignore[no-any-return]


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.attention = Attention(config)
        self.ffn_norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.ffn = FeedForward(config)

    def forward(self, x_BTD: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), rotation, mask)
        return x_BTD + self.ffn(self.ffn_norm(x_BTD))  # type: ignore[no-any-return]


class Llama(nn.Module):
    """Tokens to logits, or to the summed loss when labels are given."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.head = nn.Linear(config.hidden_size, config.vocabulary_size, bias=False)
        if config.tied_embeddings:
            self.head.weight = self.embedding.weight
        cosine, sine = rotation_tables(config)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    def forward(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor,
        mask: Tensor | None = None,
        labels_BT: Tensor | None = None,
        weights_BT: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, T, vocabulary] without labels; with them the sum over tokens of weight · nats, a float32 scalar.

        `mask` comes from `document_mask`; without one, attention is causal over the whole row.
        """
        rotation = (self.cosine[positions_BT].unsqueeze(2), self.sine[positions_BT].unsqueeze(2))
        x_BTD = self.embedding(tokens_BT)
        for block in self.blocks:
            x_BTD = block(x_BTD, rotation, mask)
        x_BTD = self.norm(x_BTD)
        if labels_BT is None or weights_BT is None:
            return self.head(x_BTD)  # type: ignore[no-any-return]
        rows_ND = x_BTD.flatten(0, 1).to(compute_dtype(x_BTD.device))
        return summed_loss(rows_ND, self.head.weight, labels_BT.flatten(), weights_BT.flatten())

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Normal weights of `init_std`, those that write into the residual stream divided by sqrt(2 · layers)."""
        generator = torch.Generator().manual_seed(seed)
        residual_std = self.config.init_std / math.sqrt(2 * self.config.num_layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            std = residual_std if name.endswith(("out.weight", "down.weight")) else self.config.init_std
            parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))


def count_parameters(model: nn.Module) -> int:
    """Parameters, tied ones once; the model may lie on the meta device."""
    return sum(parameter.numel() for parameter in model.parameters())


def flops_per_token(config: ModelConfig, sequence_length: int) -> float:
    """Forward and backward, as PaLM counts them (2204.02311, appendix B), embeddings' look-up free."""
    width = (2 * config.num_heads + 2 * config.num_kv_heads) * config.head_size
    block = width * config.hidden_size + 3 * config.hidden_size * config.ffn_size
    attention = 2 * config.num_heads * config.head_size * sequence_length
    head = config.hidden_size * config.vocabulary_size
    return 6.0 * (config.num_layers * (block + attention) + head)


def rotation_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """cos and sin [max_positions, head_size] of rotary positions (2104.09864), halves as in LLaMA's HF weights."""
    exponents = torch.arange(0, config.head_size, 2, dtype=torch.float32) / config.head_size
    angles = torch.outer(torch.arange(config.max_positions, dtype=torch.float32), config.rope_base**-exponents)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x_BTHK: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each head vector by the angles of its position; computed in float32, returned in the input's dtype."""
    cosine, sine = rotation
    first, second = x_BTHK.chunk(2, dim=-1)
    return (x_BTHK * cosine + torch.cat([-second, first], dim=-1) * sine).to(x_BTHK.dtype)


def document_mask(documents_BT: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Additive mask [B, 1, T, T]: 0 where a token may look (its own document, not ahead), else minus infinity."""
    same_BTT = documents_BT.unsqueeze(2) == documents_BT.unsqueeze(1)
    allowed_BTT = same_BTT.tril_()
    mask = torch.zeros(allowed_BTT.shape, dtype=dtype, device=documents_BT.device)
    return mask.masked_fill_(~allowed_BTT, float("-inf")).unsqueeze(1)


def attend(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q·k / sqrt(K) + mask)·v for each head, key and value heads repeated where there are fewer of them."""
    repeats = q_BHTK.shape[1] // k_BGTK.shape[1]
    if repeats > 1:
        k_BGTK, v_BGTK = k_BGTK.repeat_interleave(repeats, dim=1), v_BGTK.repeat_interleave(repeats, dim=1)
    short = q_BHTK.shape[2] <= SHORT_SEQUENCE and q_BHTK.device.type == "cpu" and q_BHTK.dtype == torch.bfloat16
    if mask is None or not short:
        mask = None if mask is None else mask.to(q_BHTK.dtype)
        return F.scaled_dot_product_attention(q_BHTK, k_BGTK, v_BGTK, attn_mask=mask, is_causal=mask is None)
    scores_BHTT = (q_BHTK * q_BHTK.shape[-1] ** -0.5) @ k_BGTK.transpose(2, 3) + mask.to(q_BHTK.dtype)
    return torch.softmax(scores_BHTT, dim=-1, dtype=scores_BHTT.dtype) @ v_BGTK


def compute_dtype(device: torch.device) -> torch.dtype:
    """The dtype of matrix products now: autocast's where it is on, else float32."""
    enabled = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if enabled else torch.float32


class SummedLoss(torch.autograd.Function):
    """Σ weight · −log softmax(rows · headᵀ)[label], a chunk of rows at a time, gradients made in the same pass."""

    @staticmethod
    def forward(ctx: Any, rows_ND: Tensor, head_VD: Tensor, labels_N: Tensor, weights_N: Tensor) -> Tensor:
        head = head_VD.to(rows_ND.dtype)
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        grad_rows, grad_head = (torch.empty_like(rows_ND), torch.zeros_like(head_VD)) if wanted else (None, None)
        total = torch.zeros((), device=rows_ND.device)
        num_rows = max(1, LOSS_CHUNK_ELEMENTS // len(head_VD))
        for start in range(0, len(rows_ND), num_rows):
            chunk = slice(start, start + num_rows)
            rows, labels, weights = rows_ND[chunk], labels_N[chunk].unsqueeze(1), weights_N[chunk].unsqueeze(1).float()
            logits = rows @ head.T
            slopes = torch.softmax(logits, dim=1, dtype=torch.float32)
            # The largest probability is exp(max - logsumexp) and never underflows, so the logarithm is safe.
            log_sums = logits.amax(1, keepdim=True).float() - slopes.amax(1, keepdim=True).log()
            total += ((log_sums - logits.gather(1, labels).float()) * weights).sum()
            if grad_rows is not None and grad_head is not None:
                slopes.scatter_add_(1, labels, torch.full_like(weights, -1))
                slopes = slopes.to(rows.dtype)
                grad_rows[chunk] = (slopes @ head) * weights.to(rows.dtype)
                grad_head += slopes.T @ (rows * weights.to(rows.dtype))
        ctx.save_for_backward(grad_rows, grad_head)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_rows, grad_head = ctx.saved_tensors
        return grad_rows * grads[0].to(grad_rows.dtype), grad_head * grads[0], None, None


def summed_loss(rows_ND: Tensor, head_VD: Tensor, labels_N: Tensor, weights_N: Tensor) -> Tensor:
    """Σ weight · −log softmax(rows · headᵀ)[label] as a float32 scalar that can be differentiated once."""
    loss: Tensor = SummedLoss.apply(rows_ND, head_VD, labels_N, weights_N)  # type: ignore[no-untyped-call]
    return loss
