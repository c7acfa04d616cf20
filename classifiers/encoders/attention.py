"""Self-attention of documents that lie end to end, each over itself alone: no mask, no padding.

On CUDA it is one variable-length flash kernel. On the CPU each document is two batched products over its heads, with
the softmax between them: in bfloat16 0.85 ms a layer of MiniLM at 256 tokens where torch's fused kernel takes 1.58;
in float32 the fused kernel is the faster one, 1.44 against 4.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SCORES_AT_ONCE = 1 << 23
"""Attention scores of a document in memory at a time, 16 MB: 800 tokens of 12 heads at once, longer ones in strips."""


def attend(qkv_T3HD: torch.Tensor, offsets: Sequence[int]) -> torch.Tensor:
    """[T, H, D] of scaled queries, keys and values; document i is rows `offsets[i]` to `offsets[i + 1]`."""
    import torch

    out_THD = torch.empty_like(qkv_T3HD[:, 0], memory_format=torch.contiguous_format)
    attend_one = _attend_in_strips if qkv_T3HD.dtype == torch.bfloat16 else _attend_fused
    for start, end in zip(offsets, offsets[1:], strict=False):
        q_HTD, k_HTD, v_HTD = qkv_T3HD[start:end].permute(1, 2, 0, 3)
        out_THD[start:end] = attend_one(q_HTD, k_HTD, v_HTD).transpose(0, 1)
    return out_THD


def _attend_in_strips(q_HTD: torch.Tensor, k_HTD: torch.Tensor, v_HTD: torch.Tensor) -> torch.Tensor:
    """A strip holds as many queries as the document's own length allows: its result depends on nothing else."""
    import torch

    num_heads, length, _ = q_HTD.shape
    strip = max(1, SCORES_AT_ONCE // (num_heads * length))
    q_HTD, k_HDT, v_HTD = q_HTD.contiguous(), k_HTD.contiguous().transpose(1, 2), v_HTD.contiguous()
    strips = [torch.bmm(torch.bmm(q_HTD[:, i : i + strip], k_HDT).softmax(-1), v_HTD) for i in range(0, length, strip)]
    return strips[0] if len(strips) == 1 else torch.cat(strips, 1)


def _attend_fused(q_HTD: torch.Tensor, k_HTD: torch.Tensor, v_HTD: torch.Tensor) -> torch.Tensor:
    import torch

    fused = torch.nn.functional.scaled_dot_product_attention
    return fused(q_HTD[None], k_HTD[None], v_HTD[None], scale=1.0)[0]


def attend_on_cuda(qkv_T3HD: torch.Tensor, offsets_on_device: torch.Tensor, longest: int) -> torch.Tensor:
    """The same in one kernel; `offsets_on_device` int32[documents + 1], `longest` in tokens."""
    from torch.nn.attention.varlen import varlen_attn

    q_THD, k_THD, v_THD = qkv_T3HD.unbind(1)
    out = varlen_attn(q_THD, k_THD, v_THD, offsets_on_device, offsets_on_device, longest, longest, scale=1.0)
    assert not isinstance(out, tuple)  # asked for nothing beside the result
    return out
