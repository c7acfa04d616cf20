"""A request to validate a score: models of one size, each trained on one range of its buckets, with equal tokens.

CCI4.0 validated its quality buckets so, with a model of 1B parameters and 100 billion tokens for each bucket; here a
proxy learns from what a run holds. All proxies are measured on the same held-out texts: those of every range, and of
a reference, which no proxy learns from. The run's own records, decisions and mixtures stay as they are: everything is
written under `validation/` or in folders named by what is in them.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from classifiers.quality.metrics import rank_correlation
from mixtures.policy import Policy, load_policy
from pipelines.request import RunRequest
from pipelines.run_folder import RunFolder, find_step, require_step
from pipelines.steps import STEPS, policy_of, preset_file
from storage.commit import write_atomically
from storage.errors import DatasetError, InputError, RecipeError
from storage.identity import fingerprint, hash_file

NUM_BUCKETS = 20
REFERENCE = "reference"
NEEDED = ("judge", "vocabulary")
_SCORES = re.compile(r"\b(quality|scores|ensemble)\.")
SHORT_IDENTITY = 12


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


@dataclass(frozen=True)
class ValidationFolder(RunFolder):
    """The run's datasets, with the records of a validation's own steps apart from the run's."""

    place: str

    @property
    def home(self) -> Path:
        return self.root / "validation" / self.place

    @property
    def steps(self) -> Path:
        return self.home / "steps"

    @property
    def result(self) -> Path:
        return self.home / "result.json"

    @property
    def recipe(self) -> Path:
        return self.home / "recipe.yaml"

    @property
    def policy(self) -> Path:
        return self.home / "policy.yaml"


@dataclass(frozen=True, kw_only=True)
class ValidationPlan:
    """A request with everything looked up. `training`: what every proxy's trainer is told."""

    request: ValidationRequest
    run: RunRequest
    folder: ValidationFolder
    identity: str
    steps: int
    training: dict[str, Any]


def plan_validation(request: ValidationRequest, run: RunRequest, folder: RunFolder) -> ValidationPlan:
    """Look up run, policy and preset, and write the policy and the recipe that the proxies' mixture comes from.

    Raises a CurationError for what is not there or cannot be.
    """
    policy = _without_scores(load_policy(request.policy) if request.policy else policy_of(run))
    judged, vocabulary = (require_step(folder, step).result for step in NEEDED)
    preset = preset_file(request.preset)
    asked = {name: value for name, value in asdict(request).items() if name not in ("out", "ray_address", "workers")}
    basis = {"judged": judged["identity"], "tokenizer": vocabulary["tokenizer"], "preset": hash_file(preset)}
    identity = fingerprint({**asked, **basis, "policy": policy})
    apart = ValidationFolder(folder.root, identity[:SHORT_IDENTITY])
    training = _training_of(preset)
    steps = request.tokens // (training["sequence_length"] * training["global_batch"])
    if not steps:
        raise InputError(
            f"{request.tokens:,} tokens are less than one step of `{request.preset}`", hint="raise --tokens"
        )
    tokenizer = folder.vocabulary(vocabulary["tokenizer"]) / "tokenizer.json"
    recipe = describe_recipe(request, "policy.yaml", str(tokenizer), training["sequence_length"])
    _write_yaml(apart.policy, policy)
    _write_yaml(apart.recipe, recipe)
    _borrow_records(folder, apart)
    return ValidationPlan(
        request=request,
        run=_redirected(run, request, apart),
        folder=apart,
        identity=identity,
        steps=steps,
        training={"preset": str(preset), "steps": steps},
    )


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


def _training_of(preset: Path) -> dict[str, Any]:
    try:
        training = yaml.safe_load(preset.read_text(encoding="utf-8"))["training"]
        return {name: int(training[name]) for name in ("sequence_length", "global_batch")}
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise RecipeError(f"this is no preset of a model: {error!r}", at=str(preset)) from error


def _write_yaml(path: Path, values: dict[str, Any]) -> None:
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1000)
    write_atomically(path, text.encode())


def _borrow_records(folder: RunFolder, apart: ValidationFolder) -> None:
    """Copy the run's records of the steps before judging: the validation begins where they end."""
    apart.steps.mkdir(parents=True, exist_ok=True)
    for step in list(STEPS)[: list(STEPS).index("judge")]:
        if find_step(folder, step):
            shutil.copyfile(folder.steps / f"{step}.json", apart.steps / f"{step}.json")


def _redirected(run: RunRequest, request: ValidationRequest, apart: ValidationFolder) -> RunRequest:
    return replace(run, policy=str(apart.policy), recipe=str(apart.recipe), preset=request.preset)


def find_finished(plan: ValidationPlan) -> dict[str, Any] | None:
    """The result of the same request, if it was written. Raises DatasetError when it cannot be read."""
    if not plan.folder.result.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(plan.folder.result.read_bytes())
    except ValueError as error:
        raise DatasetError(
            f"the result of a validation cannot be read: {error}", at=str(plan.folder.result), hint="remove it"
        ) from error
    return found if found.get("identity") == plan.identity else None


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
    mine = [proxy["bits_per_byte"] for proxy in proxies if proxy["source"] == name]
    others = [np.mean([bits for source, bits in found.items() if source not in (name, REFERENCE)]) for found in mine]
    reference = [found[REFERENCE] for found in mine if REFERENCE in found]
    return {
        "range": name,
        "tokens": next(proxy["tokens"] for proxy in proxies if proxy["source"] == name),
        REFERENCE: _rounded(reference),
        "reference_spread": _spread(reference),
        "others": _rounded(others),
        "others_spread": _spread(others),
    }


def _rounded(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 5) if len(values) else None


def _spread(values: Sequence[float]) -> float | None:
    """The standard deviation over seeds; None for one seed."""
    return round(float(np.std(values, ddof=1)), 5) if len(values) > 1 else None


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
