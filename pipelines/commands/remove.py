"""`gristmill remove`: documents out of a run, from the text down to the shards."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from pipelines.commands.gc import find_garbage
from pipelines.removal import add_removals, read_removals, strip_written
from pipelines.request import saved_request
from pipelines.run_folder import find_step
from pipelines.story import require_documents, run_folder_at


def remove_command(asked: tuple[str, ...], out: Path, *, yes: bool) -> None:
    """Put the documents on the run's list, bring every dataset up to it, and delete what still holds them."""
    folder = run_folder_at(out)
    found = [document for name in asked for document in require_documents(folder, name)]
    for document in found:
        click.echo(document.doc_id.hex())
    if not yes:
        click.confirm(f"Remove {len(found)} documents from {out}, text, measurements, tokens and mixtures?", abort=True)
    add_removals(folder, (document.doc_id for document in found))
    _rebuild(out, mixed=find_step(folder, "mix") is not None)
    written = strip_written(folder, read_removals(folder))
    garbage = sorted(find_garbage(folder))
    for path in garbage:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder.root / "finished.json").unlink(missing_ok=True)
    click.echo(
        f"removed {len(found)} documents and {written} that were written from them; {len(garbage)} files and folders "
        "that held them are deleted. Models that were trained on them keep what they learned: train again with "
        "`gristmill run`."
    )


def _rebuild(out: Path, *, mixed: bool) -> None:
    """Run the steps up to the mixture again; only the parts that changed are worked on."""
    from rich.console import Console

    from pipelines.commands.run import quiet_prefect
    from pipelines.progress import LOG_FILE, TerminalObserver, observe

    quiet_prefect()
    from pipelines.flows.curate import curate_again
    from pipelines.flows.mix import mix

    with TerminalObserver(Console(), saved_request(out.absolute()).root / "logs" / LOG_FILE) as observer:
        observe(observer)
        curate_again(str(out))
        if mixed:
            mix(str(out))
