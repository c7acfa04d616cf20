"""The mixture search flow: proxies on sampled mixtures, laws, the best mixture trained beside the recipe's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import flow

from pipelines.flows.parameters import continued_request
from pipelines.flows.session import Session, session
from pipelines.flows.studies import mix_study, train_proxies
from pipelines.flows.tasks import publish_table
from pipelines.mixture_search import (
    MixtureSearchRequest,
    SearchPlan,
    describe_result,
    final_proxies,
    find_best,
    fit_objective,
    open_space,
    plan_search,
    rows_of,
    sampled_proxies,
    write_best_recipe,
)
from pipelines.studies import find_finished, write_result


@flow(name="search-mixture", validate_parameters=False)
def search_mixture(
    recipe: str | None = None,
    out: str = "runs/default",
    mixtures: int = 48,
    heldout_mixtures: int = 16,
    repeats: int = 2,
    final_seeds: int = 3,
    tokens: int = 1_000_000,
    heldout: int = 20_000,
    target_tokens: int | None = None,
    objective: Mapping[str, float] | None = None,
    reference: str | None = None,
    stage: str | None = None,
    preset: str = "proxy",
    seed: int = 0,
    ray_address: str | None = None,
    workers: int | None = None,
) -> str:
    """Find the best shares of a recipe's sources; returns the path of the result."""
    asked = MixtureSearchRequest(**{**dict(locals()), "objective": objective or {}})
    with session(continued_request(out, ray_address=ray_address, workers=workers)) as run:
        plan = plan_search(asked, run.request, run.folder)
        result = find_finished(plan) or search_run(run, plan)
        publish_table("mixture-search", rows_of(result), f"The best shares of the sources of `{plan.recipe.name}`")
        return str(plan.folder.result)


def search_run(run: Session, plan: SearchPlan) -> dict[str, Any]:
    """Mix, train the sampled mixtures, fit, train the best and the recipe's own."""
    inner, mixture = mix_study(run, plan)
    space = open_space(plan, run.folder.mixture(mixture))
    sampled = train_proxies(inner, plan, mixture, sampled_proxies(plan.request, space))
    objective = fit_objective(plan.request, space, sampled)
    best = find_best(plan.request, space, objective)
    final = train_proxies(inner, plan, mixture, final_proxies(plan.request, space, best))
    result = describe_result(plan, space, objective, best, [*sampled, *final])
    write_best_recipe(plan, space, best)
    write_result(plan, result)
    return result
