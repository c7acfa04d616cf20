"""The command `gristmill`: one function a command, each a few lines over the room that does the work.

Heavy imports (Prefect, Ray, torch) happen inside the commands that need them, so `--help` and a finished run answer in
well under a second.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import click

from pipelines.command_line.exchange import adopt, export
from pipelines.command_line.fit import fit
from pipelines.command_line.flagscale import flagscale
from pipelines.command_line.language_models import annotate, grade_stories, synthesize
from pipelines.command_line.shards import shards, where
from pipelines.command_line.shared import OUT, on_ray
from pipelines.command_line.studies import ablate, search_mixture, validate
from pipelines.command_line.tokenizer import tokenizer
from pipelines.command_line.training import train
from pipelines.environment import prepare_environment
from storage.errors import CurationError, GristmillError

STOPPED = "stopped; run the same command to go on where it was"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("gristmill"), prog_name="gristmill")
def cli() -> None:
    """Raw web crawls and encyclopedia dumps in, a trained and evaluated language model out.

    Start with `gristmill run`, which needs nothing; then name your own data.
    """


@cli.command()
@click.option("--web", multiple=True, metavar="[NAME=]PATH", help="WARC files: a path, a glob or a URL. Repeatable.")
@click.option("--wet", multiple=True, metavar="[NAME=]PATH", help="WET files. Repeatable.")
@click.option("--encyclopedia", multiple=True, metavar="[NAME=]PATH", help="MediaWiki XML dumps. Repeatable.")
@click.option("--jsonl", multiple=True, metavar="[NAME=]PATH", help="JSON lines (.gz, .zst). Repeatable.")
@click.option("--parquet", multiple=True, metavar="[NAME=]PATH", help="Parquet files. Repeatable.")
@click.option(
    "--text",
    multiple=True,
    metavar="[NAME=]PATH[?separator=TEXT]",
    help="Text files, a document each, or several with a separator: 'all.txt?separator=<|endoftext|>'. Repeatable.",
)
@click.option(
    "--dataset",
    multiple=True,
    metavar="[NAME=]PATH[?OPTIONS]",
    help="Hugging Face dataset, local or hub, e.g. 'owner/name?subset=en&split=test&revision=v1'. Repeatable.",
)
@click.option(
    "--documents",
    multiple=True,
    metavar="[NAME=]FOLDER",
    help="Documents that Gristmill wrote, e.g. by `gristmill synthesize`. Repeatable.",
)
@click.option(
    "--column",
    multiple=True,
    metavar="[SOURCE:]OURS=THEIRS",
    help="Column of JSONL, Parquet or a dataset, e.g. text=body. Repeatable.",
)
@click.option("--licence", multiple=True, metavar="SOURCE=LICENCE", help="Licence of a source's documents.")
@click.option(
    "--metadata-only",
    multiple=True,
    metavar="SOURCE",
    help="Measure a source's texts, and never write them to shards or exports. Repeatable.",
)
@click.option(
    "--recipe", default="web_wiki", show_default=True, metavar="YAML", help="A recipe file, or a shipped one."
)
@click.option(
    "--policy", default=None, metavar="YAML", help="A policy file, or a shipped one.  [default: the recipe's]"
)
@click.option(
    "--labels",
    default=None,
    metavar="PATH",
    help="Labelled texts (JSONL), or annotations, for the quality head.",
)
@click.option(
    "--bucket-source",
    "bucket_sources",
    multiple=True,
    metavar="NAME",
    help="Source whose text sets the quality buckets. Repeatable.  [default: all; without labels all but encyclopedia]",
)
@click.option("--language-model", default=None, metavar="PATH", help="A fastText .bin or .ftz.  [default: lid.176]")
@click.option("--entity-model", default=None, metavar="PATH", help="A Hugging Face token classifier that finds names.")
@click.option(
    "--rewrite", multiple=True, metavar="NAME[:OPTION=VALUE,...]", help="Rewrite texts before measuring. Repeatable."
)
@click.option(
    "--benchmarks", multiple=True, metavar="[NAME=]PATH", help="Benchmark files to find in the documents. Repeatable."
)
@click.option(
    "--benchmark-field", multiple=True, metavar="ROLE=FIELD", help="Field of benchmark rows, e.g. question=prompt."
)
@click.option(
    "--measure", multiple=True, metavar="NAME[:OPTION=VALUE,...]", help="Measure texts by one thing more. Repeatable."
)
@click.option(
    "--near",
    default=None,
    metavar="PRESET[:OPTION=VALUE,...]",
    help="Search for near-duplicates: default, datatrove or cci4, and what is to differ.  [default: the policy's]",
)
@click.option(
    "--repeated-spans", default=None, metavar="substring:LENGTH[,OPTION=VALUE...]", help="Find repeated passages."
)
@click.option(
    "--repeated-lines",
    default=None,
    metavar="host|corpus:DOCUMENTS[,OPTION=VALUE...]",
    help="Find lines or paragraphs that stand in many documents; also c4, ccnet.",
)
@click.option(
    "--semantic",
    type=float,
    default=None,
    metavar="COSINE",
    help="Find texts that mean the same, from this cosine.",
)
@click.option(
    "--sign-on",
    type=click.Choice(["cpu", "gpu"]),
    default="cpu",
    show_default=True,
    help="Where signatures are made; both make the same.",
)
@click.option(
    "--duplicate-alarm",
    type=float,
    default=0.5,
    show_default=True,
    metavar="SHARE",
    help="Warn of a source that loses more than this share to duplicates.",
)
@click.option("--encoder", default=None, metavar="PATH", help="A Hugging Face encoder.  [default: MiniLM-L6]")
@click.option(
    "--score",
    multiple=True,
    metavar="NAME=MODEL[:OPTION=VALUE,...]",
    help="Score by a text classifier, e.g. edu=PATH:clip=0..5 or dclm=MODEL.bin:positive=hq. Repeatable.",
)
@click.option("--fluency-model", default=None, metavar="PATH", help="A causal or KenLM model: measures `fluency`.")
@click.option("--fluency-tokenizer", default=None, metavar="PATH", help="What a KenLM model was tokenized with.")
@click.option(
    "--refit", is_flag=True, default=False, help="Fit percentiles and thirds anew, not those of an earlier run."
)
@click.option("--preset", default="tiny", show_default=True, help="The model to train.")
@click.option("--train-steps", type=int, default=None, help="Training steps.  [default: the preset's]")
@click.option("--train-processes", type=int, default=1, show_default=True, help="Processes that train together.")
@click.option("--part-megabytes", type=float, default=None, help="Text of a documents part.  [default: 256]")
@click.option(
    "--extraction",
    type=click.Choice(["best", "fast", "union"]),
    default="best",
    show_default=True,
    help="How the text of web pages is found.",
)
@click.option(
    "--http-status",
    type=int,
    multiple=True,
    default=(200,),
    show_default=True,
    help="Read web pages of this HTTP status. Repeatable.",
)
@click.option(
    "--mime-type",
    multiple=True,
    metavar="TYPE",
    default=("text/html", "application/xhtml+xml"),
    show_default=True,
    help="Read web pages of this media type; text/plain too. Repeatable.",
)
@click.option(
    "--language",
    multiple=True,
    metavar="CODE",
    help="Skip web pages that are said to be in other languages. Repeatable.",
)
@click.option(
    "--namespace",
    type=int,
    multiple=True,
    default=(0,),
    show_default=True,
    help="Read pages of this namespace of a MediaWiki dump. Repeatable.",
)
@click.option(
    "--wiki-part",
    type=click.Choice(["headings", "lists", "tables", "captions", "infoboxes", "categories"]),
    multiple=True,
    default=("headings", "lists", "tables"),
    show_default=True,
    help="Keep this of a wiki's pages besides their paragraphs. Repeatable.",
)
@on_ray
@OUT
def run(**options: object) -> None:
    """Curate, mix, tokenize, train, evaluate and report. Finished work is never done twice."""
    from pipelines.commands.run import run_command

    run_command(options)


@cli.command()
@click.argument("recipe", default="web_wiki")
@OUT
@click.option(
    "--policy", default=None, metavar="YAML", help="A policy file, or a shipped one.  [default: the recipe's]"
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option("--force", is_flag=True, help="Show it even where it repeats documents more than 16 times.")
def plan(recipe: str, out: str, policy: str | None, as_json: bool, force: bool) -> None:
    """Show what RECIPE would take from a curated run, before anything runs."""
    from pipelines.commands.plan import plan_command

    plan_command(recipe, Path(out), policy=policy, as_json=as_json, force=force)


@cli.command()
@click.argument("first", metavar="RECIPE")
@click.argument("second", metavar="OTHER")
@OUT
@click.option("--json", "as_json", is_flag=True, help="Print both as JSON.")
@click.option("--force", is_flag=True, help="Show them even where documents are repeated more than 16 times.")
def diff(first: str, second: str, out: str, as_json: bool, force: bool) -> None:
    """Show how what OTHER would take from a curated run differs from RECIPE."""
    from pipelines.commands.diff import diff_command

    diff_command(first, second, Path(out), as_json=as_json, force=force)


cli.add_command(adopt)


@cli.command()
@click.argument("document", metavar="DOC_ID|URL")
@OUT
@click.option("--policy", default=None, metavar="IDENTITY", help="Another policy's decisions.  [default: the run's]")
@click.option("--json", "as_json", is_flag=True, help="Print the story as JSON.")
def why(document: str, out: str, policy: str | None, as_json: bool) -> None:
    """Print a document's whole story, from its raw record to its place in a shard."""
    from pipelines.commands.why import why_command

    why_command(document, Path(out), policy=policy, as_json=as_json)


