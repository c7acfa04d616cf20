"""This process's share of a model in training: how its gradients are made and summed, and how long they may be.

Whatever the layout, the gradients after `backward` are those of the sum over all samples of the step, and `clip`
measures their norm over the whole model, each number counted once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from trainer.checkpoints.pieces import Pieces, as_pieces
from trainer.data.batches import Batch
from trainer.models.contract import Losses
from trainer.optimizer import model_tensors, moments
from trainer.parallel.world import World

LossOf = Callable[[nn.Module, Batch], Losses]


class Share:
    """A whole model on every process; each takes its samples, gradients are averaged by DistributedDataParallel.

    `data_rank` of `data_size` says which samples are this process's.
    """

    def __init__(self, model: nn.Module, compiled: nn.Module, world: World) -> None:
        self.model, self.world = model, world
        self.data_rank, self.data_size = world.rank, world.size
        self.module = world.share(compiled)

    def backward(self, batches: Sequence[Batch], loss_of: LossOf, seed: str) -> Losses:
        """Gradients of the sum of `loss_of` over the batches of all processes; returns this process's part of it.

        What is random in a micro-batch depends on `seed` and its number in the step, however many processes there are.
        """
        with self.world.accumulate(self.module):
            parts = [self._backward(i, batch, loss_of, seed) for i, batch in enumerate(batches[:-1])]
        return reduce(Losses.plus, [*parts, self._backward(len(batches) - 1, batches[-1], loss_of, seed)])

    def clip(self, limit: float) -> Tensor:
        """Shorten the gradient to `limit` (0: leave it); returns the norm that it had."""
        return nn.utils.clip_grad_norm_(self.model.parameters(), limit or math.inf)

    def norm(self) -> float:
        """The length of all parameters."""
        return float(nn.utils.get_total_norm([parameter.detach() for parameter in self.model.parameters()]))

    @torch.no_grad()
    def measure(self, batches: Sequence[Batch], loss_of: LossOf) -> list[float]:
        """The loss of each batch of this process alone, without gradients."""
        return [float(loss_of(self.module, batch).nats) for batch in batches]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all samples of what each process has of its own, in place."""
        return self.world.sum(tensor)

    def parameters(self) -> dict[str, nn.Parameter]:
        """What this process's optimizer works on, by the names that they have in the whole model."""
        return dict(self.model.named_parameters())

    def tensors(self) -> dict[str, Pieces]:
        """What this process holds of the whole model's weights and state."""
        return as_pieces(model_tensors(self.model))

    def moments(self, optimizer: torch.optim.Optimizer) -> dict[str, Pieces]:
        """What this process holds of the optimizer's state."""
        return as_pieces(moments(optimizer, self.parameters()))

    def _backward(self, number: int, batch: Batch, loss_of: LossOf, seed: str) -> Losses:
        torch.manual_seed(seed_of(f"{seed} {self.data_rank + number * self.data_size}"))
        losses = loss_of(self.module, batch)
        torch.autograd.backward(losses.total * self.data_size)  # DistributedDataParallel divides by their number
        return losses.detached()


def seed_of(words: str) -> int:
    """63 bits that depend on every character."""
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest()) >> 1
