"""The summed cross-entropy of a model's last states, and the z-loss, never keeping a [tokens, vocabulary] matrix.

The loss runs over chunks of rows and makes its gradients in the same pass; the gradients of several chunks share one
product, so that what they add to the head's gradient is converted to float32 once. `torch.compile` leaves it alone: on
a CPU the compiled loop took several times as long. The z-loss is coefficient · log² of the softmax's denominator
(PaLM, 2204.02311, section 5).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 27}
"""Logits at a time, in float32: on a CPU what its cache holds (4 times as much takes 1.3 to 2 times as long)."""
SMALLEST_SHARE = 1e-30
"""Of a label: under it the logarithm is taken another way, which reads all logits twice more."""
HELD_ELEMENTS = {"cpu": 1 << 23, "cuda": 1 << 27}
"""Gradients of logits at a time, in the rows' dtype."""


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix products with `x` now: autocast's where it is on, else its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class SummedLoss(torch.autograd.Function):
    """Σ weight · (−log softmax(rows · headᵀ)[label] + z · log² sum), some rows at a time, gradients at once."""

    @staticmethod
    def forward(
        ctx: Any, rows_ND: Tensor, head_VD: Tensor, labels_N: Tensor, weights_N: Tensor, z_loss: float
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
            slopes = torch.empty(len(rows), len(head), dtype=rows.dtype, device=rows.device) if wanted else None
            _add_losses(sums, slopes, rows, head, labels_N[some].unsqueeze(1), weights, z_loss)
            if grad_rows is not None and grad_head is not None and slopes is not None:
                grad_rows[some] = (slopes @ head) * weights.to(rows.dtype)
                grad_head += slopes.T @ (rows * weights.to(rows.dtype))
        ctx.save_for_backward(grad_rows, grad_head)
        nats, squares = sums.unbind()
        ctx.mark_non_differentiable(nats)
        return nats + z_loss * squares, nats

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_rows, grad_head = ctx.saved_tensors
        return grad_rows * grads[0].to(grad_rows.dtype), grad_head * grads[0], None, None, None


def _add_losses(
    sums: Tensor, slopes: Tensor | None, rows: Tensor, head: Tensor, labels: Tensor, weights: Tensor, z_loss: float
) -> None:
    """Add (Σ weight · nats, Σ weight · log² sum) to `sums`, and write the gradient of each row's logits to `slopes`."""
    chunk = max(1, CHUNK_ELEMENTS[rows.device.type] // len(head))
    for start in range(0, len(rows), chunk):
        some = slice(start, start + chunk)
        logits = rows[some] @ head.T
        shares = torch.softmax(logits, dim=1, dtype=sums.dtype)
        nats, own = _nats(logits, shares, labels[some]), logits.gather(1, labels[some]).to(sums.dtype)
        log_sums = nats + own
        sums += torch.cat([nats, log_sums.square()], dim=1).mul_(weights[some]).sum(0)
        if slopes is None:
            continue
        if z_loss:
            shares *= 1 + 2 * z_loss * log_sums
        shares.scatter_add_(1, labels[some], torch.full_like(nats, -1))
        slopes[some] = shares


def _nats(logits: Tensor, shares: Tensor, labels: Tensor) -> Tensor:
    """−log of each label's share [rows, 1]; where that is too small for a float, through the largest share."""
    found = shares.gather(1, labels)
    if shares.device.type == "cpu" and bool((found > SMALLEST_SHARE).all()):
        return -found.log()
    # The largest share is exp(max - logsumexp) and never underflows, so the logarithm is safe.
    log_sums = logits.amax(1, keepdim=True).to(shares.dtype) - shares.amax(1, keepdim=True).log()
    return log_sums - logits.gather(1, labels).to(shares.dtype)


@torch.compiler.disable
def summed_loss(
    rows_ND: Tensor, head_VD: Tensor, labels_N: Tensor, weights_N: Tensor, z_loss: float = 0.0
) -> tuple[Tensor, Tensor]:
    """(Σ weight · (nats + z-loss), to be differentiated once; Σ weight · nats alone), scalars of float32 or finer."""
    losses: tuple[Tensor, Tensor] = SummedLoss.apply(rows_ND, head_VD, labels_N, weights_N, z_loss)  # type: ignore[no-untyped-call]
    return losses
