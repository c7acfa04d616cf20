"""The commands that train small models on parts of a run to answer a question about it."""

from __future__ import annotations

import click

from pipelines.command_line.shared import OUT, on_ray


@click.command()
@OUT
@click.option("--by", default="quality.bucket", show_default=True, metavar="SQL", help="A bucket, from 0 to 19.")
@click.option("--groups", type=int, default=5, show_default=True, help="Ranges that the buckets are cut into.")
@click.option("--where", default=None, metavar="SQL", help="Documents that count, e.g. \"language.label = 'en'\".")
@click.option("--reference", default=None, metavar="SQL", help="Documents that are measured on and not learned from.")
@click.option("--tokens", type=int, default=1_000_000, show_default=True, help="Tokens that each model learns from.")
@click.option("--heldout", type=int, default=20_000, show_default=True, help="Held-out tokens of each range.")
@click.option("--max-epochs", type=float, default=4.0, show_default=True, help="How often a document is repeated.")
@click.option("--preset", default="tiny", show_default=True, help="The model to train.")
@click.option("--seeds", type=int, default=1, show_default=True, help="Models of each range.")
@click.option("--policy", default=None, metavar="YAML", help="What counts.  [default: the run's, without its scores]")
@on_ray
def validate(**options: object) -> None:
    """Train a model on each range of a score's buckets, and compare what they learned."""
    from pipelines.commands.validate import validate_command

    validate_command(options)


@click.command("search-mixture")
@click.argument("recipe", required=False)
@OUT
@click.option("--mixtures", type=int, default=48, show_default=True, help="Sampled mixtures that laws are fitted to.")
@click.option(
    "--heldout-mixtures", type=int, default=16, show_default=True, help="Further ones that say how good the laws are."
)
@click.option("--repeats", type=int, default=2, show_default=True, help="Models of each of those.")
@click.option("--final-seeds", type=int, default=3, show_default=True, help="Models of the best and the recipe's own.")
@click.option("--tokens", type=int, default=1_000_000, show_default=True, help="Tokens that each model learns from.")
@click.option("--heldout", type=int, default=20_000, show_default=True, help="Held-out tokens of each source.")
@click.option(
    "--target-tokens",
    type=int,
    default=None,
    help="Tokens of the training that the mixture is for; `max_epochs` holds there.  [default: the recipe's]",
)
@click.option(
    "--objective", multiple=True, metavar="NAME=WEIGHT", help="Which held-out texts count.  [default: all alike]"
)
@click.option("--reference", default=None, metavar="SQL", help="Documents that are measured on and not learned from.")
@click.option("--stage", default=None, metavar="NAME", help="Of a recipe with several.  [default: the first]")
@click.option("--preset", default="proxy", show_default=True, help="The model to train.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed samples other mixtures.")
@on_ray
def search_mixture(**options: object) -> None:
    """Find the best shares of a recipe's sources (default: the run's) with small models, and train on them."""
    from pipelines.commands.search_mixture import search_mixture_command

    search_mixture_command(options)


@click.command()
@click.argument("arms", nargs=-1, required=True, metavar="A.yaml B.yaml...")
@OUT
@click.option("--seeds", type=int, default=None, help="Models of each.  [default: the matrix's, else 3]")
@click.option(
    "--tokens",
    type=int,
    default=None,
    help="Tokens that each model learns from.  [default: the matrix's, else 1000000]",
)
@click.option("--heldout", type=int, default=20_000, show_default=True, help="Tokens of each held-out text.")
@click.option(
    "--measure-on",
    multiple=True,
    metavar="NAME=SQL",
    help="A held-out text: documents that no model learns from. Repeatable.  [default: of each source, what all keep]",
)
@click.option("--preset", default=None, help="The model to train.  [default: the matrix's, else tiny]")
@on_ray
def ablate(**options: object) -> None:
    """Train the same small model on several recipes or policies, or on a MATRIX.yaml of experiments, and compare."""
    from pipelines.commands.ablate import ablate_command

    ablate_command(options)
