"""The curation flow: raw records in, documents with measurements and verdicts out."""

from __future__ import annotations

from typing import Literal

from prefect import flow

from pipelines.flows.parameters import Inputs, continued_request, new_request
from pipelines.flows.session import Session, session
from pipelines.flows.tasks import do, publish_table
from pipelines.funnel import funnel_rows
from pipelines.losses import alarms, source_losses
from pipelines.progress import observer
from pipelines.run_folder import forget_rewrites, forget_spans
from pipelines.sample import with_sample
from pipelines.steps import is_asked

STEPS = ("ingest", "rewrite", "spans", "measure", "embed", "deduplicate", "score", "classify", "fluency", "judge")


@flow(name="curate", validate_parameters=False)
def curate(
    inputs: Inputs | None = None,
    out: str = "runs/default",
    recipe: str = "web_wiki",
    policy: str | None = None,
    labels: str | None = None,
    bucket_sources: list[str] | None = None,
    language_model: str | None = None,
    entity_model: str | None = None,
    rewrite: list[str] | None = None,
    benchmarks: list[str] | None = None,
    benchmark_fields: dict[str, str] | None = None,
    measure: list[str] | None = None,
    repeated_spans: str | None = None,
    repeated_lines: str | None = None,
    near: str | None = None,
    semantic: float | None = None,
    sign_on: str = "cpu",
    duplicate_alarm: float = 0.5,
    encoder: str | None = None,
    score: list[str] | None = None,
    fluency_model: str | None = None,
    fluency_tokenizer: str | None = None,
    refit: bool = False,
    part_megabytes: float | None = None,
    extraction: Literal["best", "fast", "union"] = "best",
    http_status: list[int] | None = None,
    mime_type: list[str] | None = None,
    language: list[str] | None = None,
    namespace: list[int] | None = None,
    wiki_part: list[Literal["headings", "lists", "tables", "captions", "infoboxes", "categories"]] | None = None,
    license: dict[str, str] | None = None,
    metadata_only: list[str] | None = None,
    columns: dict[str, str] | None = None,
    ray_address: str | None = None,
    workers: int | None = None,
) -> str:
    """Ingest, rewrite where asked, measure, deduplicate, score and judge; returns the run folder."""
    given = dict(locals())
    request = with_sample(new_request(given.pop("inputs"), **given), lambda what, done, total: None)
    with session(request) as run:
        curate_run(run)
    return str(request.root)


@flow(name="curate-again", validate_parameters=False)
def curate_again(out: str) -> str:
    """Bring a run's curation up to its present inputs, policy and removals."""
    request = continued_request(out)
    with session(request) as run:
        curate_run(run)
    return str(request.root)


def curate_run(run: Session) -> None:
    """The steps of curation, the funnel as a table on the flow run's page, and what duplicates cost too much."""
    for step, forget in (("rewrite", forget_rewrites), ("spans", forget_spans)):
        if not is_asked(step, run.request):
            forget(run.folder)
    for step in STEPS:
        if is_asked(step, run.request):
            do(run, step)
    publish_table("funnel", funnel_rows(run.folder), "From records to kept documents")
    for alarm in alarms(source_losses(run.folder), run.request.duplicate_alarm):
        observer().said(f"warning: {alarm}")
