"""`gristmill fit`: a small classifier learns from labelled texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console

from pipelines.commands.run import quiet_prefect
from pipelines.fitting import WORKSHOP, FitRequest, Kind, find_fitted, plan_fit, summarise

OF_REQUEST = ("data", "out", "preset", "stop_words", "base", "rated_by", "most", "ray_address", "workers")


def fit_command(kind: Kind, options: Mapping[str, Any]) -> None:
    """Find what is wrong before anything starts; then fit, and say where the model is."""
    asked = {name: value for name, value in options.items() if name in OF_REQUEST}
    settings = {name: value for name, value in options.items() if name not in OF_REQUEST and value is not None}
    request = FitRequest(kind=kind, given=settings, **asked)
    if finished := find_fitted(request.folder, plan_fit(request).identity):
        click.echo(f"this model is finished: {summarise(finished)}\nmodel: {request.folder}")
        return
    quiet_prefect()
    from pipelines.flows.fit import fit_encoder, fit_fasttext
    from pipelines.progress import LOG_FILE, TerminalObserver, observe

    console = Console()
    flow = fit_fasttext if kind == "fasttext" else fit_encoder
    with TerminalObserver(console, request.folder / WORKSHOP / "logs" / LOG_FILE) as observer:
        observe(observer)
        folder = flow(**asked, settings=settings)
    console.print(f"model: {folder}", markup=False, highlight=False, soft_wrap=True)
