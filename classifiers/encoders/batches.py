"""Token rows through a model, pass by pass: halved where the device has no memory, results in the rows' order.

On a GPU two passes are under way: while one is computed, the next is laid out and copied up. Never more, so memory on
both sides is bounded whatever the number of rows.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from classifiers.encoders.forwards import Forward
from classifiers.encoders.tokens import TokenRows
from classifiers.encoders.transfers import Pending
from storage.errors import ResourceError

UNDER_WAY = {"cpu": 1}
GPU_UNDER_WAY = 2


class Batches:
    """Rows through `forward` in passes of at most `batch_tokens` tokens, which shrink where memory is short."""

    def __init__(self, forward: Forward, width: int, batch_tokens: int | None) -> None:
        self.device = forward.device
        self._forward = forward
        self._width = width
        self._batch_tokens = batch_tokens
        self._under_way = UNDER_WAY.get(forward.device.type, GPU_UNDER_WAY)

    def __call__(self, rows: TokenRows) -> npt.NDArray[np.float32]:
        """float32[N, width], row for row. Raises ResourceError where one row alone does not fit the device."""
        results = np.empty((len(rows), self._width), np.float32)
        queue = self._forward.plan(rows.lengths.tolist(), self._batch_tokens)[::-1]
        waiting: deque[tuple[list[int], Pending]] = deque()
        while queue or waiting:
            if not queue or len(waiting) == self._under_way:
                done, pending = waiting.popleft()
                results[done] = pending()
                continue
            batch = queue.pop()
            started = self._start_or_none(rows.take(batch), alone=not waiting)
            if started is not None:
                waiting.append((batch, started))
            elif waiting:  # what they hold may be all that is missing
                queue.append(batch)
                results = _collect(waiting, results)
            else:
                middle = len(batch) // 2
                queue += [batch[middle:], batch[:middle]]
        return results

    def _start_or_none(self, rows: TokenRows, *, alone: bool) -> Pending | None:
        """The pass started, or None when the device has no memory for it now."""
        import torch

        try:
            return self._forward(rows)
        except torch.OutOfMemoryError as error:
            if alone and len(rows) == 1:
                raise ResourceError(
                    f"the {self.device.type} has no memory for one document of {rows.offsets[-1]} tokens",
                    at=str(self.device),
                    hint="lower `max_tokens`, free the device, or choose a smaller model",
                ) from error
        if alone:
            halved = len(rows) * int(rows.lengths.max()) // 2
            self._batch_tokens = min(self._batch_tokens or halved, halved)
        torch.cuda.empty_cache()
        return None


def _collect(waiting: deque[tuple[list[int], Pending]], results: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Wait for all that is under way."""
    while waiting:
        done, pending = waiting.popleft()
        results[done] = pending()
    return results
