"""Causal attention on a CPU as plain matrix products over blocks of queries, each with only the keys that it may see.

PyTorch's CPU kernel makes 10 to 35 GFLOP/s of bfloat16 where its matrix products make 140 to 450, and multiplies what
the mask then hides. Measured forward and backward on one AVX-512 core at 2,048 tokens, 256 wide, heads of 64: samples
of 512 tokens 12 ms (PyTorch's 43), with documents of 240 tokens apart 15; of 256 tokens 3.5 ms (12); in float32 30
and 9 ms (48 and 12). The price: probabilities are kept for the backward pass, so samples over `LONGEST` tokens are
left to PyTorch's kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

LONGEST = 2048
BLOCK = 128
SHORT = 256
"""Up to so many tokens, skipping the keys of other documents row by row costs more calls than it saves products."""


class Blocks(NamedTuple):
    """What each token sees: keys from `first_RT` (int64) on to itself, and the same as a mask to add [R, T, T].

    R is 1 where it is the same for all rows of a batch.
    """

    first_RT: Tensor
    hidden_RTT: Tensor


class Span(NamedTuple):
    """Queries `start` to `stop` of the rows `rows` see no key before `first`, and all from `masked` on to `start`."""

    rows: slice
    start: int
    stop: int
    first: int
    masked: int


def see(documents_BT: Tensor | None, length: int, dtype: torch.dtype, window: int | None = None) -> Blocks:
    """What tokens of rows of `length` see: their own document, not ahead, the last `window` keys."""
    columns_T = torch.arange(length)
    first_RT = torch.zeros(1, length, dtype=torch.int64) if documents_BT is None else first_of_document(documents_BT)
    if window is not None:
        first_RT = torch.maximum(first_RT, columns_T + 1 - window)
    seen_RTT = (columns_T >= first_RT.unsqueeze(2)) & (columns_T <= columns_T.unsqueeze(1))
    hidden_RTT = torch.zeros(seen_RTT.shape, dtype=dtype).masked_fill_(~seen_RTT, float("-inf"))
    return Blocks(first_RT, hidden_RTT)


def first_of_document(documents_BT: Tensor) -> Tensor:
    """The column where each token's document begins in its row."""
    columns_BT = torch.arange(documents_BT.shape[1]).expand_as(documents_BT)
    same_BT = torch.zeros(documents_BT.shape, dtype=torch.bool)
    same_BT[:, 1:] = documents_BT[:, 1:] == documents_BT[:, :-1]
    return columns_BT.masked_fill(same_BT, 0).cummax(1).values


@torch.compiler.disable
def attend_blockwise(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTV: Tensor, blocks: Blocks, scale: float) -> Tensor:
    """softmax(q·k · scale + mask)·v of each head, [B, H, T, V]."""
    mixed: Tensor = BlockwiseAttention.apply(q_BHTK, k_BHTK, v_BHTV, blocks, scale)  # type: ignore[no-untyped-call]
    return mixed


class BlockwiseAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, blocks: Blocks, scale: float) -> Tensor:
        q, k, v = (q * scale).contiguous(), k.contiguous(), v.contiguous()
        hidden = blocks.hidden_RTT.to(q.dtype)
        mixed = torch.empty_like(v)
        spans = list(block_spans(blocks, len(q)))
        kept = []
        for rows, start, stop, first, masked in spans:
            scores = torch.bmm(_heads(q, rows, start, stop), _heads(k, rows, first, stop).transpose(1, 2))
            _add_mask(scores, hidden[rows if len(hidden) > 1 else slice(1), start:stop, masked:stop])
            shares = torch.softmax(scores, -1)
            _heads(mixed, rows, start, stop).copy_(torch.bmm(shares, _heads(v, rows, first, stop)))
            kept.append(shares)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.spans, ctx.scale = spans, scale
        return mixed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, *kept = ctx.saved_tensors
        grad = grads[0].contiguous()
        grad_q = torch.empty_like(q)
        # Gradients of keys and values are summed transposed: the products then read their large factor as it lies.
        grad_k, grad_v = (torch.zeros_like(x.transpose(2, 3), memory_format=torch.contiguous_format) for x in (k, v))
        for (rows, start, stop, first, _), shares in zip(ctx.spans, kept, strict=True):
            given = _heads(grad, rows, start, stop)
            grad_v[rows].flatten(0, 1)[:, :, first:stop] += torch.bmm(given.transpose(1, 2), shares)
            grad_shares = torch.bmm(given, _heads(v, rows, first, stop).transpose(1, 2))
            slopes = torch._softmax_backward_data(grad_shares, shares, -1, shares.dtype)
            _heads(grad_q, rows, start, stop).copy_(torch.bmm(slopes, _heads(k, rows, first, stop)))
            grad_k[rows].flatten(0, 1)[:, :, first:stop] += torch.bmm(
                _heads(q, rows, start, stop).transpose(1, 2), slopes
            )
        return grad_q * ctx.scale, grad_k.transpose(2, 3), grad_v.transpose(2, 3), None, None


def block_spans(blocks: Blocks, batch: int) -> Iterator[Span]:
    """The blocks of queries, of all rows together or, where it saves products, of each row apart.

    The first key is rounded down to a whole block: few distinct shapes, for which oneDNN keeps its compiled products.
    """
    length = blocks.first_RT.shape[1]
    apart = len(blocks.first_RT) > 1 and length > SHORT
    for rows in [slice(row, row + 1) for row in range(batch)] if apart else [slice(0, batch)]:
        first_RT = blocks.first_RT[rows] if apart else blocks.first_RT
        lowest, highest = first_RT.amin(0).tolist(), first_RT.amax(0).tolist()
        for start in range(0, length, BLOCK):
            stop = min(start + BLOCK, length)
            first = lowest[start] // BLOCK * BLOCK
            yield Span(rows, start, stop, first, start if highest[stop - 1] <= first else first)


def _heads(x_BHTK: Tensor, rows: slice, start: int, stop: int) -> Tensor:
    """A view of some rows and columns, [rows · H, columns, K]."""
    return x_BHTK[rows].flatten(0, 1)[:, start:stop]


def _add_mask(scores: Tensor, hidden_RST: Tensor) -> None:
    """Add the mask to the last columns of the scores of all heads, in place."""
    tail = scores[:, :, scores.shape[2] - hidden_RST.shape[2] :]
    tail.view(len(hidden_RST), -1, *tail.shape[1:]).add_(hidden_RST.unsqueeze(1))
