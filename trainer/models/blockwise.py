"""Causal attention on a CPU as plain matrix products over blocks of queries, each with only the keys that it may see.

PyTorch's CPU kernel makes 10 to 35 GFLOP/s of bfloat16 where its matrix products make 140 to 450, and multiplies what
the mask then hides. Measured forward and backward on one AVX-512 core at 2,048 tokens, 256 wide, heads of 64: samples
of 512 tokens 12 ms (PyTorch's 43), with documents of 240 tokens apart 15; of 256 tokens 3.5 ms (12); in float32 30
and 9 ms (48 and 12). To `torch.compile` it is one operation each way, so that a model stays one graph. The price:
probabilities are kept for the backward pass, so samples over `LONGEST` tokens are left to PyTorch's kernel.
"""

from __future__ import annotations

import math
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


def attend_blockwise(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTV: Tensor, blocks: Blocks, scale: float) -> Tensor:
    """softmax(q·k · scale + mask)·v of each head, [B, H, T, V]."""
    q, k, v = (q_BHTK * scale).contiguous(), k_BHTK.contiguous(), v_BHTV.contiguous()
    mixed: Tensor = _mix(q, k, v, blocks.first_RT, blocks.hidden_RTT.to(q.dtype))[0]
    return mixed


@torch.library.custom_op("gristmill::mix", mutates_args=())
def _mix(q: Tensor, k: Tensor, v: Tensor, first: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """The mixed values, and the shares of all keys that queries see, block after block in one row."""
    mixed, kept = _mix_shapes(q, k, v, first, hidden)
    for span, shares in _with_shares(q, first, kept):
        rows, start, stop, low, masked = span
        scores = torch.bmm(_heads(q, rows, start, stop), _heads(k, rows, low, stop).transpose(1, 2))
        _add_mask(scores, hidden[rows if len(hidden) > 1 else slice(1), start:stop, masked:stop])
        torch.softmax(scores, -1, out=shares)
        torch.bmm(shares, _heads(v, rows, low, stop), out=_heads(mixed, rows, start, stop))
    return mixed, kept


@_mix.register_fake
def _mix_shapes(q: Tensor, k: Tensor, v: Tensor, first: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    batch, heads, length, _ = q.shape
    seen = sum((min(start + BLOCK, length) - start) * min(start + BLOCK, length) for start in range(0, length, BLOCK))
    return torch.empty_like(v), q.new_empty(batch * heads * seen)


@torch.library.custom_op("gristmill::mix_backward", mutates_args=())
def _mix_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, first: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values."""
    grad, grad_q, grad_k, grad_v = grad.contiguous(), torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for (rows, start, stop, low, _), shares in _with_shares(q, first, kept):
        given, keys = _heads(grad, rows, start, stop), _heads(k, rows, low, stop)
        _heads(grad_v, rows, low, stop).baddbmm_(shares.transpose(1, 2), given)
        grad_shares = torch.bmm(given, _heads(v, rows, low, stop).transpose(1, 2))
        slopes = torch._softmax_backward_data(grad_shares, shares, -1, shares.dtype)
        torch.bmm(slopes, keys, out=_heads(grad_q, rows, start, stop))
        _heads(grad_k, rows, low, stop).baddbmm_(slopes.transpose(1, 2), _heads(q, rows, start, stop))
    return grad_q, grad_k, grad_v


@_mix_backward.register_fake
def _mix_backward_shapes(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, first: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, first, _ = inputs
    ctx.save_for_backward(q, k, v, first, output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:
    return *_mix_backward(grad, *ctx.saved_tensors), None, None


_mix.register_autograd(_differentiate, setup_context=_keep)


def block_spans(first_RT: Tensor, batch: int) -> Iterator[Span]:
    """The blocks of queries, of all rows together or, where it saves products, of each row apart.

    The first key is rounded down to a whole block: few distinct shapes, for which oneDNN keeps its compiled products.
    """
    length = first_RT.shape[1]
    apart = len(first_RT) > 1 and length > SHORT
    for rows in [slice(row, row + 1) for row in range(batch)] if apart else [slice(0, batch)]:
        some_RT = first_RT[rows] if apart else first_RT
        lowest, highest = some_RT.amin(0).tolist(), some_RT.amax(0).tolist()
        for start in range(0, length, BLOCK):
            stop = min(start + BLOCK, length)
            low = lowest[start] // BLOCK * BLOCK
            yield Span(rows, start, stop, low, start if highest[stop - 1] <= low else low)


def _with_shares(q: Tensor, first: Tensor, kept: Tensor) -> Iterator[tuple[Span, Tensor]]:
    """Each block of queries with the place of its shares in `kept`, [rows · H, queries, keys]."""
    taken = 0
    for span in block_spans(first, len(q)):
        rows = (span.rows.stop - span.rows.start) * q.shape[1]
        shape = (rows, span.stop - span.start, span.stop - span.first)
        yield span, kept[taken : taken + math.prod(shape)].view(shape)
        taken += math.prod(shape)


def _heads(x_BHTK: Tensor, rows: slice, start: int, stop: int) -> Tensor:
    """A view of some rows and columns, [rows · H, columns, K]."""
    return x_BHTK[rows].flatten(0, 1)[:, start:stop]


def _add_mask(scores: Tensor, hidden_RST: Tensor) -> None:
    """Add the mask to the last columns of the scores of all heads, in place."""
    tail = scores[:, :, scores.shape[2] - hidden_RST.shape[2] :]
    tail.view(len(hidden_RST), -1, *tail.shape[1:]).add_(hidden_RST.unsqueeze(1))
