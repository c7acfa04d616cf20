"""The commands `list` and `resume`: which checkpoints there are, and going on with a run."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from storage.errors import ModelError
from trainer.command_line.shared import Commands, add_prompts, print_now
from trainer.command_line.training import add_training_options, given_training
from trainer.evaluation.results import RESULTS_FOLDER, read_results
from trainer.plans import RUN_FILE
from trainer.registry.origin import read_origin
from trainer.registry.rows import Found
from trainer.registry.search import list_checkpoints
from trainer.settings import Preset, TrainingConfig, make_preset
from trainer.train import train

COLUMNS = ("name", "step", "lr", "loss", "bits/byte", "mixture", "seed", "preset", "parents", "where")


def add_list(commands: Commands) -> None:
    parser = commands.add_parser("list", help="the checkpoints in and below folders")
    parser.set_defaults(run=_list)
    parser.add_argument("folders", nargs="*", type=Path, default=[Path(".")], help="where to look (default: here)")
    parser.add_argument("--all", action="store_true", help="those too that are not kept any more")
    parser.add_argument("--json", action="store_true", help="everything that is known, a JSON row a line")


def add_resume(commands: Commands) -> None:
    parser = commands.add_parser("resume", help="go on with a run as it was started; options may change its manner")
    parser.set_defaults(run=_resume)
    parser.add_argument("folder", type=Path, help="the run's folder")
    parser.add_argument("--data", type=Path, default=None, help="the mixture's folder, where it was moved")
    add_prompts(parser, "what the samples continue")
    add_training_options(parser)


def _list(options: argparse.Namespace) -> None:
    found = [one for one in list_checkpoints(options.folders) if one.is_there or options.all]
    if options.json:
        for one in found:
            print_now(json.dumps(describe(one)))
        return
    rows = [COLUMNS, *(_cells(one) for one in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    for row in rows:
        print_now("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def describe(found: Found) -> dict[str, Any]:
    """A row as JSON, with all that was measured, where its checkpoint is and whether it is still there."""
    measured = found.out / RESULTS_FOLDER / f"{found.row.path}.json"
    results = read_results(measured) if measured.is_file() else {}
    where = {"folder": str(found.folder), "is_there": found.is_there}
    return {**dataclasses.asdict(found.row), "results": results, **where}


def _cells(found: Found) -> tuple[str, ...]:
    row, score = found.row, found.row.mean_bits_per_byte
    return (
        row.name,
        f"{row.step:,}/{row.steps:,}",
        f"{row.lr:.4g}",
        "" if row.loss is None else f"{row.loss:.4f}",
        "" if score is None else f"{score:.4f}",
        row.mixture[:12],
        str(row.seed),
        row.preset,
        " + ".join(parent.name for parent in row.parents),
        str(found.folder) if found.is_there else "not kept",
    )


def _resume(options: argparse.Namespace) -> None:
    out: Path = options.folder
    data = options.data or out / _origin_data(out)
    train(data, _preset(out, given_training(options)), out, prompts=tuple(options.prompt), tell=print_now)


def _origin_data(out: Path) -> str:
    origin = read_origin(out)
    if origin.kind == "soup":
        raise ModelError(
            "an average of checkpoints has no optimizer to go on with",
            at=str(out),
            hint=f"start a stage from it: `python -m trainer anneal --from {out}`",
        )
    if not origin.data:
        raise ModelError("this run does not say what it was trained on", at=str(out), hint="name it with `--data`")
    return origin.data


def _preset(out: Path, overrides: dict[str, Any]) -> Preset:
    """The settings that a run was started with; what does not change its outcome may be told anew."""
    try:
        run = json.loads((out / RUN_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError("there is no run here", at=str(out), hint="give the folder that `--out` named") from error
    told = read_origin(out).training or run["training"]
    training = {name: value for name, value in told.items() if name in TrainingConfig.__dataclass_fields__}
    return make_preset(run["preset"], run["model"], {**training, **overrides}, at=out)
