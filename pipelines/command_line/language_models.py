"""The commands that ask a language model: on a server, or in vLLM on the run's own cluster."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.command_line.shared import OUT, Command, on_ray, with_options

MODEL_OPTIONS = (
    click.option(
        "--server", default=None, metavar="URL", help="An OpenAI-compatible server, e.g. http://localhost:8000/v1."
    ),
    click.option(
        "--model", default=None, metavar="NAME|PATH", help="The server's model; without one, a folder for vLLM."
    ),
    click.option(
        "--api-key-env",
        "key_variable",
        default=None,
        metavar="NAME",
        help="Environment variable with the server's key.",
    ),
    click.option(
        "--constraint",
        type=click.Choice(["auto", "structured_outputs", "guided_choice", "response_format", "none"]),
        default="auto",
        show_default=True,
        help="How the server is told what form an answer has; auto asks vLLM for its version.",
    ),
    click.option("--concurrency", type=int, default=64, show_default=True, help="Requests in flight."),
    click.option(
        "--timeout", "timeout_seconds", type=float, default=120.0, show_default=True, help="Seconds for one request."
    ),
    click.option("--tensor-parallel", type=int, default=1, show_default=True, help="GPUs of one copy of the model."),
    click.option("--max-tokens", type=int, default=None, help="Context of the model in vLLM.  [default: the model's]"),
    click.option(
        "--dtype", default="auto", show_default=True, help="Number format of the model in vLLM, e.g. bfloat16."
    ),
    click.option(
        "--chat-template-option",
        "template_options",
        multiple=True,
        metavar="NAME=VALUE",
        help="Option of the model's chat template, e.g. enable_thinking=false. Repeatable.",
    ),
)


SAMPLE_OPTIONS = (
    click.option(
        "--most-per-stratum",
        type=int,
        default=None,
        help="At most so many of one source, language and length.  [default: all]",
    ),
    click.option(
        "--share",
        type=click.Choice(["proportional", "equal"]),
        default="proportional",
        show_default=True,
        help="Strata give documents by their size, or alike.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of the sample and of the model."),
)


def of_sample(command: Command) -> Command:
    """A command with the options that say which documents are drawn."""
    return with_options(command, SAMPLE_OPTIONS)


def of_model(command: Command) -> Command:
    """A command with the options that say which language model is asked, and how."""
    return with_options(command, MODEL_OPTIONS)


@click.command()
@OUT
@click.option(
    "--rubric",
    default="educational_direct_en",
    show_default=True,
    metavar="YAML",
    help="A rubric file, or a shipped one.",
)
@of_model
@click.option("--sample", type=int, default=1000, show_default=True, help="Documents to rate.")
@of_sample
@click.option("--where", default=None, metavar="SQL", help="Condition on documents, e.g. \"language.label = 'en'\".")
@click.option("--dropped", is_flag=True, default=False, help="Rate documents that the policy dropped too.")
@click.option("--temperature", type=float, default=0.0, show_default=True, help="Temperature of the model.")
@on_ray
def annotate(**options: object) -> None:
    """Have a language model rate a sample of a run's documents; finished ratings are never paid for twice."""
    from pipelines.commands.annotate import annotate_command

    annotate_command(options)


@click.command()
@OUT
@click.option(
    "--brief",
    default="chain_of_thought",
    show_default=True,
    metavar="YAML",
    help="A brief file, or a shipped one: what is to be written.",
)
@of_model
@click.option("--sample", type=int, default=1000, show_default=True, help="Documents to write from.")
@of_sample
@click.option("--where", default=None, metavar="SQL", help="Condition on documents.  [default: the brief's]")
@click.option("--dropped", is_flag=True, default=False, help="Write from documents that the policy dropped too.")
@click.option(
    "--most-copied",
    type=float,
    default=None,
    metavar="SHARE",
    help="Leave out texts of which more stands in their source.  [default: the brief's]",
)
@click.option(
    "--benchmarks", multiple=True, metavar="[NAME=]PATH", help="Leave out texts that hold items of these. Repeatable."
)
@click.option(
    "--benchmark-field", multiple=True, metavar="ROLE=FIELD", help="Field of benchmark rows, e.g. question=prompt."
)
@on_ray
def synthesize(**options: object) -> None:
    """Have a language model write documents from a run's own; what is written is never paid for twice."""
    from pipelines.commands.synthesize import synthesize_command

    synthesize_command(options)


@click.command("grade-stories")
@click.argument("stories", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Grades.  [default: STORIES.grades.jsonl]")
@of_model
def grade_stories(stories: Path, out: Path | None, **options: object) -> None:
    """Have a language model grade what `python -m trainer complete` wrote: grammar, consistency, creativity."""
    from pipelines.commands.grade_stories import grade_stories_command

    grade_stories_command(stories, out, options)
