"""The validation flow: proxies trained on ranges of a score's buckets, and what each learned, as a table."""

from __future__ import annotations

from typing import Any

from prefect import flow

from pipelines.flows.parameters import continued_request
from pipelines.flows.session import Session, session
from pipelines.flows.studies import mix_study, train_proxies
from pipelines.flows.tasks import publish_table
from pipelines.studies import find_finished, write_result
from pipelines.validation import ValidationPlan, ValidationRequest, compare_proxies, plan_validation, table_of


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
    """Mix, train a proxy for each range and seed, and compare."""
    inner, mixture = mix_study(run, plan)
    result = compare_proxies(plan, train_proxies(inner, plan, mixture, plan.request.proxies()))
    write_result(plan, result)
    return result
