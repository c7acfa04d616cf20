"""Token rows through a model, pass by pass: halved where the device has no memory, results in the rows' order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from classifiers.encoders.forwards import Forward
from classifiers.encoders.tokens import TokenRows
from storage.errors import ResourceError


class Batches:
    """Rows through `forward` in passes of at most `batch_tokens` tokens, which shrink where memory is short."""

    def __init__(self, forward: Forward, width: int, batch_tokens: int | None) -> None:
        self._forward = forward
        self._width = width
        self._batch_tokens = batch_tokens

    def __call__(self, rows: TokenRows) -> npt.NDArray[np.float32]:
        """float32[N, width], row for row. Raises ResourceError where one row alone does not fit the device."""
        results = np.empty((len(rows), self._width), np.float32)
        queue = self._forward.plan(rows.lengths.tolist(), self._batch_tokens)[::-1]
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
        """The results of one pass, or None when the device has no memory for it and half of it may fit."""
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
        halved = len(rows) * int(rows.lengths.max()) // 2
        self._batch_tokens = min(self._batch_tokens or halved, halved)
        torch.cuda.empty_cache()
        return None
