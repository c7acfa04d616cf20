"""The commands `export` and `import`: a checkpoint as a Hugging Face model, and the way back."""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.checkpoints.trained import open_trained
from trainer.command_line.shared import Commands, add_checkpoints, print_now
from trainer.exchange.export import DTYPES, export_model
from trainer.exchange.importing import import_model


def add_export(commands: Commands) -> None:
    parser = commands.add_parser("export", help="a checkpoint as a Hugging Face model")
    parser.set_defaults(run=_export)
    add_checkpoints(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder of the Hugging Face model")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="float32", help="of the weights")


def _export(options: argparse.Namespace) -> None:
    for path in export_model(open_trained(options.checkpoints), options.out, dtype=options.dtype):
        print_now(str(path))


def add_import(commands: Commands) -> None:
    parser = commands.add_parser("import", help="a Hugging Face model as a checkpoint")
    parser.set_defaults(run=_import)
    parser.add_argument("--from", type=Path, required=True, dest="folder", help="folder of the Hugging Face model")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--tokenizer", type=Path, help="its tokenizer.json, if the folder has none")
    parser.add_argument("--end-of-document", help="the token that ends documents, if config.json does not tell")


def _import(options: argparse.Namespace) -> None:
    told = {"tokenizer": options.tokenizer, "end_of_document": options.end_of_document}
    print_now(str(import_model(options.folder, options.out, **told)))
