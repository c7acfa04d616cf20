"""The summed cross-entropy of a model's last states, and the z-loss, never keeping a [tokens, vocabulary] matrix.

The loss runs over blocks of rows and makes its gradients in the same pass, in the memory of the logits. `torch.compile`
does not trace it (on a CPU its loop took several times as long), but in a compiled model one kernel turns logits into
gradients: 6 ms for 8.4 million of them on one core, where PyTorch's functions take 10 by chunks. The z-loss is
coefficient · log² of the softmax's denominator (PaLM, 2204.02311, section 5).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = {"cpu": 1 << 18, "cuda": 1 << 27}
"""Logits that are made gradients at a time, in float32: on a CPU what its cache holds."""
SMALLEST_SHARE = 1e-30
"""Of a label: under it the logarithm is taken another way, which reads all logits twice more."""
HELD_ELEMENTS = {"cpu": 1 << 23, "cuda": 1 << 27}
"""Logits at a time, in the rows' dtype."""


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix products with `x` now: autocast's where it is on, else its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class SummedLoss(torch.autograd.Function):
    """Σ weight · (−log softmax(rows · headᵀ)[label] + z · log² sum), some rows at a time, gradients at once."""

    @staticmethod
    def forward(
        ctx: Any, rows_ND: Tensor, head_VD: Tensor, labels_N: Tensor, weights_N: Tensor, z_loss: float, fused: bool
    ) -> tuple[Tensor, Tensor]:
        exact = torch.promote_types(rows_ND.dtype, torch.float32)
        head, weights_N1 = head_VD.to(rows_ND.dtype), weights_N.unsqueeze(1).to(exact)
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        grad_rows, grad_head = (torch.empty_like(rows_ND), torch.zeros_like(head_VD)) if wanted else (None, None)
        sums = torch.zeros((2,), device=rows_ND.device, dtype=exact)
        held = max(1, HELD_ELEMENTS[rows_ND.device.type] // len(head_VD))
        for start in range(0, len(rows_ND), held):
            some = slice(start, start + held)
            rows, weights = rows_ND[some], weights_N1[some]
            logits = rows @ head.T
            measures = torch.cat(_measure(logits, labels_N[some].unsqueeze(1), z_loss, fused), dim=1)
            sums += measures.mul_(weights).sum(0)
            if grad_rows is not None and grad_head is not None:
                grad_rows[some] = (logits @ head) * weights.to(rows.dtype)
                grad_head += logits.T @ (rows * weights.to(rows.dtype))
        ctx.save_for_backward(grad_rows, grad_head)
        nats, squares = sums.unbind()
        ctx.mark_non_differentiable(nats)
        return nats + z_loss * squares, nats

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        grad_rows, grad_head = ctx.saved_tensors
        return grad_rows * grads[0].to(grad_rows.dtype), grad_head * grads[0], None, None, None, None


def _measure(logits: Tensor, labels: Tensor, z_loss: float, fused: bool) -> tuple[Tensor, Tensor]:
    """(nats, log² of the softmax's denominator) of each row, and its logits become the gradient of nats + z-loss."""
    if fused:
        return _compiled_slopes()(logits, labels, z_loss)
    chunk = max(1, CHUNK_ELEMENTS[logits.device.type] // logits.shape[1])
    some = [slice(start, start + chunk) for start in range(0, len(logits), chunk)]
    nats, squares = zip(*(_slopes(logits[rows], labels[rows], z_loss) for rows in some), strict=True)
    return torch.cat(nats), torch.cat(squares)


@cache
def _compiled_slopes() -> Callable[..., tuple[Tensor, Tensor]]:
    return torch.compile(_slopes)


def _slopes(logits: Tensor, labels: Tensor, z_loss: float) -> tuple[Tensor, Tensor]:
    shares = torch.softmax(logits, dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))
    found = shares.gather(1, labels)
    nats = _nats(logits, shares, found, labels)
    log_sums = nats + logits.gather(1, labels)
    growth = 1 + 2 * z_loss * log_sums
    logits.copy_(shares * growth if z_loss else shares)
    logits.scatter_(1, labels, (found * growth - 1).to(logits.dtype))
    return nats, log_sums.square()


def _nats(logits: Tensor, shares: Tensor, found: Tensor, labels: Tensor) -> Tensor:
    """−log of each label's share [rows, 1]; where that is too small for a float, through the largest share."""
    cheap = shares.device.type == "cpu" and not torch.compiler.is_compiling()
    if cheap and bool((found > SMALLEST_SHARE).all()):
        return -found.log()
    # The largest share is exp(max - logsumexp) and never underflows, so the logarithm is safe.
    log_sums = logits.amax(1, keepdim=True).to(shares.dtype) - shares.amax(1, keepdim=True).log()
    return log_sums - logits.gather(1, labels).to(shares.dtype)


@torch.compiler.disable
def summed_loss(
    rows_ND: Tensor, head_VD: Tensor, labels_N: Tensor, weights_N: Tensor, z_loss: float = 0.0, fused: bool = False
) -> tuple[Tensor, Tensor]:
    """(Σ weight · (nats + z-loss), to be differentiated once; Σ weight · nats alone), scalars of float32 or finer."""
    losses: tuple[Tensor, Tensor] = SummedLoss.apply(rows_ND, head_VD, labels_N, weights_N, z_loss, fused)  # type: ignore[no-untyped-call]
    return losses
