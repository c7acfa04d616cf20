"""How many processes train together, and what they add up: one without torchrun, else as many as it started.

Data parallel only: every process holds the whole model, takes its samples of each step, and gradients are averaged by
PyTorch's DistributedDataParallel over gloo (CPU) or NCCL (GPU).
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from storage.errors import ResourceError
from trainer.parallel.roll_call import LostWorker, RollCall

TIMEOUT_MINUTES = 30.0

BROKEN = re.compile(r"gloo|NCCL|[Cc]onnection|[Tt]imed? ?out", re.ASCII)
"""In what PyTorch says when messages between processes fail."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among `size`; `device` is its own."""

    rank: int
    size: int
    device: torch.device
    files: dist.ProcessGroup | None = None
    """For what processes agree on about files, beside the training's own messages; none when alone."""
    roll_call: RollCall | None = None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def first(self, compute: Callable[[], T]) -> T:
        """What `compute` gives, or raises, on the first process, on all of them."""
        if self.size == 1:
            return compute()
        answer: list[Any] = [None, None]
        if self.is_first:
            try:
                answer = [compute(), None]
            except Exception as error:
                answer = [None, error]
        dist.broadcast_object_list(answer, group=self.files)
        if answer[1] is not None:
            raise answer[1]
        return cast(T, answer[0])

    @contextmanager
    def together(self, place: str) -> Iterator[None]:
        """What runs inside needs all processes: LostWorker in place of the broken messages when one is lost."""
        try:
            yield
        except RuntimeError as error:
            if self.roll_call is None or not BROKEN.search(str(error)):
                raise
            raise LostWorker(
                f"{self.roll_call.lost()}; process {self.rank} was waiting at step {self.roll_call.step}",
                at=place,
                hint="start again: the run goes on from its last checkpoint; `torchrun --max-restarts 3` does that",
            ) from error

    def at(self, step: int) -> None:
        """Say which step this process is about to do."""
        if self.roll_call:
            self.roll_call.step = step

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()

    def share(self, model: nn.Module) -> nn.Module:
        """The model, its gradients averaged over the processes after each backward pass."""
        return DistributedDataParallel(model, forward_sync_buffers=False) if self.size > 1 else model

    def accumulate(self, model: nn.Module) -> AbstractContextManager[None]:
        """While gradients of one step are still being added up, processes need not exchange them."""
        return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


@contextmanager
def join_world(device: str, timeout_minutes: float = TIMEOUT_MINUTES) -> Iterator[World]:
    """Join torchrun's processes (RANK, WORLD_SIZE, LOCAL_RANK), or be alone. `device` is auto, cpu or cuda.

    Messages between processes fail after the timeout. Raises ResourceError when cuda is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ResourceError("there is no CUDA GPU here", hint="give `--device cpu`, or `--device auto`")
    use_gpu = device != "cpu" and torch.cuda.is_available()
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if use_gpu else torch.device("cpu")
    if use_gpu:
        torch.cuda.set_device(own)
    if size == 1:
        yield World(rank=0, size=1, device=own)
        return
    # Imported by every optimizer, and whoever imports it while a process group exists keeps that group, and its
    # threads, alive after `destroy_process_group`: a gloo thread that outlives the interpreter aborts the process.
    importlib.import_module("torch._dynamo")
    timeout = timedelta(minutes=timeout_minutes)
    found, _, _ = next(rendezvous("env://", timeout=timeout))
    # torchrun keeps its store when it starts processes again: those before left addresses there that are no more.
    start = f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    store, beats = PrefixStore(start, found), PrefixStore(start, found.clone())
    dist.init_process_group("nccl" if use_gpu else "gloo", store=store, rank=rank, world_size=size, timeout=timeout)
    try:
        files = dist.new_group(backend="gloo", timeout=timeout)
        with RollCall(beats, rank, size) as roll_call:
            yield World(rank=rank, size=size, device=own, files=files, roll_call=roll_call)
    finally:
        dist.destroy_process_group()
