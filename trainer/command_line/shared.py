"""What several commands share: options, and how a line is printed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Protocol


class Commands(Protocol):
    """Where a module adds its commands: what `add_subparsers` gives."""

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser: ...


def add_checkpoints(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoints", type=Path, required=True, help="a run's folder (its latest), an iter_… folder, or FOLDER/NAME"
    )


def add_prompts(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument("--prompt", action="append", default=[], help=f"{help}; may be repeated")


def print_now(line: str) -> None:
    """One line, at once: whoever started the process reads along."""
    print(line, flush=True)
