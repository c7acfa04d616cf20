"""How the products are computed here: precision, threads, documents."""

from __future__ import annotations

import ctypes
import os
import shutil
from typing import cast

import torch
from torch import Tensor, nn

from storage.errors import EnvironmentMismatch
from trainer.data.batches import Batch
from trainer.models.contract import LanguageModel, Losses
from trainer.settings import TrainingConfig

CPP_COMPILERS = ("g++", "c++", "clang++")
TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""glibc's numbers for them, from malloc.h."""


def choose_precision(device: torch.device) -> str:
    """bf16 on a GPU and on processors that multiply it (three times float32's tokens/s on AVX-512 bf16), else fp32."""
    if device.type != "cpu":
        return "bf16"
    able = torch.cpu.get_capabilities()
    return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") else "fp32"


def usable_threads(asked: int) -> int:
    """No more threads than cores this process may use: two on one core run up to 15 times slower than one."""
    return max(1, min(asked, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))


def keep_freed_memory() -> None:
    """Have glibc keep what a step frees for the next one, instead of giving it back to the system.

    A step of 1.3 M parameters took 8,600 pages anew, 15 % of its CPU seconds. With another C library nothing happens.
    """
    if set_option := getattr(ctypes.CDLL(None), "mallopt", None):
        set_option(MMAP_MAX, 0)
        set_option(TRIM_THRESHOLD, 2**31 - 1)


def refuse_without_compiler(config: TrainingConfig, device: torch.device) -> None:
    """Raise EnvironmentMismatch where `compile` is asked for on a CPU, and there is no C++ compiler."""
    if not config.compile or device.type != "cpu" or any(map(shutil.which, CPP_COMPILERS)) or "CXX" in os.environ:
        return
    raise EnvironmentMismatch(
        f"`--compile` on a CPU needs a C++ compiler; there is none of {', '.join(CPP_COMPILERS)}",
        hint="install g++, name one in the variable CXX, or train with `--no-compile`",
    )


def autocast(device: torch.device, config: TrainingConfig) -> torch.autocast:
    """bfloat16 matrix products with float32 weights, or float32 throughout."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")


def separate_documents(batch: Batch, config: TrainingConfig) -> Tensor | None:
    """The documents that attention keeps apart; none where it may look past them (causal)."""
    return batch.documents if config.reset_attention_mask else None


def losses_of(model: nn.Module, batch: Batch, config: TrainingConfig) -> Losses:
    """What the model loses on a batch."""
    documents = separate_documents(batch, config)
    with autocast(batch.labels.device, config):
        return cast(Losses, model(batch.tokens, batch.positions, documents, batch.labels, batch.weights))


def hand_on(model: LanguageModel, batch: Batch, config: TrainingConfig) -> tuple[Tensor, Losses]:
    """The states that a stage without the model's end hands on, and what its blocks lose by themselves."""
    with autocast(batch.labels.device, config):
        return model.hand_on(batch.tokens, batch.positions, separate_documents(batch, config), batch.weights)
