"""The reference of the command line, written from the commands themselves: `python -m pipelines.reference` renews it.

Invariant: the page holds every command, argument and option with its own help text; a test compares it with what this
module writes, so none can be added without being documented.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from storage.commit import write_atomically

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "cli.md"

HEAD = """\
# Command line

Written by `python -m pipelines.reference` from the commands themselves (`make golden` renews it). `-h` after any
command prints its part of this page.

Exit codes: 0 done; 2 something that you can mend, told in three lines (what happened, where, what to type); 1 a fault
of Gristmill's, with its traceback; 130 stopped with Ctrl-C. What a stopped run has finished is kept, and the same
command goes on from there.
"""


def write_reference() -> Path:
    """Write the page; returns its path."""
    from pipelines.cli import cli

    write_atomically(PAGE, reference(cli).encode())
    return PAGE


def reference(group: click.Group, name: str = "gristmill") -> str:
    """The page for a group of commands, in the order in which they are defined."""
    context = click.Context(group, info_name=name)
    blocks = [HEAD, *_command(group, context)]
    return "\n".join([*blocks, *_subcommands(group, context)])


def _subcommands(group: click.Group, context: click.Context) -> Iterator[str]:
    for name, command in group.commands.items():
        inner = click.Context(command, info_name=name, parent=context)
        yield from _command(command, inner)
        if isinstance(command, click.Group):
            yield from _subcommands(command, inner)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## {context.command_path}\n"
    yield f"{_prose(command.help)}\n"
    pieces = [context.command_path, *command.collect_usage_pieces(context)]
    yield f"```text\n{' '.join(pieces)}\n```\n"
    rows = [_option(option) for option in command.params if isinstance(option, click.Option)]
    if rows:
        yield "\n".join(rows) + "\n"


def _option(option: click.Option) -> str:
    """One option as a line of a list: its names, what it takes, its help, its default."""
    takes = "" if option.is_flag else f" {_takes(option)}"
    # A default that is worked out stands in the help text, as click's own style has it.
    words, bracket, worked_out = _prose(option.help).partition(" [default: ")
    facts = [words]
    if bracket:
        facts.append(f"Default: {worked_out.removesuffix(']')}.")
    elif option.show_default and option.default is not None:
        facts.append(f"Default: `{option.default}`.")
    if option.envvar:
        facts.append(f"Environment: `{option.envvar}`.")
    return f"- `{', '.join(option.opts)}{takes}`: " + " ".join(filter(None, facts))


def _takes(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return "|".join(map(str, option.type.choices))
    return option.type.name.upper()


def _prose(text: str | None) -> str:
    return " ".join((text or "").split())


if __name__ == "__main__":
    print(write_reference())
