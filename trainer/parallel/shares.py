"""This process's share of a model in training: how its gradients are made and summed, and how long they may be.

Whatever the layout, the gradients after `backward` are those of the sum over all samples of the step, and `clip`
measures their norm over the whole model, each number counted once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from trainer.data.batches import Batch
from trainer.models.contract import Losses
from trainer.parallel.world import World

LossOf = Callable[[nn.Module, Batch], Losses]


class Share:
    """A whole model on every process; each takes its samples, gradients are averaged by DistributedDataParallel.

    `data_rank` of `data_size` says which samples are this process's.
    """

    def __init__(self, model: nn.Module, world: World) -> None:
        self.model, self.world = model, world
        self.data_rank, self.data_size = world.rank, world.size
        self.module = world.share(model)

    def backward(self, batches: Sequence[Batch], loss_of: LossOf) -> Losses:
        """Gradients of the sum of `loss_of` over the batches of all processes; returns this process's part of it."""
        with self.world.accumulate(self.module):
            parts = [self._backward(batch, loss_of) for batch in batches[:-1]]
        return reduce(Losses.plus, [*parts, self._backward(batches[-1], loss_of)])

    def clip(self, limit: float) -> Tensor:
        """Shorten the gradient to `limit` (0: leave it); returns the norm that it had."""
        return nn.utils.clip_grad_norm_(self.model.parameters(), limit or math.inf)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all samples of what each process has of its own, in place."""
        return self.world.sum(tensor)

    def _backward(self, batch: Batch, loss_of: LossOf) -> Losses:
        losses = loss_of(self.module, batch)
        torch.autograd.backward(losses.total * self.data_size)  # DistributedDataParallel divides by their number
        return losses.detached()
