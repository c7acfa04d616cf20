"""`gristmill synthesize`: a language model writes documents from a run's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from pipelines.commands.run import parse_pairs, quiet_prefect
from pipelines.story import run_folder_at
from pipelines.synthesis import SynthesisRequest, find_finished, plan_synthesis


def synthesize_command(options: Mapping[str, Any]) -> None:
    """Find what is wrong before anything starts; then write, and say where the documents are."""
    asked = dict(options)
    asked["benchmark_fields"] = parse_pairs(asked.pop("benchmark_field"), "--benchmark-field")
    folder = run_folder_at(Path(asked["out"]))
    plan = plan_synthesis(SynthesisRequest(**asked), folder)
    if finished := find_finished(folder, plan):
        click.echo(f"all {finished['documents']:,} documents are there\ndocuments: {folder.synthesis(plan.place)}")
        return
    quiet_prefect()
    from pipelines.flows.synthesize import synthesize
    from pipelines.progress import LOG_FILE, TerminalObserver, observe

    console = Console()
    with TerminalObserver(console, folder.logs / LOG_FILE) as observer:
        observe(observer)
        documents = synthesize(**asked)
    console.print(f"documents: {documents}", markup=False, highlight=False, soft_wrap=True)
