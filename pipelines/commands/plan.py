"""`gristmill plan`: what a recipe would take, from a run's measurements and stored token counts; nothing is written."""

from __future__ import annotations

from pathlib import Path

import click

from mixtures.plan import plan_stages, plans_json
from mixtures.recipe import load_recipe
from pipelines.foresight import foresee_corpus
from pipelines.story import run_folder_at


def plan_command(reference: str, out: Path, *, policy: str | None, as_json: bool, force: bool) -> None:
    """Print the plan as a table or as JSON, with a note on whatever a run of the recipe would have otherwise."""
    from pipelines.jobs.mix import plan_text

    recipe = load_recipe(reference)
    with foresee_corpus(run_folder_at(out), recipe, policy) as corpus:
        plans = plan_stages(recipe, corpus, force=force)
    click.echo(plans_json(plans) if as_json else "\n\n".join(plan_text(plan) for plan in plans))
