"""The two ways of token rows through a model: packed end to end where we know its architecture, else padded.

Both run the same code on a GPU and on a CPU. Packed rows of a pass hold `batch_tokens` tokens together, in the order
given; padded ones are sorted by length, because every document of a batch costs as much as its longest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from classifiers.encoders.packed import LEAST_ROWS, PackedEncoder
from classifiers.encoders.tokens import TokenRows
from classifiers.encoders.transfers import Pending, Transfers

if TYPE_CHECKING:
    import torch

GPU_BATCH_TOKENS = 65_536
CPU_PACK_TOKENS = 1024
"""Four documents of 256 tokens: their widest states, 3 MB in bfloat16 at 1,536 wide, stay in a core's caches."""


class Forward(Protocol):
    """A model on a device: plans passes, and runs one."""

    device: torch.device

    def plan(self, lengths: Sequence[int], batch_tokens: int | None) -> list[list[int]]:
        """Row numbers, one list a pass; `batch_tokens` None is what suits the device."""

    def __call__(self, rows: TokenRows) -> Pending:
        """Start one pass; what it returns waits for float32[N, width]."""


class PackedForward:
    """Rows end to end through a PackedEncoder; `read(states_TD, offsets) -> [N, width]`."""

    def __init__(
        self,
        encoder: PackedEncoder,
        device: torch.device,
        read: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> None:
        self.device = device
        self._transfers = Transfers(device)
        self._encoder = encoder
        self._read = read

    def plan(self, lengths: Sequence[int], batch_tokens: int | None) -> list[list[int]]:
        return plan_packs(lengths, batch_tokens or (CPU_PACK_TOKENS if self.device.type == "cpu" else GPU_BATCH_TOKENS))

    def __call__(self, rows: TokenRows) -> Pending:
        import torch

        num_rows, rows = len(rows), _filled(rows)
        positions = np.arange(len(rows.ids)) - np.repeat(rows.offsets[:-1], rows.lengths) + self._encoder.first_position
        with torch.inference_mode():
            ids, places, offsets = self._transfers.up(rows.ids.astype(np.int64), positions, rows.offsets)
            states = self._encoder(ids, places, rows.offsets.tolist())
            return self._transfers.down(self._read(states, offsets)[:num_rows])


class PaddedForward:
    """A transformers model over a batch of rows, padded to the longest; `read(output, mask_BT)` gives [B, width]."""

    def __init__(self, model: Any, device: torch.device, read: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        self.device = device
        self._transfers = Transfers(device)
        self._model = model.to(device)
        self._read = read
        self._padding = model.config.pad_token_id or 0

    def plan(self, lengths: Sequence[int], batch_tokens: int | None) -> list[list[int]]:
        return plan_batches(lengths, batch_tokens or (1 if self.device.type == "cpu" else GPU_BATCH_TOKENS))

    def __call__(self, rows: TokenRows) -> Pending:
        import torch

        lengths = rows.lengths
        mask_BT = np.arange(lengths.max()) < lengths[:, None]
        ids_BT = np.full(mask_BT.shape, self._padding, np.int64)
        ids_BT[mask_BT] = rows.ids
        with torch.inference_mode():
            ids, mask = self._transfers.up(ids_BT, mask_BT.astype(np.int64))
            return self._transfers.down(self._read(self._model(input_ids=ids, attention_mask=mask), mask))


def _filled(rows: TokenRows) -> TokenRows:
    """With one more row of zeros where there are fewer tokens than a matrix product needs to be the same for all."""
    missing = LEAST_ROWS - len(rows.ids)
    if missing <= 0:
        return rows
    return TokenRows(np.append(rows.ids, np.zeros(missing, np.int32)), np.append(rows.offsets, LEAST_ROWS))


def plan_packs(lengths: Sequence[int], pack_tokens: int) -> list[list[int]]:
    """Row numbers in order, such that the rows of a pass have at most `pack_tokens` together; at least one in each."""
    packs: list[list[int]] = []
    room = 0
    for row, length in enumerate(lengths):
        if not packs or length > room:
            packs.append([])
            room = pack_tokens
        packs[-1].append(row)
        room -= length
    return packs


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Row numbers in batches, longest first, such that rows x longest <= `batch_tokens`; at least one row in each."""
    batches: list[list[int]] = []
    room = 0
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if room == 0:
            batches.append([])
            room = max(1, batch_tokens // max(1, lengths[row]))
        batches[-1].append(row)
        room -= 1
    return batches