cli.add_command(train)
cli.add_command(flagscale)
cli.add_command(where)
cli.add_command(shards)
cli.add_command(tokenizer)


@cli.command()
@OUT
def report(out: str) -> None:
    """Write the run's HTML report anew."""
    from pipelines.commands.report import report_command

    report_command(Path(out))


cli.add_command(export)


@cli.command()
@click.argument("documents", nargs=-1, required=True, metavar="DOC_ID|URL...")
@OUT
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(documents: tuple[str, ...], out: str, yes: bool) -> None:
    """Remove documents from a run, from the text down to the shards."""
    from pipelines.commands.remove import remove_command

    remove_command(documents, Path(out), yes=yes)


@cli.command()
@OUT
@click.option("--yes", is_flag=True, help="Delete; without it the files are only listed.")
def gc(out: str, yes: bool) -> None:
    """Find what the run does not need any more: parts of earlier configurations, left-over temporary files."""
    from pipelines.commands.gc import gc_command

    gc_command(Path(out), yes=yes)


@cli.command()
@OUT
def doctor(out: str) -> None:
    """Check versions, GPU, Ray, Prefect, ports and disk."""
    from pipelines.commands.doctor import doctor_command

    doctor_command(Path(out))


for command in (ablate, validate, search_mixture, annotate, grade_stories, synthesize, fit):
    cli.add_command(command)


