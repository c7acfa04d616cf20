"""The command `models`: what the shipped presets are, counted and never typed."""

from __future__ import annotations

import argparse

import torch

from trainer.command_line.shared import Commands, print_now
from trainer.models.kinds import build_model
from trainer.settings import PRESETS, load_preset

HEADER = ("preset", "kind", "layers", "hidden", "vocabulary", "parameters", "active", "predictors", "GFLOP a token")


def add_models(commands: Commands) -> None:
    parser = commands.add_parser("models", help="the shipped presets with their sizes, as a Markdown table")
    parser.set_defaults(run=_models)
    parser.add_argument("--preset", action="append", help="a preset or the path of a YAML file; may be repeated")
    parser.add_argument(
        "--vocabulary", type=int, default=8192, help="entries for presets that take their vocabulary from the data"
    )


def _models(options: argparse.Namespace) -> None:
    names = options.preset or sorted(path.stem for path in PRESETS.glob("*.yaml"))
    for line in table([HEADER, *(describe(name, options.vocabulary) for name in names)]):
        print_now(line)


def describe(name: str, vocabulary: int) -> tuple[str, ...]:
    """One row: sizes in elements, parameters from the model built on the meta device, work at the preset's length."""
    preset = load_preset(name)
    config = preset.model_config(vocabulary)
    with torch.device("meta"):
        counts = build_model(config).count_parameters()
    work = config.flops_per_token(preset.training.sequence_length) / 1e9
    numbers = (config.num_layers, config.hidden_size, config.vocabulary_size, *counts)
    return (preset.name, config.kind, *(f"{number:,}" for number in numbers), f"{work:.4g}")


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Markdown, numbers to the right."""
    rule = ("---", "---", *("---:" for _ in rows[0][2:]))
    return [f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:])]
