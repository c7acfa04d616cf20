"""How a context is laid out before a model that goes on from it: as training would lay it out.

Where documents are kept apart, only what stands behind the last end-of-document is seen; a context that is empty then
is one end-of-document, whose successor does not see it. Positions start anew behind it where training does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.compute import autocast
from trainer.data.batches import cut_documents
from trainer.models.contract import LanguageModel
from trainer.models.memory import NOTHING, Memory
from trainer.settings import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Context:
    """Ids to be read with their places (what is seen of them) and positions; `place` and `position` come next."""

    ids: tuple[int, ...]
    places: tuple[int, ...]
    positions: tuple[int, ...]
    place: int
    position: int


def lay_out(ids: Sequence[int], end_of_document: int, config: TrainingConfig) -> Context:
    """The context of whatever follows `ids`."""
    seen = list(ids)
    if config.reset_attention_mask and end_of_document in seen:
        seen = seen[len(seen) - seen[::-1].index(end_of_document) :]
    if not seen:
        return Context(ids=(end_of_document,), places=(NOTHING,), positions=(0,), place=0, position=0)
    positions = list(range(len(seen) + 1))
    if config.reset_position_ids:
        positions = cut_documents(np.array([[*seen, end_of_document]]), end_of_document)[1][0].tolist()
    return Context(
        ids=tuple(seen),
        places=tuple(range(len(seen))),
        positions=tuple(positions[:-1]),
        place=len(seen),
        position=positions[-1],
    )


@torch.no_grad()
def read_rows(
    model: LanguageModel,
    memory: Memory,
    rows: Sequence[tuple[Sequence[int], Sequence[int], Sequence[int]]],
    config: TrainingConfig,
) -> Tensor:
    """The states [B, T, hidden] of rows of (ids, places, positions), filled up behind; the memory grows by them."""
    longest, device = max(len(ids) for ids, _, _ in rows), next(model.parameters()).device
    ids_BT, places_BT, positions_BT = (
        torch.tensor([[*row[part], *[filling] * (longest - len(row[part]))] for row in rows], device=device)
        for part, filling in enumerate((0, NOTHING, 0))
    )
    memory.expect(places_BT)
    with autocast(device, config):
        return model.states(ids_BT, positions_BT, memory)


@torch.no_grad()
def logits_of(model: LanguageModel, states: Tensor, config: TrainingConfig) -> Tensor:
    """Logits [..., vocabulary] of states, in float32."""
    with autocast(states.device, config):
        return model.head(states).float()  # type: ignore[no-any-return]
