"""The one Prefect task: do a step, unless its record says that it is done.

A step that fails by its user's fault is not retried; one that fails by a machine's is, and goes on where it was.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from prefect import task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE

from pipelines.flows.session import Session
from pipelines.jobs.submission import submission_id, submit_stage
from pipelines.progress import observer
from pipelines.run_folder import StepRecord, find_step, write_step
from pipelines.steps import StepPlan, outputs_exist, step_named
from storage.errors import CurationError, disk_errors

RETRIES = 2


def do(run: Session, step: str) -> StepRecord:
    """Run one step of the path as a Prefect task named after it."""
    named = do_step.with_options(name=step, task_run_name=step)
    record: StepRecord = named(run, step)
    return record


def is_worth_retrying(task: Any, task_run: Any, state: Any) -> bool:
    """Whether a step failed by a machine's fault."""
    try:
        state.result()
    except CurationError:
        return False
    except Exception:
        return True
    return False


@task(cache_policy=NO_CACHE, retries=RETRIES, retry_delay_seconds=2, retry_condition_fn=is_worth_retrying)
def do_step(run: Session, step: str) -> StepRecord:
    """Plan the step, and submit its Ray job unless the same was done here before."""
    with disk_errors(run.folder.root):
        return _do(run, step)


def _do(run: Session, step: str) -> StepRecord:
    definition = step_named(step)
    plan = definition.plan(run.request, run.folder)
    found = find_step(run.folder, step)
    if found and found.identity == plan.identity and outputs_exist(run.folder, step, found.result):
        observer().finished(step, definition.summarise(found.result), 0.0, reused=True)
        return found
    observer().started(step)
    started = time.monotonic()
    record = _submit(run, step, plan)
    write_step(run.folder, record)
    observer().finished(step, definition.summarise(record.result), time.monotonic() - started, reused=False)
    return record


def _submit(run: Session, step: str, plan: StepPlan) -> StepRecord:
    progress, cluster = StepProgress(step), run.cluster()
    outcome = submit_stage(
        cluster,
        job=plan.job,
        spec=plan.spec,
        run_folder=run.folder.root,
        submission_id=submission_id(run=run.folder.root.name, stage=step, identity=plan.identity),
        cpus=max(1.0, cluster.cpus // cluster.nodes) if plan.whole_node else plan.cpus,
        gpus=1.0 if plan.wants_gpu and cluster.gpus >= 1 else 0.0,
        on_progress=progress.update,
        is_whole=lambda result: outputs_exist(run.folder, step, result),
    )
    progress.finish()
    return StepRecord(
        step=step,
        identity=plan.identity,
        result=outcome.result,
        costs=outcome.costs.to_json(),
        submission_id=outcome.submission_id,
    )


class StepProgress:
    """A job's progress, to the observer and as a Prefect progress artifact (at most ten updates: each is a request)."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.tenth = 0
        created = create_progress_artifact(progress=0.0, key=f"progress-{step}", description=f"`{step}`")
        self.artifact = created if isinstance(created, UUID) else None

    def update(self, progress: Any) -> None:
        observer().progressed(self.step, progress.done, progress.total, progress.documents)
        tenth = 10 * progress.done // progress.total if progress.total else 0
        if tenth > self.tenth:
            self.tenth = tenth
            self._publish(10.0 * tenth)

    def finish(self) -> None:
        self._publish(100.0)

    def _publish(self, percent: float) -> None:
        if self.artifact is not None:
            update_progress_artifact(self.artifact, progress=min(percent, 100.0))


def publish_table(key: str, rows: list[dict[str, Any]], description: str) -> None:
    """Show a table on the flow run's page."""
    create_table_artifact(table=rows, key=key, description=description)
