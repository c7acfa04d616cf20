"""`gristmill flagscale`: an experiment of FlagScale by our trainer, with everything said that differs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click
import yaml

from pipelines.commands.adopt import adopt_command
from pipelines.flagscale.arguments import find_overrides, launch_words
from pipelines.flagscale.config import FlagScaleConfig, load_config
from pipelines.flagscale.launch import Places, places_of, processes_of, running_process, start, stop, write_script
from pipelines.flagscale.settings import translate
from storage.commit import write_atomically
from storage.errors import InputError

ENDS = {"QwenTokenizerFS": "<|extra_204|>"}
"""The end of a document that FlagScale's own tokenizers put, where it is not the one of the tokenizer's file."""
OF_ONE_NODE = ("nnodes", "hostfile", "ssh_port", "rdzv_backend", "rdzv_endpoint", "master_addr", "master_port")


def dryrun_command(path: Path, overrides: tuple[str, ...]) -> None:
    """Print what Megatron would be told, what overrides what, what we make of it, and what we leave out."""
    config = load_config(path, overrides)
    _tell(config)
    click.echo(f"\nscript: {write_script(config, translate(config))}")


def run_command(path: Path, overrides: tuple[str, ...], *, tokenizer: Path | None, heldout: int) -> None:
    """Adopt the shards, write the script, start it."""
    config = load_config(path, overrides)
    places = places_of(config)
    _tell(config)
    _make_mixture(config, places, tokenizer, heldout)
    write_script(config, translate(config))
    click.echo(f"\nstarted as process {start(config)}; output: {places.output}")


def query_command(path: Path, overrides: tuple[str, ...]) -> None:
    """Print whether the experiment runs, and how far it is."""
    places = places_of(load_config(path, overrides))
    running = running_process(places)
    click.echo(f"RUNNING as process {running}" if running else "COMPLETED_OR_IDLE")
    try:
        row = json.loads((places.checkpoints / "metrics.jsonl").read_bytes().splitlines()[-1])
        click.echo(f"step {row['step']:,}, {row['tokens']:,} tokens, loss {row['loss']:.4f}")
    except (OSError, ValueError, IndexError):
        click.echo("no step was done yet")


def stop_command(path: Path, overrides: tuple[str, ...]) -> None:
    """Stop the experiment; the next run goes on from its last checkpoint."""
    stopped = stop(places_of(load_config(path, overrides)))
    click.echo(f"stopped process {stopped}" if stopped else "nothing runs here")


def _tell(config: FlagScaleConfig) -> None:
    settings = translate(config)
    for note in config.notes:
        click.echo(f"note: {note}")
    click.echo(f"Megatron's command:\n{shlex.join(launch_words(config))}\n")
    _list(
        "overridden (system, model, data lie over each other in this order)", [str(o) for o in find_overrides(config)]
    )
    preset = yaml.safe_dump({"model": settings.model, "training": settings.training}, sort_keys=False)
    click.echo(f"our settings, by {processes_of(config)} processes:\n{preset}")
    left = [f"{leaf}  ({why})" for leaf, why in settings.unhonoured] + _left_of_experiment(config)
    _list("not honoured", left)


def _list(title: str, lines: list[str]) -> None:
    click.echo(f"{title}: {len(lines)}")
    for line in lines:
        click.echo(f"    {line}")
    click.echo()


def _left_of_experiment(config: FlagScaleConfig) -> list[str]:
    """What of the experiment itself does not hold for a launch on this machine."""
    runner = config.experiment.get("runner") or {}
    nodes = [f"experiment.runner.{key}: {runner[key]}  (this node alone)" for key in OF_ONE_NODE if runner.get(key)]
    task = config.experiment.get("task") or {}
    return [*nodes, f"experiment.task.entrypoint: {task.get('entrypoint')}  (the bundled trainer instead)"]


def _make_mixture(config: FlagScaleConfig, places: Places, tokenizer: Path | None, heldout: int) -> None:
    """Adopt the shards of `data.data_path` once; the same list is not adopted again."""
    data: dict[str, Any] = config.task["data"]
    told = data.get("data_path")
    listed = told.split() if isinstance(told, str) else told
    if not listed:
        raise InputError("there is no `data.data_path`", at=str(config.path), hint="list weights and prefixes there")
    blend = (json.dumps([str(word) for word in listed], indent=1) + "\n").encode()
    if (places.mixture / "vocabulary.json").exists():
        if not places.blend.exists() or places.blend.read_bytes() != blend:
            raise InputError(
                "the experiment's mixture was made of other shards or weights",
                at=str(places.mixture),
                hint="remove it, or give the experiment another `exp_dir`",
            )
        return
    write_atomically(places.blend, blend)
    about = data.get("tokenizer") or {}
    adopt_command(
        places.blend,
        places.mixture,
        tokenizer=tokenizer or Path(str(about.get("tokenizer_path"))),
        end_of_document=ENDS.get(str(about.get("tokenizer_type"))) if tokenizer is None else None,
        variables=(),
        heldout=heldout,
    )
