"""The commands `gristmill flagscale …`: FlagScale's experiments by the bundled trainer."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.command_line.shared import Command, with_options

SHARED_OPTIONS = (
    click.argument("config", type=click.Path(path_type=Path, dir_okay=False), metavar="YAML"),
    click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Lay a value over the config's. Repeatable."
    ),
)


def of_experiment(command: Command) -> Command:
    """A command with what all of them take."""
    return with_options(command, SHARED_OPTIONS)


@click.group()
def flagscale() -> None:
    """Run an experiment of FlagScale or OpenSeek, from the two YAML files that it has.

    YAML is the experiment's file, whose `defaults` name the task's. Keys that our trainer does not honour are listed,
    and so are those that one block of the task takes from another.
    """


@flagscale.command("run")
@of_experiment
@click.option(
    "--tokenizer", default=None, type=click.Path(path_type=Path), help="The tokenizer.  [default: the data's]"
)
@click.option("--heldout", type=int, default=50_000, show_default=True, help="Tokens of each shard that are set aside.")
def run_experiment(config: Path, overrides: tuple[str, ...], tokenizer: Path | None, heldout: int) -> None:
    """Adopt the shards, and train in the background."""
    from pipelines.commands.flagscale import run_command

    run_command(config, overrides, tokenizer=tokenizer, heldout=heldout)


@flagscale.command()
@of_experiment
def dryrun(config: Path, overrides: tuple[str, ...]) -> None:
    """Show Megatron's command, our settings, and where they differ; write the script, start nothing."""
    from pipelines.commands.flagscale import dryrun_command

    dryrun_command(config, overrides)


@flagscale.command()
@of_experiment
def query(config: Path, overrides: tuple[str, ...]) -> None:
    """Show whether it runs, and how far it is."""
    from pipelines.commands.flagscale import query_command

    query_command(config, overrides)


@flagscale.command()
@of_experiment
def stop(config: Path, overrides: tuple[str, ...]) -> None:
    """Stop it."""
    from pipelines.commands.flagscale import stop_command

    stop_command(config, overrides)
