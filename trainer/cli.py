"""`python -m trainer COMMAND`: the trainer's command line.

Exit codes: 0 done, 2 something that the user can mend (three lines, no traceback), 130 stopped by Ctrl-C, 1 a fault of
ours. Of several processes the first one speaks; the others wait before they say the same, and are ended meanwhile.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr

from storage.errors import CurationError
from trainer.command_line.evaluation import add_evaluate
from trainer.command_line.exchange import add_export, add_import
from trainer.command_line.extension import add_extend
from trainer.command_line.harness import add_harness
from trainer.command_line.models import add_models
from trainer.command_line.registry import add_list, add_resume
from trainer.command_line.serving import add_complete, add_generate, add_serve
from trainer.command_line.stages import add_anneal, add_soup
from trainer.command_line.training import add_train

COMMANDS = (
    add_train,
    add_resume,
    add_anneal,
    add_extend,
    add_soup,
    add_list,
    add_evaluate,
    add_harness,
    add_generate,
    add_complete,
    add_serve,
    add_export,
    add_import,
    add_models,
)

SILENT_SECONDS = 5.0
STOPPED = "stopped; a run goes on from its last checkpoint with the same command\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    is_first = os.environ.get("RANK", "0") == "0"
    with nullcontext() if is_first else redirect_stderr(io.StringIO()):
        options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except CurationError as error:
        time.sleep(0 if is_first else SILENT_SECONDS)
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(STOPPED if is_first else "", end="", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Every command and option."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Train a small language model on Megatron shards, and see what it has learned.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    return parser
