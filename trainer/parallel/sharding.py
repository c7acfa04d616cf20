"""FSDP2: weights, gradients and moments are all cut, and a layer's weights gathered while it computes.

It was preferred to ZeRO-1 since it saves more, shards what tensor parallelism has cut, and gathers in bfloat16 while
the gradients are summed in float32. Experts that are spread already are cut among the processes that have the same
ones, everything else among those of both dimensions, so that each number lies on one process.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard

from trainer.models.contract import LanguageModel
from trainer.models.deepseek_v3 import LatentAttention
from trainer.models.experts import Experts
from trainer.models.gpt_neo import Attention as LearnedAttention
from trainer.models.gpt_neo import FeedForward
from trainer.models.layers import SwiGLU
from trainer.models.llama import Attention
from trainer.parallel.layout import Layout

ALL = "expert_shard"
"""The dimensions of experts and shards as one."""
PRODUCTS = (Attention, LatentAttention, LearnedAttention, SwiGLU, FeedForward, Experts)
"""Modules whose weights are gathered in bfloat16, where products are computed in it."""


class Sharding:
    """How this process's models are sharded; every process must make one."""

    def __init__(self, mesh: DeviceMesh, layout: Layout, precision: str) -> None:
        mesh["expert", "shard"]._flatten(ALL)
        self.mesh, self.layout = mesh, layout
        self.gathered = torch.bfloat16 if precision == "bf16" else None

    def shard(self, model: LanguageModel, root: nn.Module) -> None:
        """Cut the weights of `model`, which `root` is or holds."""
        for module in list(model.modules()):
            is_spread = isinstance(module, Experts) and self.layout.expert > 1
            if is_spread or (self.gathered and isinstance(module, PRODUCTS)):
                self._cut(module, among="shard" if is_spread else ALL, gathered=self.gathered)
        for layer in model.layers:
            self._cut(layer)
        self._cut(root)
        for module in root.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(self.mesh.device_type == "cpu")

    def _cut(self, module: nn.Module, *, among: str = ALL, gathered: torch.dtype | None = None) -> None:
        """What is not cut yet of the module, among the processes of one dimension; `replicate` ones hold the same."""
        options: dict[str, Any] = {"param_dtype": gathered, "reduce_dtype": torch.float32, "cast_forward_inputs": False}
        fully_shard(
            module,
            mesh=self.mesh["replicate", among] if self.layout.replicate > 1 else self.mesh[among],
            shard_placement_fn=_shard_dimension,
            mp_policy=MixedPrecisionPolicy(**options),
        )


def cut_dimensions(parameter: nn.Parameter) -> set[str]:
    """The dimensions of the mesh that PyTorch cuts the parameter along."""
    if not isinstance(parameter, DTensor):
        return set()
    placed = zip(parameter.device_mesh.mesh_dim_names or (), parameter.placements, strict=True)
    cut = {name for name, placement in placed if not placement.is_replicate()}
    return cut | ({"expert", "shard"} if ALL in cut else set())


def _shard_dimension(parameter: nn.Parameter) -> Shard | None:
    """Across what tensor parallelism cuts, so that every process holds a rectangle."""
    is_cut = isinstance(parameter, DTensor) and parameter.placements[0] == Shard(0)
    return Shard(1) if is_cut and parameter.dim() > 1 else None
