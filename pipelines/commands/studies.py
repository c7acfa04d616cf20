"""What the commands of all studies do: find the result, or carry the study out before one's eyes, and show it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import click
from rich.console import Console

from pipelines.commands.run import quiet_prefect
from pipelines.studies import Study, find_finished


def show_study(study: Study, carry_out: Callable[[], object], text: Callable[[Mapping[str, Any]], str]) -> None:
    """Print the study's result as `text` says it, and its path; `carry_out` is called where there is none yet."""
    if not find_finished(study):
        quiet_prefect()
        from pipelines.progress import LOG_FILE, TerminalObserver, observe

        with TerminalObserver(Console(), study.folder.logs / LOG_FILE) as observer:
            observe(observer)
            carry_out()
    click.echo(text(json.loads(study.folder.result.read_bytes())))
    click.echo(f"result: {study.folder.result}")
