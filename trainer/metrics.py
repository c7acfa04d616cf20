"""What a run reports while it trains: a JSON row a step, and Megatron's log line; where asked for, more.

`metrics.jsonl` is the live file. A resumed run first drops the rows after its checkpoint, so every step stands in it
once; rows are flushed as they come and synced before each checkpoint, so what a checkpoint follows from is never lost
before it. `metrics.parquet` holds the same rows for SQL, written anew at each checkpoint. TensorBoard and Weights &
Biases are told the same numbers.
"""

from __future__ import annotations

import importlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import pyarrow as pa
import pyarrow.parquet as pq

from storage.commit import write_atomically
from storage.errors import EnvironmentMismatch, disk_errors
from storage.identity import fingerprint
from trainer.settings import TrainingConfig

METRICS_FILE, METRICS_TABLE = "metrics.jsonl", "metrics.parquet"
TENSORBOARD, WANDB = "tensorboard", "wandb"


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """One step: `tokens` and `consumed_samples` since the start of the run, `loss` in nats a token, `seconds` of it.

    `loss` and `grad_norm` are none for a step that was passed over. `skipped` and `faulty` count such steps since the
    start: those that the settings name, and those with a loss or gradient that is no number. `parts` are other parts
    of the loss, by name; `heldout` bits per byte by source, where they were measured after this step.
    """

    step: int
    tokens: int
    consumed_samples: int
    loss: float | None
    lr: float
    grad_norm: float | None
    seconds: float
    tokens_per_second: float
    dropout: float = 0.0
    params_norm: float | None = None
    skipped: int = 0
    faulty: int = 0
    parts: Mapping[str, float] = field(default_factory=dict)
    heldout: Mapping[str, float] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """As JSON; a number that is none is null."""
        row = {**asdict(self), "parts": dict(self.parts), "heldout": dict(self.heldout)}
        return {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in row.items()}

    def scalars(self) -> dict[str, float]:
        """The numbers by name, `part/…` and `heldout/…` among them."""
        plain = {name: value for name, value in self.row().items() if isinstance(value, int | float)}
        nested = {f"part/{name}": value for name, value in self.parts.items()}
        return plain | nested | {f"heldout/{name}": value for name, value in self.heldout.items()}


class Listener(Protocol):
    """Somebody else who is told the numbers of each step."""

    def tell(self, step: int, scalars: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class MetricsFile:
    """`metrics.jsonl`, opened to append after `resumed_step`, and everybody else who wants to know."""

    def __init__(self, out: Path, resumed_step: int, listeners: Sequence[Listener] = ()) -> None:
        self.path, self.table, self.listeners = out / METRICS_FILE, out / METRICS_TABLE, listeners
        kept = [row for row in read_metrics(self.path) if row["step"] <= resumed_step]
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self._file = open(self.path, "a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as stack:
            stack.callback(self._file.close)
            for listener in self.listeners:
                stack.callback(listener.close)

    def append(self, metrics: StepMetrics) -> None:
        with disk_errors(self.path):
            self._file.write(json.dumps(metrics.row()) + "\n")
            self._file.flush()
        for listener in self.listeners:
            listener.tell(metrics.step, metrics.scalars())

    def sync(self) -> None:
        """Bring all rows to the disk, and write the table of them."""
        os.fsync(self._file.fileno())
        write_table(self.path, self.table)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole rows; the last line of a killed process may be half a row, and is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text("utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def write_table(path: Path, target: Path) -> None:
    """The rows of a `metrics.jsonl` as Parquet, a column a number: `loss`, …, `part.z_loss`, `heldout.SOURCE`."""
    rows = [_flat(row) for row in read_metrics(path)]
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: pa.array([row.get(name) for row in rows], from_pandas=True) for name in names}
    floats = {
        name: column.cast(pa.float64()) if column.type == pa.null() else column for name, column in columns.items()
    }
    write_atomically(target, lambda file: pq.write_table(pa.table(floats), file, compression="zstd"))


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    nested = {"parts": "part", "heldout": "heldout"}
    flat = {name: value for name, value in row.items() if name not in nested}
    for name, prefix in nested.items():
        flat |= {f"{prefix}.{key}": value for key, value in row.get(name, {}).items()}
    return flat


def listeners(out: Path, config: TrainingConfig, run: Mapping[str, Any], resumed_step: int) -> list[Listener]:
    """Those whom the settings ask for. Raises EnvironmentMismatch for one whose package is not installed."""
    asked: list[Listener] = [TensorBoard(out, resumed_step)] if config.tensorboard else []
    return [*asked, *([WeightsAndBiases(out, config.wandb, run)] if config.wandb else [])]


class TensorBoard:
    """Event files under `tensorboard/`; what an earlier start wrote after the resumed step is purged by its readers."""

    def __init__(self, out: Path, resumed_step: int) -> None:
        module = _optional("torch.utils.tensorboard", "tensorboard", "--no-tensorboard")
        self._writer: Any = module.SummaryWriter(str(out / TENSORBOARD), purge_step=resumed_step + 1)

    def tell(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of a project, known by its plan, so that a resumed run is the same one there."""

    def __init__(self, out: Path, project: str, run: Mapping[str, Any]) -> None:
        module = _optional("wandb", "wandb", "--wandb ''")
        mode = os.environ.get("WANDB_MODE", "offline")
        identity = fingerprint({"run": json.dumps(run, sort_keys=True), "out": str(out.resolve())})
        self._run: Any = module.init(
            project=project, dir=str(out), id=identity, resume="allow", mode=mode, name=out.name, config=dict(run)
        )

    def tell(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        self._run.finish()


def _optional(module: str, package: str, without: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EnvironmentMismatch(
            f"the package `{package}` is not installed here: {error}",
            hint=f"`pip install {package}`, or train with `{without}`",
        ) from error


def log_line(metrics: StepMetrics, *, steps: int, global_batch: int, flops_per_token: float, processes: int) -> str:
    """Megatron-LM's training line; `iteration.*consumed samples` finds it, as OpenSeek's scripts do."""
    rate = flops_per_token * metrics.tokens_per_second / processes / 1e12
    named = {"balance_loss": "load_balancing_loss"}
    fields = [
        f"iteration {metrics.step:8d}/{steps:8d}",
        f"consumed samples: {metrics.consumed_samples:12d}",
        f"elapsed time per iteration (ms): {metrics.seconds * 1000:.1f}",
        f"throughput per GPU (TFLOP/s/GPU): {rate:.3f}",
        f"learning rate: {metrics.lr:.6E}",
        f"global batch size: {global_batch:5d}",
        *([] if metrics.loss is None else [f"lm loss: {metrics.loss:.6E}"]),
        *(f"{named.get(name, name)}: {value:.6E}" for name, value in metrics.parts.items()),
        "loss scale: 1.0",
        *([] if metrics.grad_norm is None else [f"grad norm: {metrics.grad_norm:.3f}"]),
        *([] if metrics.params_norm is None else [f"params norm: {metrics.params_norm:.3f}"]),
        f"number of skipped iterations: {metrics.skipped:3d}",
        f"number of nan iterations: {metrics.faulty:3d}",
    ]
    return f" [{datetime.now():%Y-%m-%d %H:%M:%S}] {' | '.join(fields)} |"
