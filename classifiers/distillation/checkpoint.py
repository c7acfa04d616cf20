"""Checkpoints of a training: two safetensors files, each written whole or not at all, replaced after every epoch.

Invariant: a checkpoint belongs to one identity (settings, base model, examples); one of another training is not taken
up. The best weights are written before the checkpoint that speaks of them, so a kill in between costs one epoch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.commit import write_atomically

if TYPE_CHECKING:
    import torch

    from classifiers.distillation.loop import Progress

_LAST, _BEST = "last.safetensors", "best.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class CheckpointFolder:
    """Where the checkpoints of one training lie."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder / identity

    def save(self, learning: Mapping[str, torch.Tensor], optimizer: Any, progress: Progress) -> None:
        from safetensors.torch import save

        tensors = {f"weight.{name}": each.detach().cpu().contiguous() for name, each in learning.items()}
        for name, each in learning.items():
            state = optimizer.state[each]
            tensors |= {f"{moment}.{name}": state[moment].cpu().contiguous() for moment in _MOMENTS}
        write_atomically(self.folder / _LAST, save(tensors, {"progress": json.dumps(asdict(progress))}))

    def load(self, learning: Mapping[str, torch.Tensor], optimizer: Any) -> Progress | None:
        """Set weights and moments to those of the checkpoint; None, and nothing changed, where there is none."""
        from safetensors import safe_open

        from classifiers.distillation.loop import Progress

        if not (self.folder / _LAST).is_file():
            return None
        with safe_open(self.folder / _LAST, "pt") as file:
            _set_weights(learning, file)
            for name, each in learning.items():
                state = {moment: file.get_tensor(f"{moment}.{name}") for moment in _MOMENTS}
                optimizer.state[each] = {
                    moment: tensor if moment == "step" else tensor.to(each.device) for moment, tensor in state.items()
                }
            return Progress(**json.loads(file.metadata()["progress"]))

    def save_best(self, learning: Mapping[str, torch.Tensor]) -> None:
        from safetensors.torch import save

        weights = {f"weight.{name}": each.detach().cpu().contiguous() for name, each in learning.items()}
        write_atomically(self.folder / _BEST, save(weights))

    def load_best(self, learning: Mapping[str, torch.Tensor]) -> None:
        from safetensors import safe_open

        with safe_open(self.folder / _BEST, "pt") as file:
            _set_weights(learning, file)

    def remove(self) -> None:
        """Once the model is saved, nothing of this is needed."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # another training's lie there, too
            self.folder.parent.rmdir()


def _set_weights(learning: Mapping[str, torch.Tensor], file: Any) -> None:
    for name, each in learning.items():
        each.data.copy_(file.get_tensor(f"weight.{name}"))
