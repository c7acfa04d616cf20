"""The checkpoint that a run starts from: its weights, and where it is asked for its optimizer's moments.

The run's identity counts the parent's content and not its path, so a moved parent is the same one; it must stay
where it can be found until the run is done. Step, data position and random states start anew.
"""

from __future__ import annotations

from pathlib import Path

import torch

from storage.errors import ModelError
from trainer.checkpoints.folders import Checkpoint, find_checkpoint
from trainer.parallel.shares import Share
from trainer.registry.search import located


def find_parent(init_from: str, vocabulary_sha256: str) -> Checkpoint | None:
    """The checkpoint named by `init_from`, None without one. Raises ModelError for another tokenizer's."""
    if not init_from:
        return None
    checkpoint = find_checkpoint(located(Path(init_from)))
    learned = checkpoint.state["run"]["vocabulary"]
    if learned != vocabulary_sha256:
        raise ModelError(
            f"the model to start from learned tokenizer {learned[:12]}…, the mixture is of {vocabulary_sha256[:12]}…",
            at=str(checkpoint.folder),
            hint="start from a checkpoint of the same vocabulary, or make the mixture with its tokenizer",
        )
    return checkpoint


def start_from(parent: Checkpoint, share: Share, optimizer: torch.optim.Optimizer | None) -> None:
    """Read the parent's weights, and its moments where an optimizer is given."""
    training = share.moments(optimizer) if optimizer else {}
    parent.restore(model=share.tensors(), training=training, group=share.world.files)
