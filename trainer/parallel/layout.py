"""How processes are laid out: pipeline × replicate × expert × shard × tensor, the last ones nearest to each other.

Processes that differ in replicate, expert or shard take different samples; those that differ in pipeline or tensor work
on the same ones. A layout that cannot be is refused, with all reasons, before anything starts.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, fields

from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from storage.errors import CurationError
from trainer.models.contract import ModelConfig
from trainer.settings import TrainingConfig

DATA = ("replicate", "expert", "shard")


class LayoutError(CurationError):
    """So many processes cannot train this model in this way."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Processes in each dimension, the outermost first; their product is the number of processes."""

    pipeline: int = 1
    replicate: int = 1
    expert: int = 1
    shard: int = 1
    tensor: int = 1

    @property
    def size(self) -> int:
        return math.prod(astuple(self))

    @property
    def data(self) -> int:
        """Processes that take different samples."""
        return self.replicate * self.expert * self.shard

    @property
    def is_plain(self) -> bool:
        """Every process holds the whole model."""
        return self.size == self.replicate

    def __str__(self) -> str:
        told = [f"{item.name} {getattr(self, item.name)}" for item in fields(self) if getattr(self, item.name) > 1]
        return " × ".join(told) or "one process"

    def mesh(self, device_type: str) -> DeviceMesh:
        """All processes as a mesh with a name for each dimension; every process must call."""
        return init_device_mesh(device_type, astuple(self), mesh_dim_names=tuple(item.name for item in fields(self)))


def plan_layout(config: TrainingConfig, model: ModelConfig, num_processes: int) -> Layout:
    """The layout that the settings ask for. Raises LayoutError that lists everything against it."""
    told = {
        "pipeline": config.pipeline_parallel,
        "expert": config.expert_parallel,
        "shard": config.data_parallel_shard,
        "tensor": config.tensor_parallel,
    }
    model_processes = math.prod(told.values())
    if num_processes % model_processes:
        asked = " × ".join(f"{name} {size}" for name, size in told.items() if size > 1)
        raise LayoutError(
            f"{asked} takes a multiple of {model_processes} processes; there are {num_processes}",
            hint=f"start `torchrun --nproc-per-node {model_processes}`, or lower one of them",
        )
    layout = Layout(replicate=num_processes // model_processes, **told)
    faults = [
        *_batch_faults(config, layout),
        *_tensor_faults(config, model),
        *_pipeline_faults(config, model, layout),
        *_expert_faults(config, model),
    ]
    if config.compile and not layout.is_plain:
        faults.append("`compile` is for whole models on every process only")
    if faults:
        listed = "\n".join(f"    {fault}" for fault in faults)
        raise LayoutError(f"this layout cannot be:\n{listed}", hint="mend these and start again")
    return layout


def _batch_faults(config: TrainingConfig, layout: Layout) -> list[str]:
    """A step's samples must fall to the processes in whole micro-batches."""
    if config.global_batch % (config.micro_batch * layout.data) == 0:
        return []
    if config.global_batch % layout.data:
        mended = f"give a `--global-batch` that is a multiple of {layout.data}"
    else:
        mended = f"give `--micro-batch {math.gcd(config.global_batch // layout.data, config.micro_batch)}`"
    return [
        f"a step of {config.global_batch} samples cannot be shared by {layout.data} processes in batches of "
        f"{config.micro_batch}: {mended}"
    ]


def _tensor_faults(config: TrainingConfig, model: ModelConfig) -> list[str]:
    size = config.tensor_parallel
    if size == 1:
        return ["`sequence_parallel` goes with `tensor_parallel`, which is 1"] if config.sequence_parallel else []
    if model.kind != "llama":
        others = "`data_parallel_shard`, `pipeline_parallel`" + (", `expert_parallel`" * hasattr(model, "num_experts"))
        return [f"`tensor_parallel` is for models of kind llama; this one is {model.kind}: take {others}"]
    names = ["num_heads", "num_kv_heads", "ffn_size", "vocabulary_size"]
    faults = [
        f"`{name}` is {getattr(model, name)}; it must be a multiple of `tensor_parallel` {size}"
        for name in names
        if getattr(model, name) % size
    ]
    if config.sequence_parallel and config.sequence_length % size:
        faults.append(f"`sequence_length` is {config.sequence_length}; it must be a multiple of {size}")
    if model.hidden_size % config.data_parallel_shard:
        faults.append(f"`hidden_size` is {model.hidden_size}; with tensors cut, shards must divide it")
    return faults


def _pipeline_faults(config: TrainingConfig, model: ModelConfig, layout: Layout) -> list[str]:
    if config.pipeline_parallel == 1:
        return ["`pipeline_chunks` goes with `pipeline_parallel`, which is 1"] if config.pipeline_chunks > 1 else []
    stages, faults = config.pipeline_parallel * config.pipeline_chunks, []
    if model.num_layers < stages:
        faults.append(f"`num_layers` is {model.num_layers}; {stages} stages need at least one each")
    micro_batches = config.global_batch // (config.micro_batch * layout.data)
    if micro_batches < stages:
        faults.append(f"a step has {micro_batches} micro-batches for a process; {stages} stages need as many")
    if config.pipeline_chunks > 1 and micro_batches % config.pipeline_parallel:
        faults.append(f"{micro_batches} micro-batches are no multiple of `pipeline_parallel`, as chunks need it")
    return faults


def _expert_faults(config: TrainingConfig, model: ModelConfig) -> list[str]:
    size = config.expert_parallel
    if size == 1:
        return []
    num_experts = getattr(model, "num_experts", 0)
    if not num_experts:
        return [f"`expert_parallel` is for models with experts; this one is {model.kind}"]
    if num_experts % size:
        return [f"`num_experts` is {num_experts}; it must be a multiple of `expert_parallel` {size}"]
    return []
