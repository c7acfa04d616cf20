"""Expert parallelism: each process has some of the experts, and tokens travel to theirs and back (2006.16668).

Processes that share the experts take different samples, so the other weights are replicated among them. A step sends
every token's row once for each of its experts, and as much back; nothing is padded and none is dropped.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainer.models.experts import Experts, MixtureOfExperts, unsort_rows


def spread_experts(model: nn.Module, group: dist.ProcessGroup) -> set[str]:
    """Leave this process its experts of a model that is whole everywhere; returns the names of their parameters."""
    names = set()
    for place, module in list(model.named_modules()):
        if isinstance(module, MixtureOfExperts):
            module.experts = SpreadExperts(module.experts, group)
            names |= {f"{place}.experts.{name}" for name, _ in module.experts.named_parameters()}
    return names


class SpreadExperts(Experts):
    """An equal number of consecutive experts on every process of the group."""

    def __init__(self, experts: Experts, group: dist.ProcessGroup) -> None:
        nn.Module.__init__(self)
        self.group, self.num_processes = group, dist.get_world_size(group)
        for name, parameter in experts.named_parameters():
            own = parameter.detach().chunk(self.num_processes)[dist.get_rank(group)].clone()
            self.register_parameter(name, nn.Parameter(own))

    def forward(self, rows_MD: Tensor, ends_E: Tensor) -> Tensor:
        """Rows come sorted by expert, and go back in the same order."""
        sent_PE = ends_E.diff(prepend=ends_E.new_zeros(1)).view(self.num_processes, -1).contiguous()
        received_PE = torch.empty_like(sent_PE)
        dist.all_to_all_single(received_PE, sent_PE, group=self.group)
        sent, received = sent_PE.sum(1).tolist(), received_PE.sum(1).tolist()
        arrived_MD = Exchange.apply(rows_MD, sent, received, self.group)  # type: ignore[no-untyped-call]
        order_M = _order(received_PE)
        sorted_MD = unsort_rows(arrived_MD, order_M.argsort())
        done_MD = super().forward(sorted_MD, received_PE.sum(0).cumsum(0).int())
        back_MD: Tensor = Exchange.apply(unsort_rows(done_MD, order_M), received, sent, self.group)  # type: ignore[no-untyped-call]
        return back_MD


def _order(received_PE: Tensor) -> Tensor:
    """Rows come by process, and by expert within it: the order in which they stand by expert alone."""
    num_processes, num_experts = received_PE.shape
    expert_PE = torch.arange(num_experts, device=received_PE.device).repeat(num_processes)
    return expert_PE.repeat_interleave(received_PE.flatten()).argsort(stable=True)


class Exchange(torch.autograd.Function):
    """Each process gets `received[p]` rows from process p, and gives it `sent[p]`."""

    @staticmethod
    def forward(ctx: Any, rows_MD: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.sizes, ctx.group = (sent, received), group
        return _exchange(rows_MD, sent, received, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        sent, received = ctx.sizes
        return _exchange(grads[0], received, sent, ctx.group), None, None, None


def _exchange(rows_MD: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    arrived_MD = rows_MD.new_empty(sum(received), rows_MD.shape[1])
    dist.all_to_all_single(arrived_MD, rows_MD.contiguous(), received, sent, group=group)
    return arrived_MD
