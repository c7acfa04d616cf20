"""Feed-forward by a few of many experts, chosen for each token, as in DeepSeek-V3 (2412.19437, section 2.1.2).

The router is computed in float32 whatever the rest is. A bias for each expert moves tokens away from the crowded ones:
it counts when experts are chosen, never in how much they weigh, and no gradient reaches it. Tokens are sorted by
expert, so each expert's work is one product: PyTorch's grouped kernel on GPUs in bfloat16, a loop elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.layers import SwiGLU
from trainer.models.loss import compute_dtype


@dataclass(frozen=True, kw_only=True)
class ExpertsConfig:
    """Sizes in elements; `groups_per_token` of `num_groups` equal groups of experts may serve one token."""

    hidden_size: int
    ffn_size: int
    shared_ffn_size: int
    num_experts: int
    experts_per_token: int
    num_groups: int
    groups_per_token: int
    normalized: bool
    scaling: float


class Routing(NamedTuple):
    """`imbalance_B` is one for each sequence when experts are used evenly, more else; `load_E` counts tokens."""

    imbalance_B: Tensor
    load_E: Tensor


class Router(nn.Module):
    """Which experts serve a token, and how much each of them weighs."""

    bias_E: Tensor
    load_E: Tensor

    def __init__(self, config: ExpertsConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size))
        self.register_buffer("bias_E", torch.zeros(config.num_experts))
        self.register_buffer("load_E", torch.zeros(config.num_experts), persistent=False)

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(scores [B, T, E] between 0 and 1, chosen experts [B, T, K], their weights [B, T, K])."""
        exact = torch.promote_types(x_BTD.dtype, torch.float32)
        with torch.autocast(x_BTD.device.type, enabled=False):
            scores_BTE = F.linear(x_BTD.to(exact), self.weight.to(exact)).sigmoid()
        chosen_BTK = self._choose(scores_BTE.detach() + self.bias_E)
        weights_BTK = scores_BTE.gather(-1, chosen_BTK)
        if self.config.normalized:
            weights_BTK = weights_BTK / (weights_BTK.sum(-1, keepdim=True) + 1e-20)
        return scores_BTE, chosen_BTK, weights_BTK * self.config.scaling

    def _choose(self, wanted_BTE: Tensor) -> Tensor:
        config = self.config
        if config.groups_per_token < config.num_groups:
            groups_BTGE = wanted_BTE.unflatten(-1, (config.num_groups, -1))  # type: ignore[no-untyped-call]
            best_BTG = groups_BTGE.topk(2, dim=-1).values.sum(-1).topk(config.groups_per_token, dim=-1).indices
            closed_BTG = torch.ones_like(groups_BTGE[..., 0], dtype=torch.bool).scatter_(-1, best_BTG, False)
            wanted_BTE = groups_BTGE.masked_fill(closed_BTG.unsqueeze(-1), float("-inf")).flatten(-2)
        return wanted_BTE.topk(config.experts_per_token, dim=-1).indices


class Experts(nn.Module):
    """All experts' SwiGLU weights in two tensors; rows come sorted by expert."""

    def __init__(self, config: ExpertsConfig) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.empty(config.num_experts, 2 * config.ffn_size, config.hidden_size))
        self.down = nn.Parameter(torch.empty(config.num_experts, config.hidden_size, config.ffn_size))

    def forward(self, rows_MD: Tensor, ends_E: Tensor) -> Tensor:
        """`ends_E` says where each expert's rows end."""
        gate, up = grouped_linear(rows_MD, self.gate_up, ends_E).chunk(2, dim=-1)
        return grouped_linear(F.silu(gate) * up, self.down, ends_E)


