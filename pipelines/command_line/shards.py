"""The commands `gristmill where` and `gristmill shards …`: work on `.bin`/`.idx` pairs, of a run or anybody's."""

from __future__ import annotations

from pathlib import Path

import click

SHARD = click.Path(path_type=Path)
TOKENIZER = click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    default=None,
    metavar="PATH",
    help="A `tokenizer.json`, or its folder.  [default: the one beside the shards]",
)
END = click.option("--end-of-document", default=None, metavar="TOKEN", help="With --tokenizer: what ends a document.")


@click.command()
@click.argument("shard", type=SHARD)
@click.argument("offset", type=int)
@click.option(
    "--by",
    type=click.Choice(["token", "byte", "sequence"]),
    default="token",
    show_default=True,
    help="What OFFSET counts: tokens in the index's order, bytes of the .bin, or sequences.",
)
@click.option("--out", default=None, metavar="FOLDER", help="The run's folder, for a shard that was exported from it.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def where(shard: Path, offset: int, by: str, out: str | None, as_json: bool) -> None:
    """Print which document stands at a place of a shard, and its way back to the raw record."""
    from pipelines.commands.where import where_command

    where_command(shard, offset, by=by, out=Path(out) if out else None, as_json=as_json)


@click.group()
def shards() -> None:
    """Check, show, join, cut and read token shards: Megatron `.bin`/`.idx` pairs."""


@shards.command()
@click.argument("places", nargs=-1, required=True, type=SHARD, metavar="SHARD|FOLDER...")
@TOKENIZER
@END
def verify(places: tuple[Path, ...], tokenizer: Path | None, end_of_document: str | None) -> None:
    """Read shards, mixtures or token stores whole: checksums, counts, pointers, ids within the vocabulary."""
    from pipelines.commands.shards import verify_command

    verify_command(places, tokenizer, end_of_document)


@shards.command()
@click.argument("shard", type=SHARD)
@TOKENIZER
@click.option("--from", "start", type=int, default=0, show_default=True, metavar="TOKEN", help="First token to show.")
@click.option("--tokens", type=int, default=200, show_default=True, help="How many to show.")
@click.option("--ids", is_flag=True, help="Show the ids, too.")
def inspect(shard: Path, tokenizer: Path | None, start: int, tokens: int, ids: bool) -> None:
    """Show what a shard is, and the text of a range of its tokens."""
    from pipelines.commands.shards import inspect_command

    inspect_command(shard, tokenizer, start=start, tokens=tokens, ids=ids)


@shards.command()
@click.argument("target", type=SHARD)
@click.argument("prefixes", nargs=-1, required=True, type=SHARD, metavar="SHARD...")
def merge(target: Path, prefixes: tuple[Path, ...]) -> None:
    """Join shards to TARGET.bin and TARGET.idx, in their order, as Megatron's merge_datasets does."""
    from pipelines.commands.shards import merge_command

    merge_command(target, prefixes)


@shards.command()
@click.argument("target", type=SHARD)
@click.argument("shard", type=SHARD)
@click.option("--tokens", type=int, required=True, help="About how many tokens a piece has.")
def split(target: Path, shard: Path, tokens: int) -> None:
    """Cut SHARD into TARGET-0000 and so on, never inside a document."""
    from pipelines.commands.shards import split_command

    split_command(target, shard, tokens)


@shards.command()
@click.argument("target", type=SHARD)
@click.argument("mixture", type=SHARD)
@click.option("--sequence-length", type=int, default=None, help="Tokens of a sequence.  [default: the mixture's]")
def pack(target: Path, mixture: Path, sequence_length: int | None) -> None:
    """Write MIXTURE to TARGET with its documents packed into full sequences, so that few are cut (best fit)."""
    from pipelines.commands.shards import pack_command

    pack_command(target, mixture, sequence_length)


@shards.command()
@click.argument("target", type=SHARD)
@click.argument("shard", type=SHARD)
@TOKENIZER
@click.option("--text", is_flag=True, help="Add the decoded text.")
def arrow(target: Path, shard: Path, tokenizer: Path | None, text: bool) -> None:
    """Write SHARD to TARGET, an Arrow file that `datasets.Dataset.from_file` opens."""
    from pipelines.commands.shards import arrow_command

    arrow_command(target, shard, tokenizer, with_text=text)
