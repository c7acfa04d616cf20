"""The command `gristmill train`: the bundled trainer by itself, by several processes here or on a Ray cluster."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.command_line.shared import on_ray


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--data", required=True, type=click.Path(path_type=Path), help="A mixture's folder.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the checkpoints.")
@click.option("--preset", default="tiny", show_default=True, help="The model to train: a shipped preset, or YAML.")
@click.option("--processes", type=click.IntRange(min=1), default=1, show_default=True, help="A GPU or some cores each.")
@click.option("--ray", "use_ray", is_flag=True, help="Start them on Ray, which starts all anew when one is lost.")
@on_ray
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[TRAINER OPTIONS]...")
def train(
    data: Path,
    out: Path,
    preset: str,
    processes: int,
    use_ray: bool,
    ray_address: str | None,
    workers: int | None,
    options: tuple[str, ...],
) -> None:
    """Train a model on a mixture; an unfinished run in the same folder goes on.

    All other options are the trainer's own: see the guide to training.
    """
    from pipelines.commands.train import train_here, train_on_ray

    words = ["train", "--data", str(data.absolute()), "--out", str(out.absolute()), "--preset", preset, *options]
    if use_ray:
        train_on_ray(words, out.absolute(), processes, ray_address=ray_address, workers=workers)
    else:
        train_here(words, processes)
