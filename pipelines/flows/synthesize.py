"""The synthesis flow: a curated run in, documents that a language model wrote from its best ones out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from pipelines.flows.parameters import continued_request
from pipelines.flows.session import Session, session
from pipelines.flows.tasks import RETRIES, StepProgress, is_worth_retrying, publish_table
from pipelines.jobs.submission import submission_id, submit_stage
from pipelines.progress import observer
from pipelines.synthesis import FINAL, SynthesisPlan, SynthesisRequest, plan_synthesis
from storage.errors import disk_errors
from storage.manifests import MANIFEST

STEP = "synthesize"


@flow(name="synthesize", validate_parameters=False)
def synthesize(
    out: str = "runs/default",
    brief: str = "chain_of_thought",
    server: str | None = None,
    model: str | None = None,
    key_variable: str | None = None,
    sample: int = 1000,
    most_per_stratum: int | None = None,
    share: str = "proportional",
    where: str | None = None,
    dropped: bool = False,
    seed: int = 0,
    most_copied: float | None = None,
    benchmarks: Sequence[str] = (),
    benchmark_fields: Mapping[str, str] | None = None,
    constraint: str = "auto",
    concurrency: int = 64,
    timeout_seconds: float = 300.0,
    tensor_parallel: int = 1,
    max_tokens: int | None = None,
    dtype: str = "auto",
    template_options: Sequence[str] = (),
    ray_address: str | None = None,
    workers: int | None = None,
) -> str:
    """Have documents written from a sample of the run's; returns their folder."""
    asked = SynthesisRequest(**{**locals(), "benchmark_fields": benchmark_fields or {}})
    with session(continued_request(out, ray_address=ray_address, workers=workers)) as run:
        result = write_documents(run, plan_synthesis(asked, run.folder))
        steps = [{"step": step, **tokens} for step, tokens in result["tokens"].items()]
        publish_table("synthesis-tokens", steps, summarise(result))
        return str(run.folder.synthesis(result["place"]))


@task(
    name=STEP, task_run_name=STEP, cache_policy=NO_CACHE, retries=RETRIES, retry_delay_seconds=2,
    retry_condition_fn=is_worth_retrying,
)  # fmt: skip
def write_documents(run: Session, plan: SynthesisPlan) -> dict[str, Any]:
    """Submit the job; one that ended before counts only if asking again would mend nothing."""
    place = run.folder.synthesis(plan.place)
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
            is_whole=lambda result: not result["failed"].keys() - FINAL and (place / MANIFEST).exists(),
        )
    progress.finish()
    observer().finished(STEP, summarise(outcome.result), time.monotonic() - started, reused=outcome.rejoined)
    return outcome.result


def summarise(result: Mapping[str, Any]) -> str:
    """The counts of a result in a line: documents, what failed or was rejected, and tokens."""
    lost = {**result["failed"], **result["rejected"]}
    spent = [sum(tokens[kind] for tokens in result["tokens"].values()) for kind in ("prompt", "completion")]
    said = ", ".join(f"{reason} {count:,}" for reason, count in lost.items())
    return (
        f"{result['documents']:,} documents of {result['sampled']:,}; "
        f"{spent[0]:,} tokens read, {spent[1]:,} written, {result['written_tokens']:,} of them in documents"
        + (f"; left out: {said}" if said else "")
    )
