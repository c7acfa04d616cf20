"""The commands `gristmill tokenizer …`: what a tokenizer does to a run, and a `tokenizer.json` from other files."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.command_line.shared import OUT


@click.group()
def tokenizer() -> None:
    """Look at a tokenizer, or make a `tokenizer.json` of another file."""


SCHEME = click.option("--scheme", default=None, metavar="NAME", help="How a tiktoken file cuts text: cl100k, qwen, …")
END = click.option("--end-of-document", default=None, metavar="TOKEN", help="The token that ends a document.")


@tokenizer.command("survey")
@click.argument("path", metavar="[TOKENIZER]", required=False, type=click.Path(path_type=Path))
@OUT
@click.option("--sample", type=int, default=20_000_000, show_default=True, help="Bytes of text to look at.")
@END
@SCHEME
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, with all unused entries.")
def tokenizer_survey(
    path: Path | None, out: str, sample: int, end_of_document: str | None, scheme: str | None, as_json: bool
) -> None:
    """Show what TOKENIZER (default: the run's) does to a run's documents.

    By language and source: bytes per token and tokens per word; then entries that never come up, and whether every text
    comes back.
    """
    from pipelines.commands.tokenizer import survey_command

    survey_command(path, Path(out), sample=sample, end_of_document=end_of_document, scheme=scheme, as_json=as_json)


@tokenizer.command("convert")
@click.argument("path", metavar="TOKENIZER", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@END
@SCHEME
def tokenizer_convert(path: Path, target: Path, end_of_document: str | None, scheme: str | None) -> None:
    """Write the `tokenizer.json` of a tiktoken file, or of a folder with vocab.json and merges.txt, into TARGET."""
    from pipelines.commands.tokenizer import convert_command

    convert_command(path, target, end_of_document=end_of_document, scheme=scheme)
