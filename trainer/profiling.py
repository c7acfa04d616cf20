"""A look into chosen steps: a Chrome trace of each process, and what memory was taken for.

Open the traces under `profile/` in chrome://tracing or Perfetto, snapshots of a GPU's memory on pytorch.org/memory_viz.
Nothing is recorded outside the steps that were asked for.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from trainer.parallel.world import World
from trainer.schedules import is_within
from trainer.settings import TrainingConfig, step_ranges

FOLDER = "profile"


class Profiler:
    """Told of every step's beginning and end; records while the step is one of `config.profile`."""

    def __init__(self, out: Path, config: TrainingConfig, world: World) -> None:
        self.folder, self.config, self.world = out / FOLDER, config, world
        self._running: profile | None = None

    def before(self, step: int) -> None:
        if self._running or not is_within(step, self.config.profile):
            return
        use_gpu = self.world.device.type == "cuda"
        if use_gpu and self.config.profile_memory:
            torch.cuda.memory._record_memory_history()  # type: ignore[no-untyped-call]
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if use_gpu else [])]
        self._running = profile(
            activities=activities, record_shapes=True, profile_memory=self.config.profile_memory, with_flops=True
        )
        self._running.start()

    def after(self, step: int) -> None:
        if self._running is None or is_within(step + 1, self.config.profile):
            return
        running, self._running = self._running, None
        running.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        first = next(first for first, last in step_ranges(self.config.profile) if first <= step <= last)
        name = f"steps-{first}-{step}-process-{self.world.rank}"
        running.export_chrome_trace(str(self.folder / f"{name}.json.gz"))
        if self.config.profile_memory and self.world.device.type == "cuda":
            torch.cuda.memory._dump_snapshot(str(self.folder / f"{name}.memory.pickle"))  # type: ignore[no-untyped-call]
            torch.cuda.memory._record_memory_history(enabled=None)  # type: ignore[no-untyped-call]
