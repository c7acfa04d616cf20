"""Arrays to a device and results back without making either side wait; on a CPU, nothing but a change of type.

On CUDA host memory is pinned, copies up run on a stream of their own beside the computation of the pass before, and a
result is copied down when it is ready, while the next pass is being prepared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Pending = Callable[[], npt.NDArray[np.float32]]
"""Waits for a result, and gives it."""


class Transfers:
    """Copies to and from one device."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self.device = device
        self._upwards = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def up(self, *arrays: npt.NDArray[Any]) -> list[torch.Tensor]:
        """The arrays as tensors on the device; what is computed next waits for them, the host does not."""
        import torch

        if self._upwards is None:
            return [torch.from_numpy(array) for array in arrays]
        with torch.cuda.stream(self._upwards):
            tensors = [torch.from_numpy(array).pin_memory().to(self.device, non_blocking=True) for array in arrays]
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self._upwards)
        for tensor in tensors:
            tensor.record_stream(computing)
        return tensors

    def down(self, tensor: torch.Tensor) -> Pending:
        """The tensor's float32 values, once they are computed."""
        import torch

        if self._upwards is None:
            return tensor.float().numpy
        host = torch.empty(tensor.shape, dtype=torch.float32, pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record(torch.cuda.current_stream(self.device))

        def wait() -> npt.NDArray[np.float32]:
            copied.synchronize()
            values: npt.NDArray[np.float32] = host.numpy()
            return values

        return wait
