"""The command `export`: a checkpoint for other tools."""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.checkpoints.trained import open_trained
from trainer.command_line.shared import Commands, add_checkpoints, print_now
from trainer.exchange.export import export_model


def add_export(commands: Commands) -> None:
    parser = commands.add_parser("export", help="a checkpoint as a Hugging Face LlamaForCausalLM")
    parser.set_defaults(run=_export)
    add_checkpoints(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder of the Hugging Face model")


def _export(options: argparse.Namespace) -> None:
    for path in export_model(open_trained(options.checkpoints), options.out):
        print_now(str(path))
