"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., object])

OUT = click.option("--out", default="runs/default", show_default=True, metavar="FOLDER", help="The run's folder.")
RAY_OPTIONS = (
    click.option(
        "--ray-address", envvar="RAY_ADDRESS", default=None, help="A running Ray cluster.  [default: start one here]"
    ),
    click.option("--workers", type=int, default=None, help="CPUs of the embedded Ray.  [default: all]"),
)


def with_options(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    """A command with options, which `--help` shows in their order."""
    for option in reversed(options):
        command = option(command)
    return command


def on_ray(command: Command) -> Command:
    """A command with the options that say where its jobs run."""
    return with_options(command, RAY_OPTIONS)
