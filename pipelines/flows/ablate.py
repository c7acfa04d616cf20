"""The ablation flow: held-out texts, a mixture an arm without them, models of every experiment and seed, the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect import flow

from pipelines.ablation import (
    AblationPlan,
    AblationRequest,
    describe_arm,
    describe_heldout,
    list_withheld,
    plan_ablation,
    plan_arm,
    proxies_of,
)
from pipelines.comparison import compare, markdown_of, table_of
from pipelines.experiments import Arm
from pipelines.flows.parameters import continued_request
from pipelines.flows.session import Session, session
from pipelines.flows.studies import mix_study, train_proxies
from pipelines.flows.tasks import publish_table
from pipelines.report.ablation import read_losses, render_ablation
from pipelines.run_folder import require_step
from pipelines.studies import Proxy, find_finished, write_result
from storage.commit import write_atomically
from storage.manifests import open_dataset

Described = tuple[str, dict[str, Any]]


@flow(name="ablate", validate_parameters=False)
def ablate(
    arms: list[str],
    out: str = "runs/default",
    seeds: int | None = None,
    tokens: int | None = None,
    heldout: int = 20_000,
    measure_on: Mapping[str, str] | None = None,
    preset: str | None = None,
    ray_address: str | None = None,
    workers: int | None = None,
) -> str:
    """Train a model on each recipe or policy, with several seeds; returns the path of the result."""
    asked = AblationRequest(**{**dict(locals()), "arms": tuple(arms), "measure_on": measure_on or {}})
    with session(continued_request(out, ray_address=ray_address, workers=workers)) as run:
        plan = plan_ablation(asked, run.request, run.folder)
        result = find_finished(plan) or ablate_run(run, plan)
        publish_table("ablation", table_of(result), "Bits per byte on held-out text, by what was learned from")
        return str(plan.folder.result)


def ablate_run(run: Session, plan: AblationPlan) -> dict[str, Any]:
    """Hold out, mix every arm without that, train, compare."""
    inner, measured = mix_study(run, plan)
    withheld = withhold(run, plan, measured)
    described = {arm.name: mix_arm(run, plan, arm, withheld) for arm in plan.arms}
    proxies = proxies_of(plan, measured, {name: mixture for name, (mixture, _) in described.items()})
    trained = train_proxies(inner, plan, measured, proxies)
    heldout = describe_heldout(run.folder.mixture(measured))
    result = compare(plan, [told for _, told in described.values()], heldout, trained)
    write_pages(plan, result, proxies)
    write_result(plan, result)
    return result


def withhold(run: Session, plan: AblationPlan, mixture: str) -> list[bytes]:
    """What no arm may learn from."""
    policy = require_step(plan.folder, "judge").result["policy"]
    verdicts = open_dataset(run.folder.decisions(policy) / "verdicts")
    return list_withheld(verdicts, run.folder.mixture(mixture), everything=bool(plan.measure_on))


def mix_arm(run: Session, plan: AblationPlan, arm: Arm, withheld: list[bytes]) -> Described:
    """Judge, tokenize and mix one arm; its mixture, and what it holds."""
    study = plan_arm(plan, arm, run.request, withheld)
    _, mixture = mix_study(run, study)
    judged = require_step(study.folder, "judge").result
    return mixture, describe_arm(plan, arm, run.folder.mixture(mixture), judged)


def write_pages(plan: AblationPlan, result: Mapping[str, Any], proxies: Sequence[Proxy]) -> None:
    """`result.md` and `result.html` beside the result."""
    home, names = plan.folder.home, {one.slug: one.name for one in plan.experiments}
    firsts = [proxy for proxy in proxies if proxy.seed == proxies[0].seed]
    losses = {names[proxy.name]: read_losses(plan.folder.root / str(proxy.folder)) for proxy in firsts}
    write_atomically(home / "result.md", markdown_of(result).encode())
    write_atomically(home / "result.html", render_ablation(result, losses).encode())
