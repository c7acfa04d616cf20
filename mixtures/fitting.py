"""Fitting a policy's percentiles over a whole catalogue, before any part is judged.

Invariant: limits belong to the rule's expressions, its percentiles and the stages that measured what it reads, never to
a run of the judge. They are kept in a file of that name: new parts are judged by the limits that are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mixtures.binding import TABLE, FittedLimits, PercentileRule, bind_percentiles
from mixtures.percentiles import Fitted, Rows, fit_percentiles, read_fitted, write_fitted
from mixtures.policy import Limits, Policy
from mixtures.sql import open_engine
from storage.identity import fingerprint
from storage.manifests import Dataset


def fit_policy(
    policy: Policy, catalogue: Dataset, home: Path, *, refit: bool = False, keep: bool = True
) -> FittedLimits:
    """Limits of every percentile rule; those under `home` are reused unless a refit is asked for.

    `keep` False leaves `home` as it is, for a look at what a policy would do.

    Raises SqlError for a wrong expression, RecipeError for too many groups.
    """
    rules = bind_percentiles(policy, catalogue.schema(catalogue.parts[0])) if catalogue.parts else ()
    return {rule.name: _fit_rule(rule, catalogue, home, refit, keep) for rule in rules}


def limits_to_json(fitted: FittedLimits) -> dict[str, Any]:
    return {name: {group: limits.model_dump() for group, limits in rule.items()} for name, rule in fitted.items()}


def limits_from_json(values: Mapping[str, Any]) -> FittedLimits:
    return {name: {group: Limits(**limits) for group, limits in rule.items()} for name, rule in values.items()}


def _fit_rule(rule: PercentileRule, catalogue: Dataset, home: Path, refit: bool, keep: bool) -> dict[str, Limits]:
    place = home / f"{_identity(rule, catalogue)}.json"
    known = {} if refit else read_fitted(place)
    percents = [percent for percent in (rule.low, rule.high) if percent is not None]
    fitted = fit_percentiles(
        lambda: (_rows(rule, catalogue.read(part)) for part in catalogue.parts), percents, known=known
    )
    if keep and fitted != known:
        write_fitted(place, fitted)
    return {group: _limits(rule, found) for group, found in fitted.items()}


def _identity(rule: PercentileRule, catalogue: Dataset) -> str:
    stages = catalogue.manifest.facts.get("stages", {})
    read = {stage: stages[stage] for name in rule.names if (stage := _stage_of(name, stages))}
    return fingerprint({"asked": rule.asked, "percentiles": [rule.low, rule.high], "stages": read})


def _stage_of(name: str, stages: Mapping[str, str]) -> str | None:
    """The narrowest stage that measured a name: `scores.domain` of `scores.domain.label`, so that a scorer more changes
    no limits of the others."""
    steps = name.split(".")
    found = (".".join(steps[:length]) for length in range(len(steps) - 1, 0, -1))
    return next((stage for stage in found if stage in stages), None)


def _rows(rule: PercentileRule, table: pa.Table) -> Rows:
    with open_engine(**{TABLE: table}) as engine:
        found = engine.query(
            f'SELECT {rule.group} AS "group", {rule.value} AS value FROM {TABLE} '
            f"WHERE {rule.applies} AND {rule.value} IS NOT NULL"
        ).combine_chunks()
    groups = pa.concat_arrays(found["group"].chunks) if found.num_rows else pa.array([], pa.string())
    return groups, np.asarray(found["value"], np.float64)


def _limits(rule: PercentileRule, fitted: Fitted) -> Limits:
    low, high = (None if percent is None else fitted.values[percent] for percent in (rule.low, rule.high))
    return Limits(min=low, max=high)
