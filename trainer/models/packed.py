"""Attention within documents on a GPU, without a matrix of who sees whom.

All documents of a batch stand in one row and FlashAttention is told where each begins (`torch.nn.attention.varlen`);
a PyTorch without it compiles the same rule into `flex_attention`. Neither multiplies what other documents hide.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

VARLEN_DTYPES = (torch.bfloat16, torch.float16)
FLEX_BLOCK = 128


class Packed(NamedTuple):
    """int32 `starts_N` of the documents in the batch as one row, its length last; `longest` is no less than any."""

    starts_N: Tensor
    longest: int
    window: int | None


class Flexible(NamedTuple):
    """Flex attention's own description of who sees whom."""

    blocks: Any


def has_varlen() -> bool:
    """Whether this PyTorch has the function for documents of any lengths (2.10 on)."""
    return find_spec("torch.nn.attention.varlen") is not None


def pack(documents_BT: Tensor, window: int | None) -> Packed:
    """Where the documents of a batch begin."""
    begins_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    begins_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    starts = begins_BT.flatten().nonzero().flatten()
    end = torch.tensor([documents_BT.numel()], device=starts.device)
    return Packed(torch.cat([starts, end]).int(), documents_BT.shape[1], window)


@torch.compiler.disable
def attend_packed(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTV: Tensor, packed: Packed, scale: float) -> Tensor:
    """As `attend`; value heads narrower than the keys are filled up with zeros on the way."""
    varlen: Any = import_module("torch.nn.attention.varlen")
    size = v_BGTV.shape[-1]
    if size < k_BGTK.shape[-1]:
        v_BGTV = torch.nn.functional.pad(v_BGTV, (0, k_BGTK.shape[-1] - size))
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q_BHTK, k_BGTK, v_BGTV))
    starts, longest = packed.starts_N, packed.longest
    back = -1 if packed.window is None else packed.window - 1
    repeated = q.shape[1] != k.shape[1]
    mixed: Tensor = varlen.varlen_attn(
        q, k, v, starts, starts, longest, longest, scale=scale, window_size=(back, 0), enable_gqa=repeated
    )
    return mixed.view(len(q_BHTK), -1, *mixed.shape[1:]).transpose(1, 2)[..., :size]


def describe(documents_BT: Tensor, window: int | None) -> Flexible:
    """The same rule for flex attention."""
    flex: Any = import_module("torch.nn.attention.flex_attention")

    def sees(row: Tensor, _: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = (documents_BT[row, query] == documents_BT[row, key]) & (query >= key)
        return own if window is None else own & (query - key < window)

    batch, length = documents_BT.shape
    make = _compiled(flex.create_block_mask)
    return Flexible(make(sees, batch, None, length, length, device=documents_BT.device, BLOCK_SIZE=FLEX_BLOCK))


def attend_flexible(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTV: Tensor, flexible: Flexible, scale: float) -> Tensor:
    """As `attend`."""
    flex: Any = import_module("torch.nn.attention.flex_attention")
    attention = _compiled(flex.flex_attention)
    repeated = q_BHTK.shape[1] != k_BGTK.shape[1]
    mixed: Tensor = attention(q_BHTK, k_BGTK, v_BGTV, block_mask=flexible.blocks, scale=scale, enable_gqa=repeated)
    return mixed


@cache
def _compiled(function: Any) -> Any:
    return torch.compile(function)
