"""Tensor and sequence parallelism for the LLaMA type, through PyTorch's DTensor.

Heads and feed-forward columns are cut among processes that work on the same tokens (Megatron-LM, 1909.08053); with
`sequence` what lies between is cut along the sequence (2205.05198). A fused matrix keeps its parts together on each
process: its rows are put in that order first. The head is cut by vocabulary, and its loss made without gathering the
logits: two small messages a chunk of rows.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_reduce
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module

from trainer.models.layers import RMSNorm, SwiGLU
from trainer.models.llama import Attention, Llama
from trainer.models.loss import compute_dtype

CHUNK_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 26}


def cut_tensors(model: Llama, mesh: DeviceMesh, *, sequence: bool) -> dict[str, list[int]]:
    """Leave this process its part of every matrix; returns the row counts of fused matrices by parameter name.

    The model, or stage of one, must be whole and the same on all processes of the one-dimensional mesh.
    """
    between = Shard(1) if sequence else Replicate()
    fused: dict[str, list[int]] = {}
    for name, module in list(model.blocks.named_modules()):
        if isinstance(module, Attention):
            fused[f"blocks.{name}.qkv.weight"] = list(module.widths)
            _cut_pair(module.qkv, module.out, module.widths, mesh, between)
            _cut_norms(module, mesh)
            module.widths = [width // mesh.size() for width in module.widths]
        elif isinstance(module, SwiGLU):
            rows = [module.down.in_features] * 2
            fused[f"blocks.{name}.gate_up.weight"] = rows
            _cut_pair(module.gate_up, module.down, rows, mesh, between)
    _cut_vocabulary(model, mesh, between)
    return fused


def _cut_pair(into: nn.Linear, out: nn.Linear, rows: list[int], mesh: DeviceMesh, between: Any) -> None:
    with torch.no_grad():
        into.weight.copy_(into.weight[arranged_rows(rows, mesh.size())])
    _parallelize(into, mesh, ColwiseParallel(input_layouts=between))
    _parallelize(out, mesh, RowwiseParallel(output_layouts=between))


def arranged_rows(rows: list[int], size: int) -> Tensor:
    """The order of the fused matrix's rows in which each process's share of every part lies together."""
    parts = [part.chunk(size) for part in torch.split(torch.arange(sum(rows)), rows)]
    return torch.cat([part[rank] for rank in range(size) for part in parts])


def _cut_norms(attention: Attention, mesh: DeviceMesh) -> None:
    """Norms over all heads of queries and keys."""
    for name in ("q_norm", "k_norm"):
        norm = getattr(attention, name)
        if isinstance(norm, RMSNorm):
            setattr(attention, name, CutRMSNorm(norm, mesh))


class CutRMSNorm(nn.Module):
    """RMSNorm of vectors that several processes hold parts of."""

    def __init__(self, norm: RMSNorm, mesh: DeviceMesh) -> None:
        super().__init__()
        self.weight = nn.Parameter(distribute_tensor(norm.weight, mesh, [Shard(0)], src_data_rank=None))
        self.epsilon, self.size, self.group = norm.epsilon, len(norm.weight), mesh.get_group()

    def forward(self, x_BTD: Tensor) -> Tensor:
        exact = x_BTD.float()
        squares_BT1 = SumOver.apply(exact.square().sum(-1, keepdim=True), self.group)  # type: ignore[no-untyped-call]
        weight = self.weight.to_local() if isinstance(self.weight, DTensor) else self.weight
        return (exact * torch.rsqrt(squares_BT1 / self.size + self.epsilon)).to(x_BTD.dtype) * weight


class SumOver(torch.autograd.Function):
    """A sum over processes that each go on with it: gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return all_reduce(x, "sum", group)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return all_reduce(grads[0].contiguous(), "sum", ctx.group), None


def _cut_vocabulary(model: Llama, mesh: DeviceMesh, between: Any) -> None:
    """Embedding and head, where this stage has them; tied ones stay one."""
    tied = isinstance(model.head, nn.Linear) and model.head.weight is getattr(model.embedding, "weight", None)
    if isinstance(model.embedding, nn.Embedding):
        _parallelize(model.embedding, mesh, RowwiseParallel(input_layouts=Replicate(), output_layouts=between))
    if isinstance(model.head, nn.Linear):
        whole = model.head.weight
        model.head.weight = (
            model.embedding.weight
            if tied
            else nn.Parameter(distribute_tensor(whole, mesh, [Shard(0)], src_data_rank=None))
        )
        model.cross_entropy = MethodType(_cross_entropy(mesh, between), model)  # type: ignore[method-assign]


