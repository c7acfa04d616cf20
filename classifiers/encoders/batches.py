"""Token rows through a model in batches: sorted by length, halved where the device has no memory, results in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from classifiers.encoders.tokens import TokenRows
from storage.errors import ResourceError

if TYPE_CHECKING:
    import torch

GPU_BATCH_TOKENS = 65_536


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


class PaddedForward:
    """A transformers model over a batch of rows, padded to the longest; `read(output, mask_BT)` gives [B, width]."""

    def __init__(self, model: Any, device: torch.device, read: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        self.device = device
        self._model = model.to(device)
        self._read = read
        self._padding = model.config.pad_token_id or 0

    def __call__(self, rows: TokenRows) -> npt.NDArray[np.float32]:
        import torch

        lengths = rows.lengths
        mask_BT = np.arange(lengths.max()) < lengths[:, None]
        ids_BT = np.full(mask_BT.shape, self._padding, np.int64)
        ids_BT[mask_BT] = rows.ids
        with torch.inference_mode():
            ids, mask = (torch.from_numpy(array).to(self.device) for array in (ids_BT, mask_BT.astype(np.int64)))
            read = self._read(self._model(input_ids=ids, attention_mask=mask), mask)
        result: npt.NDArray[np.float32] = read.float().cpu().numpy()
        return result


class Batches:
    """Rows through `forward` in batches of at most `batch_tokens` padded tokens, which shrink where memory is short.

    `batch_tokens` None is one row alone on the CPU, 65,536 tokens on a GPU.
    """

    def __init__(self, forward: PaddedForward, width: int, batch_tokens: int | None) -> None:
        self._forward = forward
        self._width = width
        self._batch_tokens = batch_tokens or (1 if forward.device.type == "cpu" else GPU_BATCH_TOKENS)

    def __call__(self, rows: TokenRows) -> npt.NDArray[np.float32]:
        """float32[N, width], row for row. Raises ResourceError where one row alone does not fit the device."""
        results = np.empty((len(rows), self._width), np.float32)
        queue = plan_batches(rows.lengths.tolist(), self._batch_tokens)[::-1]
        while queue:
            batch = queue.pop()
            computed = self._forward_or_none(rows.take(batch))
            if computed is None:
                middle = len(batch) // 2
                queue += [batch[middle:], batch[:middle]]
            else:
                results[batch] = computed
        return results

    def _forward_or_none(self, rows: TokenRows) -> npt.NDArray[np.float32] | None:
        """The results of one batch, or None when the device has no memory for it and half of it may fit."""
        import torch

        try:
            return self._forward(rows)
        except torch.OutOfMemoryError as error:
            if len(rows) == 1:
                raise ResourceError(
                    f"the {self._forward.device.type} has no memory for one document of {rows.offsets[-1]} tokens",
                    at=str(self._forward.device),
                    hint="lower `max_tokens`, free the device, or choose a smaller model",
                ) from error
        self._batch_tokens = min(self._batch_tokens, len(rows) * int(rows.lengths.max()) // 2)
        torch.cuda.empty_cache()
        return None