class MixtureOfExperts(nn.Module):
    """The chosen experts' weighted sum, and what the shared expert adds for every token."""

    def __init__(self, config: ExpertsConfig) -> None:
        super().__init__()
        self.router = Router(config)
        self.experts = Experts(config)
        self.shared = SwiGLU(config.hidden_size, config.shared_ffn_size) if config.shared_ffn_size else None

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, Routing]:
        scores_BTE, chosen_BTK, weights_BTK = self.router(x_BTD)
        order_M = chosen_BTK.flatten().argsort(stable=True)
        ends_E = find_ends(chosen_BTK.flatten()[order_M], scores_BTE.shape[-1])
        rows_MD = sort_rows(x_BTD.flatten(0, 1), order_M)
        done_MD = unsort_rows(self.experts(rows_MD, ends_E), order_M)
        y_BTD = (done_MD.view(*chosen_BTK.shape, -1) * weights_BTK.unsqueeze(-1)).sum(2)
        if self.shared is not None:
            y_BTD = y_BTD + self.shared(x_BTD)
        load_E = ends_E.diff(prepend=ends_E.new_zeros(1))
        return y_BTD, Routing(measure_imbalance(scores_BTE, chosen_BTK.shape[-1]), load_E)


def measure_imbalance(scores_BTE: Tensor, experts_per_token: int) -> Tensor:
    """Σ f·P of each sequence (2412.19437, equations 17 to 20): its gradient lowers the scores of crowded experts.

    As there, f counts the experts of highest score, whatever their bias.
    """
    num_experts, length = scores_BTE.shape[-1], scores_BTE.shape[1]
    chosen_BTK = scores_BTE.detach().topk(experts_per_token, dim=-1).indices
    count_BE = torch.zeros_like(scores_BTE[:, 0]).scatter_add_(
        1, chosen_BTK.flatten(1), torch.ones_like(chosen_BTK.flatten(1), dtype=scores_BTE.dtype)
    )
    share_BE = (scores_BTE / scores_BTE.sum(-1, keepdim=True)).mean(1)
    return (count_BE * share_BE).sum(-1) * (num_experts / (experts_per_token * length))


def find_ends(sorted_M: Tensor, num_experts: int) -> Tensor:
    """For each expert the first place in the sorted ids that is not its own nor that of one before it; int32."""
    experts_E = torch.arange(num_experts, device=sorted_M.device)
    return torch.searchsorted(sorted_M, experts_E, right=True, out_int32=True)


def grouped_linear(rows_MD: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """Each expert's rows times its own transposed weight."""
    dtype = compute_dtype(rows_MD)
    rows_MD, weight_EFD = rows_MD.to(dtype), weight_EFD.to(dtype)
    if rows_MD.is_cuda and dtype == torch.bfloat16:
        return F.grouped_mm(rows_MD, weight_EFD.transpose(1, 2), offs=ends_E)
    counts = ends_E.diff(prepend=ends_E.new_zeros(1)).tolist()
    parts = zip(torch.split(rows_MD, counts), weight_EFD.unbind(), strict=True)
    return torch.cat([F.linear(rows, weight) for rows, weight in parts])


class SortRows(torch.autograd.Function):
    """Each row as often as it has experts, in the order of the experts; its gradient is the sum of its copies'."""

    @staticmethod
    def forward(ctx: Any, rows_ND: Tensor, order_M: Tensor) -> Tensor:
        ctx.save_for_backward(order_M)
        ctx.shape = rows_ND.shape
        return rows_ND[order_M // (len(order_M) // len(rows_ND))]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (order_M,) = ctx.saved_tensors
        num_rows, size = ctx.shape
        return grads[0][order_M.argsort()].view(num_rows, -1, size).sum(1), None


class UnsortRows(torch.autograd.Function):
    """The rows back in the order that they had before sorting."""

    @staticmethod
    def forward(ctx: Any, rows_MD: Tensor, order_M: Tensor) -> Tensor:
        ctx.save_for_backward(order_M)
        return rows_MD[order_M.argsort()]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (order_M,) = ctx.saved_tensors
        return grads[0][order_M], None


def sort_rows(rows_ND: Tensor, order_M: Tensor) -> Tensor:
    """Rows for the experts; indexing alone would add up gradients one by one."""
    return SortRows.apply(rows_ND, order_M)  # type: ignore[no-any-return, no-untyped-call]


def unsort_rows(rows_MD: Tensor, order_M: Tensor) -> Tensor:
    """The opposite of `sort_rows`, copies kept apart."""
    return UnsortRows.apply(rows_MD, order_M)  # type: ignore[no-any-return, no-untyped-call]