def _cross_entropy(mesh: DeviceMesh, between: Any) -> Any:
    def cross_entropy(self: Llama, x_BTD: Tensor, labels_BT: Tensor, weights_BT: Tensor) -> tuple[Tensor, Tensor]:
        """As LanguageModel's, with the head cut by vocabulary."""
        spread = DTensor.from_local(x_BTD, mesh, [between], run_check=False)
        x_BTD = spread.redistribute(placements=[Replicate()]).to_local(grad_placements=[Partial()])
        rows_ND = x_BTD.flatten(0, 1).to(compute_dtype(x_BTD))
        weight: Any = self.head.weight
        head_VD = weight.to_local() if isinstance(weight, DTensor) else weight
        first = mesh.get_local_rank() * len(head_VD)
        group = mesh.get_group()
        losses: tuple[Tensor, Tensor] = CutLoss.apply(  # type: ignore[no-untyped-call]
            rows_ND, head_VD, labels_BT.flatten() - first, weights_BT.flatten(), self.z_loss, group
        )
        return losses

    return cross_entropy


def _parallelize(module: nn.Module, mesh: DeviceMesh, style: ParallelStyle) -> None:
    parallelize_module(module, mesh, style, src_data_rank=None)


class CutLoss(torch.autograd.Function):
    """SummedLoss with the head's rows cut among processes; labels count from this process's first row.

    The gradient of the rows is this process's part of a sum.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows_ND: Tensor,
        head_VD: Tensor,
        labels_N: Tensor,
        weights_N: Tensor,
        z_loss: float,
        group: dist.ProcessGroup,
    ) -> tuple[Tensor, Tensor]:
        head = head_VD.to(rows_ND.dtype)
        grad_rows, grad_head = torch.empty_like(rows_ND), torch.zeros_like(head_VD)
        nats, squares = torch.zeros((2,), device=rows_ND.device).unbind()
        num_rows = max(1, CHUNK_ELEMENTS[rows_ND.device.type] // len(head_VD))
        for start in range(0, len(rows_ND), num_rows):
            chunk = slice(start, start + num_rows)
            rows, labels, weights = rows_ND[chunk], labels_N[chunk, None], weights_N[chunk, None].float()
            logits = (rows @ head.T).float()
            is_mine = (labels >= 0) & (labels < len(head))
            own = labels.clamp(0, len(head) - 1)
            log_sums, wanted = _log_sums(logits, own, is_mine, group)
            nats += ((log_sums - wanted) * weights).sum()
            squares += (log_sums.square() * weights).sum()
            slopes = torch.exp(logits - log_sums)
            if z_loss:
                slopes *= 1 + 2 * z_loss * log_sums
            slopes.scatter_add_(1, own, -is_mine.float())
            slopes = slopes.to(rows.dtype)
            grad_rows[chunk] = (slopes @ head) * weights.to(rows.dtype)
            grad_head += slopes.T @ (rows * weights.to(rows.dtype))
        ctx.save_for_backward(grad_rows, grad_head)
        ctx.mark_non_differentiable(nats)
        return nats + z_loss * squares, nats

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        grad_rows, grad_head = ctx.saved_tensors
        return grad_rows * grads[0].to(grad_rows.dtype), grad_head * grads[0], None, None, None, None


def _log_sums(logits: Tensor, own: Tensor, is_mine: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, Tensor]:
    """(logarithm of the softmax's sum, logit of the label), [N, 1] each, over the vocabulary of all processes."""
    highest = logits.amax(1, keepdim=True)
    dist.all_reduce(highest, op=dist.ReduceOp.MAX, group=group)
    sums = torch.exp(logits - highest).sum(1, keepdim=True)
    both = torch.cat([sums, torch.where(is_mine, logits.gather(1, own), 0.0)])
    dist.all_reduce(both, group=group)
    sums, wanted = both.chunk(2)
    return highest + sums.log(), wanted
