"""The command `extend`: a model for longer texts, in stages."""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.checkpoints.trained import open_trained
from trainer.command_line.shared import Commands, add_checkpoints, print_now
from trainer.command_line.training import add_training_options, given_training
from trainer.evaluation.rows import read_texts
from trainer.extension import EXTENSION_FILE, NTK, extend_context, plan_stages


def add_extend(commands: Commands) -> None:
    parser = commands.add_parser("extend", help="train on with longer sequences, in stages, and measure what it costs")
    parser.set_defaults(run=_extend)
    add_checkpoints(parser)
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="mixture folder, one for all or one a stage"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the stages; an unfinished one resumes")
    parser.add_argument("--lengths", type=int, nargs="+", required=True, help="tokens a sample, a stage each")
    parser.add_argument("--rope-base", nargs="+", default=[NTK], help=f"number or `{NTK}`, one for all or one a stage")
    parser.add_argument("--haystack", type=Path, help="text to hide needles in")
    add_training_options(parser)


def _extend(options: argparse.Namespace) -> None:
    stages = plan_stages(open_trained(options.checkpoints), options.lengths, options.rope_base, options.data)
    for stage in stages:
        print_now(f"{stage.length} tokens on a RoPE base of {stage.rope_base:,.0f}: {stage.data}")
    haystack = list(read_texts(options.haystack)) if options.haystack else []
    overrides = given_training(options)
    extend_context(options.checkpoints, stages, options.out, overrides, haystack=haystack, tell=print_now)
    print_now(f"figures: {options.out / EXTENSION_FILE}")
