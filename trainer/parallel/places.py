"""Where the numbers that a process holds of a parameter stand in the parameter of the whole model.

The optimizer works on these local numbers alone, as plain tensors: AdamW looks at each number by itself, so it needs
to know nothing of layouts, and its moments stand where the parameter's numbers do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from trainer.checkpoints.pieces import Pieces

Offsets = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """The local tensor's slices `parts[i][1]` stand at the offsets `parts[i][0]` of a whole tensor of `shape`."""

    shape: tuple[int, ...]
    parts: Sequence[tuple[Offsets, tuple[slice, ...]]]

    def pieces(self, local: Tensor) -> Pieces:
        """A tensor that lies as the parameter does, its own or a moment of it."""
        return Pieces(self.shape, [(offsets, local[slices]) for offsets, slices in self.parts])


@dataclass(frozen=True, kw_only=True)
class Held:
    """A parameter of the model on this process: `local` shares its memory and is what the optimizer works on.

    `is_owner` on one of the processes that hold the same numbers; the gradient is still to be summed over `groups`.
    """

    name: str
    parameter: nn.Parameter
    local: nn.Parameter
    place: Place
    is_owner: bool = True
    groups: tuple[dist.ProcessGroup, ...] = field(default=())

    def fetch_gradient(self) -> None:
        """Make the local gradient the one that the backward pass left."""
        if self.local is not self.parameter:
            gradient, placements = cast(DTensor | None, self.parameter.grad), cast(DTensor, self.parameter).placements
            self.local.grad = None if gradient is None else gradient.redistribute(placements=placements).to_local()

    def forget_gradient(self) -> None:
        self.parameter.grad = self.local.grad = None


def local_of(parameter: nn.Parameter) -> nn.Parameter:
    """The numbers of it that are here, in the same memory."""
    if not isinstance(parameter, DTensor):
        return parameter
    return nn.Parameter(parameter.to_local().detach())


def place_of(parameter: Tensor, fused_rows: Sequence[int] = (), tensor_size: int = 1, tensor_rank: int = 0) -> Place:
    """Of a parameter whose rows, cut by tensors, are `fused_rows` of several matrices on top of each other."""
    sizes, offsets = _extent(parameter)
    shape = tuple(parameter.shape)
    if 0 in sizes:
        return Place(shape, [])
    if not fused_rows or tensor_size == 1:
        return Place(shape, [(tuple(offsets), tuple(slice(0, size) for size in sizes))])
    columns = tuple(slice(0, size) for size in sizes[1:])
    parts, start, whole_start = [], 0, 0
    for rows in fused_rows:
        own = rows // tensor_size
        first = whole_start + tensor_rank * own
        parts.append(((first, *offsets[1:]), (slice(start, start + own), *columns)))
        start, whole_start = start + own, whole_start + rows
    return Place(shape, parts)


def place_among(parameter: Tensor, size: int, rank: int) -> Place:
    """Of a parameter whose first dimension was cut evenly among `size` processes, before anything else was."""
    own, *rest = parameter.shape
    sizes, (first, *offsets) = _extent(parameter)
    parts = [((own * rank + first, *offsets), tuple(slice(0, length) for length in sizes))]
    return Place((own * size, *rest), parts if 0 not in sizes else [])


def _extent(parameter: Tensor) -> tuple[tuple[int, ...], Offsets]:
    """Sizes of what is here of a parameter, and its offsets in the whole."""
    if not isinstance(parameter, DTensor):
        return tuple(parameter.shape), (0,) * parameter.dim()
    mesh, placements = parameter.device_mesh, parameter.placements
    return compute_local_shape_and_global_offset(parameter.shape, mesh, placements)


def sum_gradients(gradients: Sequence[Tensor], group: dist.ProcessGroup, bucket_elements: int = 1 << 24) -> None:
    """Add up gradients over the group in place, in float32 and in messages of 64 MB."""
    bucket: list[Tensor] = []
    for number, gradient in enumerate(gradients):
        bucket.append(gradient)
        if sum(item.numel() for item in bucket) >= bucket_elements or number == len(gradients) - 1:
            flat = torch.cat([item.reshape(-1).float() for item in bucket])
            dist.all_reduce(flat, group=group)
            sizes = [item.numel() for item in bucket]
            for item, summed in zip(bucket, torch.split(flat, sizes), strict=True):
                item.copy_(summed.view_as(item))
            bucket = []
