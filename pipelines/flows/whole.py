"""The whole path: from raw crawl and encyclopedia dump to a trained model and its report, as one flow of three."""

from __future__ import annotations

from typing import Literal

from prefect import flow

from pipelines.flows.curate import curate_run
from pipelines.flows.mix import mix_run
from pipelines.flows.parameters import Inputs, new_request
from pipelines.flows.session import session
from pipelines.flows.train import train_run
from pipelines.sample import with_sample


@flow(name="gristmill", validate_parameters=False)
def gristmill(
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
    preset: str = "tiny",
    train_steps: int | None = None,
    train_processes: int = 1,
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
    """Curate, mix and train; returns the report's path. Without inputs the embedded sample is used."""
    given = dict(locals())
    request = with_sample(new_request(given.pop("inputs"), **given), lambda what, done, total: None)
    with session(request) as run:
        curate_run(run)
        mix_run(run)
        train_run(run)
        return str(run.folder.report)
