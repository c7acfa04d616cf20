"""Steps that must not be learned from: a loss or gradient that is no number, or a loss far above its mean.

Such a step stops the run, or is passed over and counted; either way the documents that it read are named. Where single
micro-batches have the loss that is no number, only theirs are; where none has (the gradient overflowed), all are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.lineage import trace_token
from trainer.data.batches import TrainingSamples
from trainer.settings import TrainingConfig

FAULTS_FILE = "faults.jsonl"
"""Beside the metrics: each such step, with its documents."""
NAMED = 200
"""Documents looked up for one step; finding one takes some milliseconds."""
TOLD = 3
MEAN_WEIGHT = 0.02
"""Of a step in the running mean of the loss: about the last 50 count."""
STEPS_BEFORE_SPIKES = 50


@dataclass
class Watch:
    """How many steps were passed over, and the loss's running mean; a checkpoint keeps it."""

    skipped: int = 0
    faulty: int = 0
    in_a_row: int = 0
    mean: float = math.nan
    seen: int = 0

    def find_fault(self, loss: float, grad_norm: float, config: TrainingConfig) -> str | None:
        """What is wrong with a step; None for a sound one, which is then counted in the mean."""
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            return f"the loss is {loss:.6g}, the gradient norm {grad_norm:.6g}"
        limit = config.spike_limit * self.mean
        if config.spike_limit and self.seen >= STEPS_BEFORE_SPIKES and loss > limit:
            return f"the loss is {loss:.6g}, over {config.spike_limit:g} times its running mean of {self.mean:.6g}"
        self.mean = loss if self.seen == 0 else self.mean + MEAN_WEIGHT * (loss - self.mean)
        self.seen, self.in_a_row = self.seen + 1, 0
        return None

    def pass_over(self) -> None:
        """Count a faulty step."""
        self.faulty, self.in_a_row = self.faulty + 1, self.in_a_row + 1


def read_watch(state: Mapping[str, Any]) -> Watch:
    """The watch that a checkpoint's state keeps; a new one where it keeps none."""
    row = dict(state.get("watch", {}))
    return Watch(**{**row, "mean": math.nan if row.get("mean") is None else row["mean"]})


def watch_row(watch: Watch) -> dict[str, Any]:
    """The watch as JSON."""
    return {**vars(watch), "mean": watch.mean if math.isfinite(watch.mean) else None}


def name_documents(samples: TrainingSamples, numbers: Iterable[int]) -> list[dict[str, Any]]:
    """Each piece of document in these samples: shard, sequence and tokens, and what the document map knows of it.

    After the first `NAMED` only the places are given.
    """
    named: list[dict[str, Any]] = []
    for number in numbers:
        for shard, sequence, first, count in samples.places(number):
            train, reader = samples.mixture.train[shard], samples.readers[shard]
            name = train.prefix.relative_to(samples.mixture.folder).as_posix()
            place = {"sample": number, "shard": name, "sequence": sequence, "first_token": first, "tokens": count}
            known = trace_token(samples.mixture.folder, name, reader, sequence, first) if len(named) < NAMED else {}
            named.append({**place, "source": train.source, **known})
    return named


def write_fault(out: Path, step: int, fault: str, documents: list[dict[str, Any]]) -> None:
    """Append one step to `faults.jsonl`."""
    row = {"step": step, "fault": fault, "documents": documents}
    with open(out / FAULTS_FILE, "a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def tell_documents(documents: list[dict[str, Any]]) -> str:
    """The first of them in one line: `train/web-0000 tokens 0-31 of sequence 7 (doc_id …, url)`."""
    told = [_tell(row) for row in documents[:TOLD]]
    rest = f", and {len(documents) - TOLD} more" if len(documents) > TOLD else ""
    return "; ".join(told) + rest


def _tell(row: Mapping[str, Any]) -> str:
    last = row["first_token"] + row["tokens"] - 1
    known = ", ".join(str(row[name]) for name in ("doc_id", "url") if row.get(name))
    place = f"{row['shard']}, sequence {row['sequence']}, tokens {row['first_token']} to {last}"
    return f"{place} ({known})" if known else place
