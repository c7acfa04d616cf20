"""The summed cross-entropy of a model's last states, and the z-loss, never keeping a [tokens, vocabulary] matrix.

The loss runs over chunks of rows and makes its gradients in the same pass. The z-loss is coefficient · log² of the
softmax's denominator (PaLM, 2204.02311, section 5).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LOSS_CHUNK_ELEMENTS = 1 << 20


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix products with `x` now: autocast's where it is on, else its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class SummedLoss(torch.autograd.Function):
    """Σ weight · (−log softmax(rows · headᵀ)[label] + z · log² sum), a chunk of rows at a time, gradients at once."""

    @staticmethod
    def forward(
        ctx: Any, rows_ND: Tensor, head_VD: Tensor, labels_N: Tensor, weights_N: Tensor, z_loss: float
    ) -> tuple[Tensor, Tensor]:
        exact = torch.promote_types(rows_ND.dtype, torch.float32)
        head = head_VD.to(rows_ND.dtype)
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        grad_rows, grad_head = (torch.empty_like(rows_ND), torch.zeros_like(head_VD)) if wanted else (None, None)
        nats, squares = torch.zeros((2,), device=rows_ND.device, dtype=exact).unbind()
        num_rows = max(1, LOSS_CHUNK_ELEMENTS // len(head_VD))
        for start in range(0, len(rows_ND), num_rows):
            chunk = slice(start, start + num_rows)
            rows, labels, weights = (
                rows_ND[chunk],
                labels_N[chunk].unsqueeze(1),
                weights_N[chunk].unsqueeze(1).to(exact),
            )
            logits = rows @ head.T
            slopes = torch.softmax(logits, dim=1, dtype=exact)
            # The largest probability is exp(max - logsumexp) and never underflows, so the logarithm is safe.
            log_sums = logits.amax(1, keepdim=True).to(exact) - slopes.amax(1, keepdim=True).log()
            nats += ((log_sums - logits.gather(1, labels).to(exact)) * weights).sum()
            if z_loss:
                squares += (log_sums.square() * weights).sum()
            if grad_rows is not None and grad_head is not None:
                if z_loss:
                    slopes *= 1 + 2 * z_loss * log_sums
                slopes.scatter_add_(1, labels, torch.full_like(weights, -1))
                slopes = slopes.to(rows.dtype)
                grad_rows[chunk] = (slopes @ head) * weights.to(rows.dtype)
                grad_head += slopes.T @ (rows * weights.to(rows.dtype))
        ctx.save_for_backward(grad_rows, grad_head)
        ctx.mark_non_differentiable(nats)
        return nats + z_loss * squares, nats

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_rows, grad_head = ctx.saved_tensors
        return grad_rows * grads[0].to(grad_rows.dtype), grad_head * grads[0], None, None, None


def summed_loss(
    rows_ND: Tensor, head_VD: Tensor, labels_N: Tensor, weights_N: Tensor, z_loss: float = 0.0
) -> tuple[Tensor, Tensor]:
    """(Σ weight · (nats + z-loss), to be differentiated once; Σ weight · nats alone), scalars of float32 or finer."""
    losses: tuple[Tensor, Tensor] = SummedLoss.apply(rows_ND, head_VD, labels_N, weights_N, z_loss)  # type: ignore[no-untyped-call]
    return losses
