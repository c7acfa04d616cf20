"""`gristmill diff`: two recipes planned on the same run, side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from mixtures.compare import compare_plans, comparison_heading, comparison_rows, pair_stages
from mixtures.plan import MixturePlan, plan_stages
from mixtures.recipe import load_recipe
from mixtures.wording import align_columns
from pipelines.foresight import foresee_corpus
from pipelines.story import run_folder_at


def diff_command(first: str, second: str, out: Path, *, as_json: bool, force: bool) -> None:
    """Print what differs, as a table a stage or as JSON; nothing is written."""
    pairs, alone = pair_stages(*(_plan(reference, out, force=force) for reference in (first, second)))
    compared = [compare_plans(*pair) for pair in pairs]
    if as_json:
        click.echo(json.dumps(compared if pairs[0][0].stage or pairs[0][1].stage else compared[0], indent=1))
        return
    texts = [comparison_text(pair, found) for pair, found in zip(pairs, compared, strict=True)]
    click.echo("\n\n".join([*texts, *alone]))


def _plan(reference: str, out: Path, *, force: bool) -> tuple[MixturePlan, ...]:
    recipe = load_recipe(reference)
    with foresee_corpus(run_folder_at(out), recipe, None) as corpus:
        return plan_stages(recipe, corpus, force=force)


def comparison_text(plans: Sequence[MixturePlan], compared: Mapping[str, Any]) -> str:
    """Which is which, the table aligned, and below it the notes and warnings of each plan by its recipe's name."""
    lines = [*comparison_heading(compared), *align_columns(comparison_rows(compared))]
    for plan in plans:
        lines += [f"note, {plan.recipe}: {note}" for note in plan.notes]
        lines += [f"warning, {plan.recipe}: {warning}" for warning in plan.warnings]
    return "\n".join(lines)
