"""When checkpoints are written: at once, or in the background from a copy while training goes on.

In the background the step waits only for the copy into the processes' memory. A save that finds the disk full leaves
the earlier checkpoints, is told, and training goes on: the next save tries again, and only the last one must succeed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from storage.errors import ResourceError
from trainer.checkpoints.folders import Group, save_checkpoint
from trainer.checkpoints.pieces import Tensors, as_pieces


class Saver:
    """Saves the checkpoints of one run; all processes call the same at the same steps.

    `saved` is told, on the first process, of every folder that was committed.
    """

    def __init__(
        self,
        out: Path,
        *,
        keep: int,
        keep_every: int,
        in_background: bool,
        group: Group,
        say: Callable[[str], None],
        saved: Callable[[Path], object],
    ) -> None:
        self.out, self.keep, self.keep_every, self.in_background = out, keep, keep_every, in_background
        self.group, self.say, self.saved = group, say, saved
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, state: Mapping[str, Any], *, model: Tensors, training: Tensors, is_last: bool = False) -> None:
        """Commit the checkpoint, or begin to. Raises ResourceError when the last one of a run cannot be written."""
        self.finish()
        if is_last:
            self._write(state, model, training)
            return
        if not self.in_background:
            self._try_to_write(state, model, training)
            self.finish()
            return
        copies = state, _copy(model), _copy(training)
        self._thread = threading.Thread(target=self._try_to_write, args=copies, name="checkpoint")
        self._thread.start()

    def tell(self) -> None:
        """Between steps: say at once what became of a save that is done."""
        if self._thread and not self._thread.is_alive():
            self.finish()

    def finish(self) -> None:
        """Wait for the save that is under way."""
        if self._thread:
            self._thread.join()
        error, self._thread, self._error = self._error, None, None
        if isinstance(error, ResourceError):
            self.say(f"warning: a checkpoint was not saved, and training goes on: {error}")
        elif error:
            raise error

    def _try_to_write(self, state: Mapping[str, Any], model: Tensors, training: Tensors) -> None:
        try:
            self._write(state, model, training)
        except BaseException as error:
            self._error = error

    def _write(self, state: Mapping[str, Any], model: Tensors, training: Tensors) -> None:
        folder = save_checkpoint(
            self.out,
            state,
            model=model,
            training=training,
            keep=self.keep,
            keep_every=self.keep_every,
            group=self.group,
        )
        if self.group is None or self.group.rank() == 0:
            self.saved(folder)


def _copy(tensors: Tensors) -> Tensors:
    """Copies on the CPU, that the next steps do not change."""

    def copy(tensor: Tensor) -> Tensor:
        return tensor.detach().to("cpu", copy=True)

    return {name: pieces.map(copy) for name, pieces in as_pieces(tensors).items()}
