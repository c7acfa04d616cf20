"""Where a model runs, in what format and on how many threads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def choose_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def set_threads(threads: int) -> None:
    """torch's, and the tokenizer's where whoever started the process has not set them."""
    import torch

    torch.set_num_threads(threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false" if threads == 1 else "true")
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`name` spelled out; "auto" is bfloat16 where the processor multiplies it in hardware, else float32."""
    import torch

    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    # Not public in torch 2.13; where they are gone, float32 is right everywhere and three times slower.
    tests = [getattr(torch.cpu, test, None) for test in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return torch.bfloat16 if any(test is not None and test() for test in tests) else torch.float32
