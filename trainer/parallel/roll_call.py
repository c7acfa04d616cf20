"""Who of the processes is lost: each one beats once a second, and says at which step it is.

A process that is gone or stopped beats no more; one that is stuck beats on, a step behind. Beats go to torchrun's store
and cost training nothing: a thread sends them. They are read only when the processes have lost each other.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from torch.distributed.distributed_c10d import Store

from storage.errors import CurationError

BEAT_SECONDS = 1.0
SILENT_SECONDS = 4.0


class LostWorker(CurationError):
    """A process of the run was killed, stopped or stuck."""


class RollCall:
    """This process's beats; `step` is what it is about to do, and is set by the loop."""

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self.store, self.rank, self.size, self.step = store, rank, size, 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="roll call")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def lost(self) -> str:
        """Those that are silent, or else behind, in words; takes some seconds."""
        before = self._read()
        time.sleep(SILENT_SECONDS)
        after = self._read()
        silent = [rank for rank in range(self.size) if after[rank] == before[rank] and rank != self.rank]
        if silent:
            return "; ".join(f"process {rank} of {self.size} is gone, last seen {_at(after[rank])}" for rank in silent)
        behind = [rank for rank in range(self.size) if _step(after[rank]) < self.step]
        if behind:
            return "; ".join(f"process {rank} of {self.size} is stuck {_at(after[rank])}" for rank in behind)
        return "the connection between processes broke"

    def _beat(self) -> None:
        number = 0
        while not self._done.wait(BEAT_SECONDS):
            number += 1
            try:
                self.store.set(f"beat/{self.rank}", f"{number} {self.step}")
            except RuntimeError:  # the store lives in process 0, and is gone with it
                return

    def _read(self) -> list[bytes]:
        beats = []
        for rank in range(self.size):
            try:
                beats.append(bytes(self.store.get(f"beat/{rank}")) if self.store.check([f"beat/{rank}"]) else b"")
            except RuntimeError:
                beats.append(b"")
        return beats


def _step(beat: bytes) -> int:
    return int(beat.split()[1]) if beat else 0


def _at(beat: bytes) -> str:
    return f"at step {_step(beat)}" if beat else "at the start"
