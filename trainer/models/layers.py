"""The parts that several kinds of models are made of: RMSNorm, rotary positions, SwiGLU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Rotation = tuple[Tensor, Tensor]
"""cos and sin of each token's position, [B, T, 1, rotated size]."""


class RMSNorm(nn.Module):
    """Root-mean-square norm (1910.07467), computed in float32; weights in the input's dtype keep it one kernel."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x_BTD: Tensor) -> Tensor:
        return F.rms_norm(x_BTD, (x_BTD.shape[-1],), self.weight.to(x_BTD.dtype), self.epsilon)


class SwiGLU(nn.Module):
    """Gated feed-forward (2002.05202): one product makes gate and value."""

    def __init__(self, hidden_size: int, ffn_size: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(hidden_size, 2 * ffn_size, bias=False)
        self.down = nn.Linear(ffn_size, hidden_size, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        gate, up = self.gate_up(x_BTD).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)  # type: ignore[no-any-return]


class Rotary(nn.Module):
    """Tables of rotary positions (2104.09864), looked up by position; halves as in LLaMA's HF weights."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, size: int, max_positions: int, base: float) -> None:
        super().__init__()
        exponents = torch.arange(0, size, 2, dtype=torch.float32) / size
        angles = torch.outer(torch.arange(max_positions, dtype=torch.float32), base**-exponents)
        angles = torch.cat([angles, angles], dim=-1)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def forward(self, positions_BT: Tensor) -> Rotation:
        return self.cosine[positions_BT].unsqueeze(2), self.sine[positions_BT].unsqueeze(2)


def rotate(x_BTHK: Tensor, rotation: Rotation) -> Tensor:
    """Turn each head vector by the angles of its position; computed in float32, returned in the input's dtype."""
    cosine, sine = rotation
    first, second = x_BTHK.chunk(2, dim=-1)
    return (x_BTHK * cosine + torch.cat([-second, first], dim=-1) * sine).to(x_BTHK.dtype)
