"""A request to validate a score: models of one size, each trained on one range of its buckets, with equal tokens.

CCI4.0 validated its quality buckets so, with a model of 1B parameters and 100 billion tokens for each bucket; here a
proxy learns from what a run holds. All proxies are measured on the same held-out texts: those of every range, and of
a reference, which no proxy learns from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from classifiers.quality.metrics import rank_correlation
from mixtures.policy import Policy, load_policy
from pipelines.request import RunRequest
from pipelines.run_folder import RunFolder
from pipelines.steps import policy_of, recipe_of
from pipelines.studies import POLICY_FILE, REFERENCE, Proxy, Study, mean_of, prepare_study, spread_of
from storage.errors import InputError

NUM_BUCKETS = 20
_SCORES = re.compile(r"\b(quality|scores|ensemble)\.")


@dataclass(frozen=True, kw_only=True)
class ValidationRequest:
    """What is asked for. `by`: an SQL expression that is a bucket, 0 to 19; `groups`: ranges that the buckets are cut
    into; `where`: which documents count; `reference`: which documents are only measured on; `tokens`: what each proxy
    learns from, repeated at most `max_epochs` times; `heldout`: tokens of each range and of the reference; `seeds`:
    proxies for each range; `policy`: what the documents must be like (default: the run's policy without its rules about
    scores)."""

    out: str = "runs/default"
    by: str = "quality.bucket"
    groups: int = 5
    where: str | None = None
    reference: str | None = None
    tokens: int = 1_000_000
    heldout: int = 20_000
    max_epochs: float = 4.0
    preset: str = "tiny"
    seeds: int = 1
    policy: str | None = None
    ray_address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.groups <= NUM_BUCKETS:
            raise InputError(f"groups is {self.groups}; {NUM_BUCKETS} buckets can be cut into 2 to {NUM_BUCKETS}")
        for name in ("tokens", "heldout", "seeds", "max_epochs"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} is {getattr(self, name):g}; it must be above 0")

    def ranges(self) -> dict[str, tuple[int, int]]:
        """(lowest, highest) bucket of each group, by its name, lowest first."""
        edges = [group * NUM_BUCKETS // self.groups for group in range(self.groups + 1)]
        pairs = [(low, high - 1) for low, high in zip(edges[:-1], edges[1:], strict=True)]
        return {f"b{low:02}" if low == high else f"b{low:02}-{high:02}": (low, high) for low, high in pairs}

    def proxies(self) -> list[Proxy]:
        """For each range as many as there are seeds, each of which learns from that range alone."""
        return [
            Proxy(name=name, weights={name: 1.0}, seed=seed)
            for name in self.ranges()
            for seed in range(1, self.seeds + 1)
        ]


@dataclass(frozen=True, kw_only=True)
class ValidationPlan(Study):
    """A study with the request that it answers."""

    request: ValidationRequest


def plan_validation(request: ValidationRequest, run: RunRequest, folder: RunFolder) -> ValidationPlan:
    """Prepare the study. Raises a CurationError for what is not there or cannot be."""
    policy = _without_scores(load_policy(request.policy) if request.policy else policy_of(run))
    asked = {name: value for name, value in asdict(request).items() if name not in ("out", "ray_address", "workers")}
    study = prepare_study(
        "validation",
        asked,
        run=run,
        folder=folder,
        tokens=request.tokens,
        preset=request.preset,
        policy=policy,
        recipe=lambda tokenizer, length: {
            **describe_recipe(request, POLICY_FILE, tokenizer, length),
            **recipe_of(run).allowed(),
        },
    )
    return ValidationPlan(request=request, **vars(study))


def describe_recipe(request: ValidationRequest, policy: str, tokenizer: str, sequence_length: int) -> dict[str, Any]:
    """The recipe as YAML has it: the reference, which takes its documents first, and a source for each range."""
    among = f" AND ({request.where})" if request.where else ""
    sources: list[dict[str, Any]] = [
        {
            "name": name,
            "where": f"({request.by}) BETWEEN {low} AND {high}{among}",
            "tokens": request.tokens,
            "max_epochs": float(request.max_epochs),
        }
        for name, (low, high) in request.ranges().items()
    ]
    if request.reference:
        sources.insert(0, {"name": REFERENCE, "where": request.reference, "tokens": 1})
    return {
        "format_version": 1,
        "name": "validation",
        "seed": 1,
        "sequence_length": sequence_length,
        "policy": policy,
        "tokenizer": {"load": tokenizer},
        "heldout": {"tokens": request.heldout},
        "sources": sources,
    }


def _without_scores(policy: Policy) -> dict[str, Any]:
    """The policy without rules that read a score: what it drops could not be validated."""
    rules = [rule.model_dump(mode="json", exclude_defaults=True) for rule in policy.rules]
    kept = [rule for rule in rules if not any(_SCORES.search(str(rule.get(key, ""))) for key in ("measure", "when"))]
    names = {rule["rule"] for rule in kept}
    gate = [name for name in (policy.gate.rules if policy.gate else ()) if name in names]
    return {
        "format_version": 1,
        "name": f"{policy.name}-without-scores"[:60],
        "rules": kept or [{"rule": "nothing", "when": "false"}],
        **({"gate": {"rules": gate}} if gate else {}),
    }


def compare_proxies(plan: ValidationPlan, proxies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The result: of every range the mean bits per byte of its proxies on the reference and on the other ranges' texts.

    `rank_correlation` is Spearman's between range and bits per byte: -1 where a higher bucket is always the better one.
    """
    rows = [_row(name, proxies) for name in plan.request.ranges()]
    place = np.arange(len(rows), dtype=np.float64)
    columns = [name for name in (REFERENCE, "others") if all(row[name] is not None for row in rows)]
    return {
        "format_version": 1,
        "identity": plan.identity,
        "request": asdict(plan.request),
        "steps": plan.steps,
        "rows": rows,
        "rank_correlation": {
            name: rank_correlation(place, np.array([row[name] for row in rows], np.float64)) for name in columns
        },
        "proxies": list(proxies),
    }


def _row(name: str, proxies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    mine = [proxy["bits_per_byte"] for proxy in proxies if proxy["name"] == name]
    others = [np.mean([bits for source, bits in found.items() if source not in (name, REFERENCE)]) for found in mine]
    reference = [found[REFERENCE] for found in mine if REFERENCE in found]
    return {
        "range": name,
        "tokens": next(proxy["tokens"] for proxy in proxies if proxy["name"] == name),
        REFERENCE: mean_of(reference),
        "reference_spread": spread_of(reference),
        "others": mean_of(others),
        "others_spread": spread_of(others),
    }


def table_of(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows as people read them."""
    shown = []
    for row in result["rows"]:
        cells = {"buckets": row["range"].removeprefix("b"), "tokens": f"{row['tokens']:,}"}
        for name in (REFERENCE, "others"):
            if row[name] is not None:
                spread = row[f"{name}_spread"]
                cells[name] = f"{row[name]:.4f}" + (f" ± {spread:.4f}" if spread is not None else "")
        shown.append(cells)
    return shown
