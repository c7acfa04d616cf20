"""The average of several checkpoints' weights: OLMo's last step, and the cheapest ensemble (2203.05482).

Sums are in float64, whatever the weights are kept in, so the average is exact to the last bit of their format. The
average is a checkpoint like any other, without an optimizer: it is evaluated, exported and annealed from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from storage.commit import write_atomically
from storage.errors import InputError, ModelError, disk_errors
from trainer.checkpoints.folders import open_checkpoint, save_checkpoint
from trainer.data.mixture import TOKENIZER_FILE, VOCABULARY_FILE
from trainer.plans import RUN_FILE
from trainer.registry.origin import Origin, follow, write_origin
from trainer.registry.record import read_state, record_checkpoint, row_of
from trainer.registry.rows import Row

SEVERAL = "several"


def cook_soup(checkpoints: Sequence[Path], out: Path, weights: Sequence[float] | None = None) -> Path:
    """Write the weighted mean (default: each the same) of checkpoint folders to `out`; returns its checkpoint.

    Raises InputError for weights that cannot be, or an `out` that is in use; ModelError for models that differ.
    """
    shares = _shares(checkpoints, weights)
    if out.exists() and any(out.iterdir()):
        raise InputError("the folder of the average is not empty", at=str(out), hint="name a new folder with `--out`")
    states = [read_state(folder) for folder in checkpoints]
    _refuse_differences(checkpoints, states)
    rows = [row_of(folder) for folder in checkpoints]
    mean = average((open_checkpoint(folder).model() for folder in checkpoints), shares)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    for name in (TOKENIZER_FILE, VOCABULARY_FILE):
        write_atomically(out / name, (checkpoints[0].parent / name).read_bytes())
    write_origin(out, _origin(rows, checkpoints, shares, out))
    return _save(out, states, rows, mean)


def average(models: Iterable[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """Σ share · weights, tensor by tensor, in the format of the first model; one model is in memory at a time."""
    sums: dict[str, Tensor] = {}
    formats: dict[str, torch.dtype] = {}
    for model, share in zip(models, shares, strict=True):
        for name, tensor in model.items():
            formats.setdefault(name, tensor.dtype)
            scaled = tensor.to(torch.float64) * share
            sums[name] = sums[name].add_(scaled) if name in sums else scaled
    return {name: total.to(formats[name]) for name, total in sums.items()}


def _shares(checkpoints: Sequence[Path], weights: Sequence[float] | None) -> list[float]:
    given = [1.0] * len(checkpoints) if weights is None else list(weights)
    if len(checkpoints) < 2:
        raise InputError("an average needs at least two checkpoints", hint="name them by path, or FOLDER/NAME")
    if len(given) != len(checkpoints):
        raise InputError(f"{len(given)} weights for {len(checkpoints)} checkpoints; there must be one for each")
    if not all(math.isfinite(weight) and weight > 0 for weight in given):
        raise InputError(f"weights are {', '.join(f'{weight:g}' for weight in given)}; each must be above 0")
    return [weight / math.fsum(given) for weight in given]


def _refuse_differences(checkpoints: Sequence[Path], states: Sequence[Mapping[str, Any]]) -> None:
    first, faults = states[0]["run"], []
    for folder, state in zip(checkpoints, states, strict=True):
        run = state["run"]
        if run["vocabulary"] != first["vocabulary"]:
            faults.append(f"{folder}: vocabulary {run['vocabulary'][:12]}…, not {first['vocabulary'][:12]}…")
        keys = sorted({*run["model"], *first["model"]})
        for key in (key for key in keys if run["model"].get(key) != first["model"].get(key)):
            faults.append(f"{folder}: {key} {run['model'].get(key)}, not {first['model'].get(key)}")
    if faults:
        told = "\n".join(f"    {fault}" for fault in faults)
        raise ModelError(
            f"these models differ from the first, and have no average:\n{told}",
            at=str(checkpoints[0]),
            hint="average checkpoints of one shape and one tokenizer",
        )


def _origin(rows: Sequence[Row], checkpoints: Sequence[Path], shares: Sequence[float], out: Path) -> Origin:
    parents = zip(rows, checkpoints, shares, strict=True)
    return Origin(
        stage=max(row.stage for row in rows),
        kind="soup",
        parents=tuple(follow(row, folder, out, weight=share) for row, folder, share in parents),
        tokens_before=max(row.tokens_in_all for row in rows) - max(row.tokens for row in rows),
    )


def _save(out: Path, states: Sequence[Mapping[str, Any]], rows: Sequence[Row], mean: dict[str, Tensor]) -> Path:
    longest = max(states, key=lambda state: int(state["tokens"]))
    mixtures = {row.mixture for row in rows}
    run: dict[str, Any] = {**longest["run"], "mixture": mixtures.pop() if len(mixtures) == 1 else SEVERAL}
    counted = {name: max(int(state[name]) for state in states) for name in ("step", "tokens", "consumed_samples")}
    state: dict[str, Any] = {**counted, "run": {**run, "training": {**run["training"], "steps": counted["step"]}}}
    folder = save_checkpoint(out, state, model=mean, training={}, keep=1)
    names = [row.name for row in rows]
    write_atomically(out / RUN_FILE, (json.dumps({**state["run"], "soup": names}, indent=2) + "\n").encode())
    record_checkpoint(folder)
    return folder