def main() -> None:
    """The entry point of the command."""
    prepare_environment()
    raise_on_sigterm()
    _leave(carry_out(sys.argv[1:]))


def carry_out(arguments: Sequence[str]) -> int:
    """Do what a command line says. Returns 2 for what the user can mend (three lines, no traceback), 1 for ours."""
    try:
        cli.main(args=list(arguments), prog_name="gristmill", standalone_mode=False)
        said, code = "", 0
    except click.exceptions.Abort as error:
        said, code = STOPPED if isinstance(error.__cause__, KeyboardInterrupt) else "stopped", 130
    except click.ClickException as error:
        error.show()
        said, code = "", 2
    except CurationError as error:
        said, code = f"error: {error}", 2
    except GristmillError as error:
        said, code = f"error: {error}", 1
    except KeyboardInterrupt:
        said, code = STOPPED, 130
    except BaseException as error:
        if not was_terminated(error):
            raise
        said, code = STOPPED, 143
    if said:
        click.echo(said, err=True)
    return code


class Terminated(BaseException):
    """SIGTERM: what is open is closed on the way out, a Ray job stopped."""


def raise_on_sigterm() -> None:
    """From now on SIGTERM is an exception in this process, the first time; a forked child ends as if by itself."""
    owner = os.getpid()

    def end(number: int, _: object) -> None:
        is_own = os.getpid() == owner
        signal.signal(number, _already_ending if is_own else signal.SIG_DFL)
        if is_own:
            raise Terminated
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)


def _already_ending(*_: object) -> None:
    return None


def was_terminated(error: BaseException | None) -> bool:
    """Whether SIGTERM is behind it: in a flow Prefect raises it, and others may follow while that ends."""
    while error is not None:
        if isinstance(error, Terminated) or type(error).__name__ == "TerminationSignal":
            return True
        error = error.__cause__ or error.__context__
    return False


def _leave(code: int) -> NoReturn:
    """End the process after its exit handlers, without the interpreter's own shutdown: DuckDB's binding reports every
    object that is still held, some hundred lines below the few that matter."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
