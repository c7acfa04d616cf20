"""A model spread over processes: cut into stages, by tensors and by experts, and sharded, in any layout.

Where weights are not sharded, gradients are summed once a step, in float32.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import reduce
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from trainer.checkpoints.pieces import Pieces, as_pieces
from trainer.compute import losses_of
from trainer.data.batches import Batch
from trainer.models.contract import LanguageModel, Losses
from trainer.models.llama import Llama
from trainer.optimizer import model_tensors, moments
from trainer.parallel.chance import seed_chance
from trainer.parallel.experts import spread_experts
from trainer.parallel.layout import DATA, Layout
from trainer.parallel.places import Held, Place, local_of, place_among, place_of, sum_gradients
from trainer.parallel.sharding import Sharding, cut_dimensions
from trainer.parallel.shares import Share
from trainer.parallel.stages import Pipeline, Stage
from trainer.parallel.tensor import cut_tensors
from trainer.parallel.world import World
from trainer.settings import TrainingConfig


class SpreadShare(Share):
    """This process's part of a model in a layout; `models` are its stages' models, or the one.

    `model` is whole and the same on every process; it is taken apart.
    """

    def __init__(self, model: LanguageModel, layout: Layout, world: World, config: TrainingConfig) -> None:
        self.layout, self.world, self.config = layout, world, config
        self.mesh = layout.mesh(world.device.type)
        self.coordinate = dict(zip(self.mesh.mesh_dim_names or (), self.mesh.get_coordinate() or (), strict=True))
        self.data_group = _group(self.mesh, DATA)
        self.data_rank, self.data_size = dist.get_rank(self.data_group), layout.data
        self.stages = self._cut_stages(model)
        self.models = [stage.model for stage in self.stages] or [model]
        self.fused = [self._cut_tensors(part) for part in self.models]
        self.spread = [self._spread_experts(part) for part in self.models]
        for part in self.models:
            part.to(world.device)
        self.modules: list[nn.Module] = [*self.stages] or [model]
        if layout.shard > 1:
            sharding = Sharding(self.mesh, layout, config.precision)
            for part, module in zip(self.models, self.modules, strict=True):
                sharding.shard(part, module)
        self.tied_group = self._tied_group()
        self.held = [held for number in range(len(self.models)) for held in self._hold(number)]
        self.pipeline: Pipeline | None = None

    def backward(self, batches: Sequence[Batch], scale: Tensor, seed: str) -> Losses:
        for held in self.held:
            held.forget_gradient()
        numbers = [self.data_rank + number * self.data_size for number in range(len(batches))]
        if self.stages:
            losses = self._run_pipeline(batches, scale, numbers, seed)
        else:
            parts = [self._backward(number, batch, scale, seed) for number, batch in zip(numbers, batches, strict=True)]
            losses = reduce(Losses.plus, parts)
        self._sum_gradients()
        return losses

    def clip(self, limit: float) -> Tensor:
        """Shorten the gradient of the whole model to `limit` (0: leave it); returns the norm that it had."""
        gradients = [held.local.grad for held in self.held if held.local.grad is not None]
        own = [held.local.grad for held in self.held if held.is_owner and held.local.grad is not None]
        squares = torch.zeros((), device=self.world.device)
        if own:
            squares = torch.stack(torch._foreach_norm(own)).square().sum()
        norm = self.world.sum(squares).sqrt()
        if limit:
            torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def norm(self) -> float:
        squares = [held.local.detach().float().square().sum() for held in self.held if held.is_owner]
        own = torch.stack(squares).sum() if squares else torch.zeros((), device=self.world.device)
        return float(self.world.sum(own).sqrt())

    @torch.no_grad()
    def measure(self, batches: Sequence[Batch]) -> list[float]:
        if self.stages:
            return []
        return [float(losses_of(self.modules[0], batch, self.config).nats) for batch in batches]

    def sum(self, tensor: Tensor) -> Tensor:
        dist.all_reduce(tensor, group=self.data_group)
        return tensor

    def parameters(self) -> dict[str, nn.Parameter]:
        return {held.name: held.local for held in self.held}

    def tensors(self) -> dict[str, Pieces]:
        return {held.name: held.place.pieces(held.local.detach()) for held in self.held} | as_pieces(self._buffers())

    def moments(self, optimizer: torch.optim.Optimizer) -> dict[str, Pieces]:
        tensors = moments(optimizer, self.parameters())
        places = {f"optimizer.{held.name}.{key}": held.place for held in self.held for key in ("exp_avg", "exp_avg_sq")}
        return {
            name: places[name].pieces(tensor) if name in places else Pieces.whole(tensor)
            for name, tensor in tensors.items()
        }

    @torch.no_grad()
    def whole(self, make_empty: Callable[[], LanguageModel]) -> LanguageModel:
        """A whole copy on every process, put together by one message a tensor."""
        model = make_empty().to(self.world.device)
        held = {item.name: item for item in self.held if item.is_owner}
        buffers = self._buffers() if self._is_owner() else {}
        for name, tensor in model_tensors(model).items():
            tensor.zero_()
            if name in buffers:
                tensor.copy_(buffers[name])
            if name in held:
                for offsets, piece in held[name].place.pieces(held[name].local).parts:
                    tensor[tuple(slice(o, o + n) for o, n in zip(offsets, piece.shape, strict=True))] = piece
            self.world.sum(tensor)
        return model

    def _backward(self, number: int, batch: Batch, scale: Tensor, seed: str) -> Losses:
        seed_chance(f"{seed} {number}{self._salt}")
        losses = losses_of(self.modules[0], batch, self.config).scaled(scale)
        torch.autograd.backward(losses.total)
        return losses.detached()

    @property
    def _salt(self) -> str:
        """Processes that hold different tokens of a sample must not drop the same units."""
        return f" part {self.coordinate['tensor']}" if self.config.sequence_parallel else ""

    def _run_pipeline(self, batches: Sequence[Batch], scale: Tensor, numbers: Sequence[int], seed: str) -> Losses:
        group = self.mesh.get_group("pipeline")
        if self.pipeline is None:
            count = self.layout.pipeline * self.config.pipeline_chunks
            self.pipeline = Pipeline(self.stages, count, batches[0], len(batches), group)
        self.pipeline.run(batches, scale, numbers, f"{seed}{self._salt}")
        return self._tell_all_stages(group)

    def _tell_all_stages(self, group: dist.ProcessGroup) -> Losses:
        """What all stages lose together, on each of them."""
        names = self.models[0].loss_names
        told = torch.zeros(2 + len(names), device=self.world.device)
        for stage in self.stages:
            for losses in stage.told:
                parts = (losses.extra.get(name, torch.zeros_like(losses.nats)) for name in names)
                told += torch.stack([losses.total, losses.nats, *parts])
            stage.told.clear()
        dist.all_reduce(told, group=group)
        total, nats, *extra = told.unbind()
        return Losses(total, nats, dict(zip(names, extra, strict=True)))

    def _sum_gradients(self) -> None:
        waiting: dict[dist.ProcessGroup, list[Tensor]] = defaultdict(list)
        for held in self.held:
            held.fetch_gradient()
            for group in held.groups if held.local.grad is not None else ():
                waiting[group].append(cast(Tensor, held.local.grad))
        for group, gradients in waiting.items():
            sum_gradients(gradients, group)

    def _cut_stages(self, model: LanguageModel) -> list[Stage]:
        """This process's stages, every `pipeline`-th of all; none without a pipeline."""
        if self.layout.pipeline == 1:
            return []
        count = self.layout.pipeline * self.config.pipeline_chunks
        numbers = range(self.coordinate["pipeline"], count, self.layout.pipeline)
        return [Stage(_shallow_copy(model), number, count, self.config) for number in numbers]

    def _cut_tensors(self, model: LanguageModel) -> dict[str, list[int]]:
        if self.layout.tensor == 1:
            return {}
        return cut_tensors(cast(Llama, model), self.mesh["tensor"], sequence=self.config.sequence_parallel)

    def _spread_experts(self, model: LanguageModel) -> set[str]:
        return spread_experts(model, self.mesh.get_group("expert")) if self.layout.expert > 1 else set()

    def _tied_group(self) -> dist.ProcessGroup | None:
        """First and last stage, where both hold the embedding."""
        model = self.models[0]
        if not self.stages or not (model.config.tied_embeddings or model.embeds_labels):
            return None
        ranks = self.mesh.mesh.movedim(0, -1).reshape(-1, self.layout.pipeline)[:, [0, -1]]
        groups = {tuple(pair): dist.new_group(pair) for pair in ranks.tolist()}
        return next((group for pair, group in groups.items() if self.world.rank in pair), None)

    def _hold(self, number: int) -> list[Held]:
        """The parameters of one of this process's models."""
        model = self.models[number]
        stage = self.stages[number] if self.stages else None
        held = []
        for name, parameter in model.named_parameters():
            is_expert = name in self.spread[number]
            dimensions = cut_dimensions(parameter) | ({"expert"} if is_expert else set())
            whole_name = self._whole_name(number, name)
            is_copy = stage is not None and not stage.is_first and whole_name == "embedding.weight"
            held.append(
                Held(
                    name=whole_name,
                    parameter=parameter,
                    local=local_of(parameter),
                    place=self._place(number, name, parameter),
                    is_owner=not is_copy and self._is_owner(dimensions),
                    groups=self._groups(whole_name, dimensions),
                )
            )
        return held

    def _whole_name(self, number: int, name: str) -> str:
        return self.stages[number].whole_name(name) if self.stages else name

    def _is_owner(self, cut: Collection[str] = ()) -> bool:
        """Whether this process is the first of those that hold the same of what these dimensions and stages cut."""
        return all(self.coordinate[name] == 0 for name in self.coordinate if name not in {*cut, "pipeline"})

    def _buffers(self) -> dict[str, Tensor]:
        """State of this process's models that is not trained, by its names in the whole model."""
        names = [{name for name, _ in model.named_parameters()} for model in self.models]
        return {
            self._whole_name(number, name): tensor
            for number, model in enumerate(self.models)
            for name, tensor in model_tensors(model).items()
            if name not in names[number]
        }

    def _place(self, number: int, name: str, parameter: nn.Parameter) -> Place:
        if name in self.spread[number]:
            return place_among(parameter, self.layout.expert, self.coordinate["expert"])
        rows = self.fused[number].get(name, ())
        return place_of(parameter, rows, self.layout.tensor, self.coordinate["tensor"])

    def _groups(self, whole_name: str, dimensions: set[str]) -> tuple[dist.ProcessGroup, ...]:
        """Those that the backward pass leaves to be summed over."""
        same = self.mesh.get_group("replicate") if "expert" in dimensions else self.data_group
        groups = [same] if self.layout.shard == 1 and same.size() > 1 else []
        if self.config.sequence_parallel and "tensor" not in dimensions:
            groups.append(self.mesh.get_group("tensor"))
        if self.tied_group is not None and whole_name == "embedding.weight":
            groups.append(self.tied_group)
        return tuple(groups)


def _group(mesh: DeviceMesh, dimensions: tuple[str, ...]) -> dist.ProcessGroup:
    return mesh[dimensions]._flatten().get_group()


def _shallow_copy(model: LanguageModel) -> LanguageModel:
    """Another model of the same blocks, so that each stage can leave some out."""
    copy = object.__new__(type(model))
    copy.__dict__.update(model.__dict__)
    for registry in ("_modules", "_parameters", "_buffers"):
        copy.__dict__[registry] = dict(model.__dict__[registry])
    return copy
