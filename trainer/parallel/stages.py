"""Pipeline parallelism: a model cut into stages of blocks, run by PyTorch's schedules (1F1B, or interleaved).

The first stage has the embedding, the last one the norm, the head and the predictors; every stage sees the step's
whole batches, so that only hidden states travel. What a stage's experts lose by their balance it tells itself, and adds
to the gradient when that comes back. An embedding that the last stage needs too (tied, or for predictors) lies on both;
its gradients are summed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleInterleaved1F1B

from trainer.compute import hand_on, losses_of
from trainer.data.batches import Batch
from trainer.models.contract import LanguageModel, Losses
from trainer.parallel.chance import seed_chance
from trainer.settings import TrainingConfig


class Stage(nn.Module):
    """Stage `number` of `count` of a model: states of the one before (or tokens) to states (or the loss)."""

    def __init__(self, model: LanguageModel, number: int, count: int, config: TrainingConfig) -> None:
        super().__init__()
        self.model, self.number, self.config = model, number, config
        self.is_first, self.is_last = number == 0, number == count - 1
        self.first_block, stop = block_range(len(model.blocks), number, count)
        model.blocks = nn.ModuleList(list(model.blocks)[self.first_block : stop])
        if not self.is_first:
            model.embed = _as_they_are  # type: ignore[method-assign, assignment]
            _leave_out(model, {*model.entrance} - ({"embedding"} if self.is_last and model.embeds_labels else set()))
        if not self.is_last:
            _leave_out(model, model.exit)
        self.told: list[Losses] = []

    def whole_name(self, name: str) -> str:
        """What a parameter of the stage's model is called in the whole model."""
        kind, _, rest = name.partition(".")
        if kind == "head" and self.model.config.tied_embeddings:
            return f"embedding.{rest}"
        if kind != "blocks":
            return name
        number, _, rest = rest.partition(".")
        return f"blocks.{self.first_block + int(number)}.{rest}"

    def forward(
        self,
        x: Tensor,
        *,
        labels: Tensor,
        positions: Tensor,
        documents: Tensor,
        weights: Tensor,
        scale: Tensor,
        number: Tensor,
        seed: str,
    ) -> Tensor:
        """Of one micro-batch; the last stage's loss is a vector of one number."""
        seed_chance(f"{seed} {int(number)} stage {self.number}")
        batch = Batch(tokens=x, labels=labels, positions=positions, documents=documents, weights=weights)
        model, config = self.model, self.config
        x, losses = (x, losses_of(model, batch, config)) if self.is_last else hand_on(model, batch, config)
        losses = losses.scaled(scale.squeeze())
        self.told.append(losses.detached())
        return losses.total.reshape(1) if self.is_last else Carry.apply(x, losses.total)  # type: ignore[no-any-return, no-untyped-call]


class Carry(torch.autograd.Function):
    """States as they are; when their gradient comes back, the loss beside them gets its own, which is one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Tensor) -> Tensor:
        ctx.loss = loss.dtype, loss.device
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        dtype, device = ctx.loss
        return grads[0], torch.ones((), dtype=dtype, device=device)


def _as_they_are(x: Tensor, _: Tensor) -> Tensor:
    """In place of an embedding: where a later stage begins, states have been through it."""
    return x


def _leave_out(model: LanguageModel, names: Iterable[str]) -> None:
    for name in names:
        is_list = isinstance(getattr(model, name), nn.ModuleList)
        setattr(model, name, nn.ModuleList() if is_list else nn.Identity())


def block_range(num_blocks: int, number: int, count: int) -> tuple[int, int]:
    """First and one past the last of the blocks of stage `number` of `count`."""
    return number * num_blocks // count, (number + 1) * num_blocks // count


class Pipeline:
    """This process's stages under a schedule, for micro-batches of one shape."""

    def __init__(self, stages: list[Stage], count: int, batch: Batch, num_batches: int, group: ProcessGroup) -> None:
        self.is_first, self.is_last = stages[0].is_first, stages[-1].is_last
        spots: list[Any] = [_spot(stage, count, batch, group) for stage in stages]
        if len(spots) > 1:
            self.schedule: Any = ScheduleInterleaved1F1B(spots, num_batches, _loss, scale_grads=False)
        else:
            self.schedule = Schedule1F1B(spots[0], num_batches, _loss, scale_grads=False)

    def run(self, batches: Sequence[Batch], scale: Tensor, numbers: Sequence[int], seed: str) -> None:
        """Forward and backward of all micro-batches; `numbers` are theirs in the step."""
        tensors = {name: torch.cat([getattr(batch, name) for batch in batches]) for name in vars(batches[0])}
        tokens = tensors.pop("tokens")
        self.schedule.step(
            *([tokens] if self.is_first else []),
            **tensors,
            scale=scale.expand(len(batches)),
            number=torch.tensor(numbers),
            seed=seed,
            target=tensors["labels"] if self.is_last else None,
            return_outputs=False,
        )


def _loss(output: Tensor, _: Tensor) -> Tensor:
    return output.squeeze()


def _spot(stage: Stage, count: int, batch: Batch, group: ProcessGroup) -> PipelineStage:
    """The stage with the shapes that it takes and gives, so that none needs to be found out by a run."""
    rows, length = batch.labels.shape
    length = length // stage.config.tensor_parallel if stage.config.sequence_parallel else length
    states = torch.empty(rows, length, stage.model.config.hidden_size, device="meta", requires_grad=True)
    tokens = torch.empty(batch.labels.shape, dtype=torch.int64, device="meta")
    loss = torch.empty(1, device="meta", requires_grad=True)
    return PipelineStage(
        stage,
        stage.number,
        count,
        batch.labels.device,
        input_args=tokens if stage.is_first else states,
        output_args=loss if stage.is_last else states,
        group=group,
    )
