"""`gristmill annotate`: a language model rates a sample of a run's documents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from pipelines.annotation import AnnotationRequest, find_finished, plan_annotation
from pipelines.commands.run import quiet_prefect
from pipelines.story import run_folder_at


def annotate_command(options: Mapping[str, Any]) -> None:
    """Find what is wrong before anything starts; then rate, and say where the labels are."""
    request = AnnotationRequest(**options)
    folder = run_folder_at(Path(request.out))
    plan = plan_annotation(request, folder)
    if finished := find_finished(folder, plan):
        click.echo(f"all {finished['labelled']:,} documents have a label\nlabels: {folder.annotations(plan.place)}")
        return
    quiet_prefect()
    from pipelines.flows.annotate import annotate
    from pipelines.progress import LOG_FILE, TerminalObserver, observe

    console = Console()
    with TerminalObserver(console, folder.logs / LOG_FILE) as observer:
        observe(observer)
        labels = annotate(**options)
    console.print(f"labels: {labels}", markup=False, highlight=False, soft_wrap=True)
