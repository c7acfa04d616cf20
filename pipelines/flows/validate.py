"""The validation flow: proxies trained on ranges of a score's buckets, and what each learned, as a table."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from pipelines.flows.parameters import continued_request
from pipelines.flows.session import Session, session
from pipelines.flows.tasks import RETRIES, StepProgress, do, is_worth_retrying, publish_table
from pipelines.jobs.submission import submission_id, submit_stage
from pipelines.progress import observer
from pipelines.validation import (
    ValidationPlan,
    ValidationRequest,
    compare_proxies,
    find_finished,
    plan_validation,
    table_of,
)
from storage.commit import write_atomically
from storage.errors import disk_errors

STEP = "proxies"


@flow(name="validate", validate_parameters=False)
def validate(
    out: str = "runs/default",
    by: str = "quality.bucket",
    groups: int = 5,
    where: str | None = None,
    reference: str | None = None,
    tokens: int = 1_000_000,
    heldout: int = 20_000,
    max_epochs: float = 4.0,
    preset: str = "tiny",
    seeds: int = 1,
    policy: str | None = None,
    ray_address: str | None = None,
    workers: int | None = None,
) -> str:
    """Train a proxy on each range of buckets, with equal tokens; returns the path of the result."""
    asked = ValidationRequest(**dict(locals()))
    with session(continued_request(out, ray_address=ray_address, workers=workers)) as run:
        plan = plan_validation(asked, run.request, run.folder)
        result = find_finished(plan) or validate_run(run, plan)
        publish_table("validation", table_of(result), f"What proxies learned from each range of `{by}`")
        return str(plan.folder.result)


def validate_run(run: Session, plan: ValidationPlan) -> dict[str, Any]:
    """Judge, tokenize and mix by the validation's own policy and recipe; then train, and compare."""
    run.cluster()  # opened here, so that the steps below share it
    inner = dataclasses.replace(run, request=plan.run, folder=plan.folder)
    for step in ("judge", "vocabulary", "tokenize", "plan"):
        record = do(inner, step)
    observer().said(record.result["text"])
    mixture = do(inner, "mix").result["mixture"]
    result = compare_proxies(plan, train_proxies(inner, plan, mixture)["proxies"])
    write_atomically(plan.folder.result, (json.dumps(result, indent=1) + "\n").encode())
    return result


@task(
    name=STEP, task_run_name=STEP, cache_policy=NO_CACHE, retries=RETRIES, retry_delay_seconds=2,
    retry_condition_fn=is_worth_retrying,
)  # fmt: skip
def train_proxies(run: Session, plan: ValidationPlan, mixture: str) -> dict[str, Any]:
    """Submit the job: a core or a GPU for each proxy."""
    cluster, progress, started = run.cluster(), StepProgress(STEP), time.monotonic()
    observer().started(STEP)
    spec = {
        **plan.training,
        "identity": plan.identity,
        "home": str(plan.folder.home / "proxies"),
        "mixture": mixture,
        "sources": list(plan.request.ranges()),
        "seeds": list(range(1, plan.request.seeds + 1)),
    }
    with disk_errors(plan.folder.home):
        outcome = submit_stage(
            cluster,
            job=STEP,
            spec=spec,
            run_folder=run.folder.root,
            submission_id=submission_id(run=run.folder.root.name, stage=STEP, identity=plan.identity),
            gpus=1.0 if cluster.gpus >= 1 else 0.0,
            on_progress=progress.update,
        )
    progress.finish()
    told = f"{len(outcome.result['proxies'])} models, {plan.steps:,} steps each"
    observer().finished(STEP, told, time.monotonic() - started, reused=outcome.rejoined)
    return outcome.result
