"""The command `train`; its options are the fields of TrainingConfig."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any, get_type_hints

from trainer.command_line.shared import Commands, add_prompts, print_now
from trainer.settings import TrainingConfig, load_preset
from trainer.train import train


def add_train(commands: Commands) -> None:
    parser = commands.add_parser("train", help="train, resume or finish a run, then evaluate it")
    parser.set_defaults(run=_train)
    parser.add_argument("--data", type=Path, required=True, help="mixture folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints; an unfinished run resumes")
    parser.add_argument("--preset", default="tiny", help="tiny, small, chuxin-1.6b, or the path of a YAML file")
    add_prompts(parser, "what the samples continue")
    add_training_options(parser)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """One option a field of TrainingConfig; None where none is given, so that the preset's own stands."""
    types = get_type_hints(TrainingConfig)
    for item in dataclasses.fields(TrainingConfig):
        kind = types[item.name]
        options: dict[str, Any] = {"help": item.metadata["help"] + " (the preset's by default)", "default": None}
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options |= {"type": kind if kind in (int, float, str) else int, "choices": item.metadata["choices"]}
        parser.add_argument(f"--{item.name.replace('_', '-')}", **options)


def given_training(options: argparse.Namespace) -> dict[str, Any]:
    """The training fields that were typed."""
    names = [item.name for item in dataclasses.fields(TrainingConfig)]
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _train(options: argparse.Namespace) -> None:
    preset = load_preset(options.preset, given_training(options))
    train(options.data, preset, options.out, prompts=tuple(options.prompt), tell=print_now)
