"""What the flows of all studies share: a mixture by the study's own policy and recipe, and proxies trained on it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from pipelines.flows.session import Session
from pipelines.flows.tasks import RETRIES, StepProgress, do, is_worth_retrying
from pipelines.jobs.submission import submission_id, submit_stage
from pipelines.progress import observer
from pipelines.studies import Proxy, Study
from storage.errors import disk_errors
from storage.identity import fingerprint

STEP = "proxies"


def mix_study(run: Session, study: Study) -> tuple[Session, str]:
    """Judge, tokenize and mix for the study; its own session, and the mixture."""
    run.cluster()  # opened here, so that the steps below share it
    inner = dataclasses.replace(run, request=study.run, folder=study.folder)
    for step in ("judge", "vocabulary", "tokenize", "plan"):
        record = do(inner, step)
    observer().said(record.result["text"])
    return inner, str(do(inner, "mix").result["mixture"])


@task(
    name=STEP, task_run_name=STEP, cache_policy=NO_CACHE, retries=RETRIES, retry_delay_seconds=2,
    retry_condition_fn=is_worth_retrying,
)  # fmt: skip
def train_proxies(run: Session, study: Study, mixture: str, proxies: Sequence[Proxy]) -> list[dict[str, Any]]:
    """Submit the job: a core or a GPU for each proxy. What each learned, as the job says it."""
    cluster, progress, started = run.cluster(), StepProgress(STEP), time.monotonic()
    observer().started(STEP)
    rows = [proxy.to_json() for proxy in proxies]
    identity = fingerprint({"study": study.identity, "proxies": rows})
    home = study.folder.home / "proxies"
    spec = {**study.training, "identity": identity, "home": str(home), "mixture": mixture, "proxies": rows}
    with disk_errors(study.folder.home):
        outcome = submit_stage(
            cluster,
            job=STEP,
            spec=spec,
            run_folder=run.folder.root,
            submission_id=submission_id(run=run.folder.root.name, stage=STEP, identity=identity),
            gpus=1.0 if cluster.gpus >= 1 else 0.0,
            on_progress=progress.update,
        )
    progress.finish()
    trained: list[dict[str, Any]] = outcome.result["proxies"]
    told = f"{len(trained)} models, {study.steps:,} steps each"
    observer().finished(STEP, told, time.monotonic() - started, reused=outcome.rejoined)
    return trained
