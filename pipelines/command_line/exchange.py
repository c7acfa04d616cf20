"""The commands that exchange mixtures and texts with other tools: `adopt` takes theirs, `export` gives ours."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("blend", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--tokenizer", required=True, type=click.Path(path_type=Path), help="The shards' `tokenizer.json`, or its folder."
)
@click.option("--end-of-document", default=None, metavar="TOKEN", help="The token that ends a document.")
@click.option("--set", "variables", multiple=True, metavar="NAME=VALUE", help="What `${NAME}` stands for. Repeatable.")
@click.option("--heldout", type=int, default=50_000, show_default=True, help="Tokens of each shard that are set aside.")
def adopt(
    blend: Path, target: Path, tokenizer: Path, end_of_document: str | None, variables: tuple[str, ...], heldout: int
) -> None:
    """Make TARGET, a mixture to train on, from BLEND: a list of weights and shards as Megatron and OpenSeek have it."""
    from pipelines.commands.adopt import adopt_command

    adopt_command(
        blend, target, tokenizer=tokenizer, end_of_document=end_of_document, variables=variables, heldout=heldout
    )


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--out", default="runs/default", show_default=True, metavar="FOLDER", help="The run's folder.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "dataset", "shards", "megatron", "flagscale", "olmo-core"]),
    default="parquet",
    show_default=True,
    help="The kept documents (parquet, dataset), the mixture as Megatron shards that need no run, or what another "
    "trainer reads it by (megatron, flagscale, olmo-core).",
)
@click.option(
    "--partition-by",
    "partition",
    default=None,
    metavar="SQL",
    help="Divide Parquet files by a value, as folders NAME=VALUE/, e.g. ensemble.bucket.",
)
@click.option(
    "--mixture",
    default=None,
    type=click.Path(path_type=Path),
    help="With another trainer's format: a mixture folder.  [default: the run's]",
)
@click.option(
    "--base",
    default=None,
    metavar="FOLDER|URL",
    help="With another trainer's format: what paths in the lists begin with.  [default: where the files are]",
)
@click.option("--stage", default=None, metavar="NAME", help="The mixture of this stage.  [default: the first]")
def export(
    target: Path,
    out: str,
    form: str,
    partition: str | None,
    mixture: Path | None,
    base: str | None,
    stage: str | None,
) -> None:
    """Write the kept documents to TARGET, or the mixture as shards or in another trainer's words; with a card."""
    from pipelines.commands.export import export_command

    export_command(Path(out), target, form, partition=partition, mixture=mixture, base=base, stage=stage)
