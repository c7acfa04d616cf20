"""This process's share of a model in training: how its gradients are made and summed, and how long they may be.

Whatever the layout, the gradients after `backward` are those of the sum over all samples of the step, and `clip`
measures their norm over the whole model, each number counted once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn

from trainer.checkpoints.pieces import Pieces, as_pieces
from trainer.compute import losses_of
from trainer.data.batches import Batch
from trainer.models.contract import LanguageModel, Losses
from trainer.optimizer import model_tensors, moments
from trainer.parallel.chance import seed_chance
from trainer.parallel.layout import Layout
from trainer.parallel.world import World
from trainer.settings import TrainingConfig


class Share:
    """A whole model on every process; each takes its samples, gradients are averaged by DistributedDataParallel.

    `data_rank` of `data_size` says which samples are this process's; `models` are what it has of the model.
    """

    def __init__(self, model: LanguageModel, compiled: nn.Module, world: World, config: TrainingConfig) -> None:
        self.models, self.world, self.config = [model], world, config
        self.data_rank, self.data_size = world.rank, world.size
        self.module = world.share(compiled)

    def backward(self, batches: Sequence[Batch], scale: Tensor, seed: str) -> Losses:
        """Gradients of `scale` times the losses of all processes' batches; returns this process's part of these.

        What is random in a micro-batch depends on `seed` and its number in the step, however many processes there are.
        """
        with self.world.accumulate(self.module):
            parts = [self._backward(i, batch, scale, seed) for i, batch in enumerate(batches[:-1])]
        return reduce(Losses.plus, [*parts, self._backward(len(batches) - 1, batches[-1], scale, seed)])

    def clip(self, limit: float) -> Tensor:
        """Shorten the gradient to `limit` (0: leave it); returns the norm that it had."""
        return nn.utils.clip_grad_norm_(self.parameters().values(), limit or math.inf)

    def norm(self) -> float:
        """The length of all parameters."""
        return float(nn.utils.get_total_norm([parameter.detach() for parameter in self.parameters().values()]))

    @torch.no_grad()
    def measure(self, batches: Sequence[Batch]) -> list[float]:
        """The loss of each batch of this process alone, without gradients; of none where stages share them."""
        return [float(losses_of(self.module, batch, self.config).nats) for batch in batches]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all samples of what each process has of its own, in place."""
        return self.world.sum(tensor)

    def parameters(self) -> dict[str, nn.Parameter]:
        """What this process's optimizer works on, by the names that they have in the whole model."""
        return dict(self.models[0].named_parameters())

    def tensors(self) -> dict[str, Pieces]:
        """What this process holds of the whole model's weights and state."""
        return as_pieces(model_tensors(self.models[0]))

    def moments(self, optimizer: torch.optim.Optimizer) -> dict[str, Pieces]:
        """What this process holds of the optimizer's state."""
        return as_pieces(moments(optimizer, self.parameters()))

    def whole(self, _: Callable[[], LanguageModel]) -> LanguageModel:
        """The whole model on this process; the function makes an empty one."""
        return self.models[0]

    def _backward(self, number: int, batch: Batch, scale: Tensor, seed: str) -> Losses:
        seed_chance(f"{seed} {self.data_rank + number * self.data_size}")
        losses = losses_of(self.module, batch, self.config).scaled(scale)
        torch.autograd.backward(losses.total * self.data_size)  # DistributedDataParallel divides by their number
        return losses.detached()


def share_model(model: LanguageModel, layout: Layout, world: World, config: TrainingConfig) -> Share:
    """This process's share of a model that is whole and the same on every process."""
    if layout.is_plain:
        model.to(world.device)
        return Share(model, cast(nn.Module, torch.compile(model)) if config.compile else model, world, config)
    from trainer.parallel.spread import SpreadShare  # PyTorch's pipelines take two seconds to import

    return SpreadShare(model, layout, world, config)
