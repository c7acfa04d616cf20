"""`gristmill search-mixture`: the best shares of a recipe's sources, found with small models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixtures.wording import align_columns
from pipelines.commands.studies import show_study
from pipelines.mixture_search import MixtureSearchRequest, plan_search, rows_of, sentences_of
from pipelines.request import saved_request
from pipelines.story import run_folder_at
from storage.errors import InputError


def search_mixture_command(options: Mapping[str, Any]) -> None:
    """Find what is wrong before anything starts; then train, and show the shares."""
    asked = {**options, "objective": read_objective(options["objective"])}
    request = MixtureSearchRequest(**asked)
    folder = run_folder_at(Path(request.out))
    plan = plan_search(request, saved_request(folder.root), folder)

    def carry_out() -> None:
        from pipelines.flows.search_mixture import search_mixture

        search_mixture(**asked)

    show_study(plan, carry_out, result_text)


def read_objective(given: tuple[str, ...]) -> dict[str, float]:
    """`NAME=WEIGHT` of each. Raises InputError where one is not."""
    weights = {}
    for item in given:
        name, _, weight = item.partition("=")
        try:
            weights[name] = float(weight)
        except ValueError as error:
            raise InputError(f"`--objective {item}` is not NAME=WEIGHT", hint="e.g. `--objective wiki=2`") from error
    return weights


def result_text(result: Mapping[str, Any]) -> str:
    """The shares, and what they are worth."""
    rows = rows_of(result)
    lines = align_columns([list(rows[0]), *(list(row.values()) for row in rows)], left=(0,))
    return "\n".join([*lines, *sentences_of(result), f"the recipe with these weights: {result['best_recipe']}"])
