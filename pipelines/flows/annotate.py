"""The annotation flow: a curated run in, a language model's labels of a sample of its documents out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from pipelines.annotation import AnnotationPlan, AnnotationRequest, plan_annotation
from pipelines.flows.parameters import continued_request
from pipelines.flows.session import Session, session
from pipelines.flows.tasks import RETRIES, StepProgress, is_worth_retrying, publish_table
from pipelines.jobs.submission import submission_id, submit_stage
from pipelines.progress import observer
from storage.errors import disk_errors
from storage.manifests import MANIFEST

STEP = "annotate"


@flow(name="annotate", validate_parameters=False)
def annotate(
    out: str = "runs/default",
    rubric: str = "educational_direct_en",
    server: str | None = None,
    model: str | None = None,
    key_variable: str | None = None,
    sample: int = 1000,
    most_per_stratum: int | None = None,
    share: str = "proportional",
    where: str | None = None,
    dropped: bool = False,
    seed: int = 0,
    temperature: float = 0.0,
    constraint: str = "auto",
    concurrency: int = 64,
    timeout_seconds: float = 120.0,
    tensor_parallel: int = 1,
    max_tokens: int | None = None,
    dtype: str = "auto",
    template_options: Sequence[str] = (),
    ray_address: str | None = None,
    workers: int | None = None,
) -> str:
    """Have a sample of the run's documents rated; returns the folder of the labels."""
    asked = AnnotationRequest(**dict(locals()))
    with session(continued_request(out, ray_address=ray_address, workers=workers)) as run:
        result = annotate_sample(run, plan_annotation(asked, run.folder))
        publish_table("strata", result["strata"], f"{result['labelled']:,} of {result['documents']:,} labelled")
        return str(run.folder.annotations(result["place"]))


@task(
    name=STEP, task_run_name=STEP, cache_policy=NO_CACHE, retries=RETRIES, retry_delay_seconds=2,
    retry_condition_fn=is_worth_retrying,
)  # fmt: skip
def annotate_sample(run: Session, plan: AnnotationPlan) -> dict[str, Any]:
    """Submit the job; one that ended before counts only if none of its documents failed."""
    place = run.folder.annotations(plan.place)
    observer().started(STEP)
    started, cluster, progress = time.monotonic(), run.cluster(), StepProgress(STEP)
    with disk_errors(place):
        outcome = submit_stage(
            cluster,
            job=STEP,
            spec=plan.spec,
            run_folder=run.folder.root,
            submission_id=submission_id(run=run.folder.root.name, stage=STEP, identity=plan.identity),
            cpus=max(1.0, cluster.cpus // cluster.nodes),
            gpus=float(plan.gpus) if cluster.gpus >= plan.gpus else 0.0,
            on_progress=progress.update,
            is_whole=lambda result: not result["failed"] and (place / MANIFEST).exists(),
        )
    progress.finish()
    observer().finished(STEP, summarise(outcome.result), time.monotonic() - started, reused=outcome.rejoined)
    return outcome.result


def summarise(result: dict[str, Any]) -> str:
    failed = ", ".join(f"{reason} {count:,}" for reason, count in result["failed"].items())
    return f"{result['labelled']:,} of {result['documents']:,} documents labelled" + (
        f"; failed: {failed}" if failed else ""
    )
