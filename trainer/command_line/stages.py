"""The commands `anneal` and `soup`: a stage that goes on from a checkpoint, and the average of several."""

from __future__ import annotations

import argparse
from pathlib import Path

from storage.errors import InputError
from trainer.command_line.shared import Commands, add_prompts, print_now
from trainer.command_line.training import add_training_options, given_training
from trainer.registry.anneal import anneal_preset
from trainer.registry.record import row_of
from trainer.registry.search import resolve
from trainer.registry.soup import cook_soup
from trainer.train import train


def add_anneal(commands: Commands) -> None:
    parser = commands.add_parser("anneal", help="train on from a checkpoint, from its learning rate down to zero")
    parser.set_defaults(run=_anneal)
    parser.add_argument(
        "--from", dest="checkpoint", required=True, help="a run's folder, an iter_… folder, FOLDER/NAME"
    )
    parser.add_argument("--data", type=Path, required=True, help="mixture folder; one pass over it is the default")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the checkpoints; of several seeds, above them"
    )
    parser.add_argument("--seeds", type=_numbers, default=None, help="an ingredient a seed, as 42,666,42069")
    parser.add_argument("--rope-base", type=float, default=None, help="another base of the positions, for longer texts")
    parser.add_argument("--schedule-of", default=None, help="a preset whose schedule starts anew, instead of the fall")
    add_prompts(parser, "what the samples continue")
    add_training_options(parser)


def add_soup(commands: Commands) -> None:
    parser = commands.add_parser("soup", help="the average of several checkpoints' weights")
    parser.set_defaults(run=_soup)
    parser.add_argument("checkpoints", nargs="+", help="runs' folders, iter_… folders, or FOLDER/NAME")
    parser.add_argument("--out", type=Path, required=True, help="folder of the average")
    parser.add_argument("--weights", type=_shares, default=None, help="one for each, as 1,1,2 (default: all the same)")


def _anneal(options: argparse.Namespace) -> None:
    checkpoint, overrides = resolve(options.checkpoint), given_training(options)
    if options.seeds and "seed" in overrides:
        raise InputError("`--seed` is one, `--seeds` several", hint="leave one of them out")
    ingredients = enumerate(options.seeds, start=1) if options.seeds else [(0, None)]
    for number, seed in ingredients:
        own = {} if seed is None else {"seed": seed, "ingredient": number}
        preset = anneal_preset(
            checkpoint, {**overrides, **own}, rope_base=options.rope_base, schedule_of=options.schedule_of
        )
        out = options.out / f"ingredient{number}" if number else options.out
        print_now(f"from {row_of(checkpoint).name}, learning rate {preset.training.learning_rate:g}, into {out}")
        train(options.data, preset, out, prompts=tuple(options.prompt), tell=print_now)


def _soup(options: argparse.Namespace) -> None:
    folder = cook_soup([resolve(one) for one in options.checkpoints], options.out, options.weights)
    print_now(f"{row_of(folder).name} in {folder}")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _shares(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]
