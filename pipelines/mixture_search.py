"""A search for the best shares of a recipe's sources: proxies on sampled mixtures, laws, and the best one trained.

As RegMix and CLIMB do: small models learn from mixtures drawn at random, a law says from the shares what each held-out
text will cost in bits per byte, and the shares that it likes best are then trained on and measured beside the recipe's
own. Mixtures that no law has seen say how far to trust it: the rank correlation of predicted and trained, next to the
one between two seeds of the same mixtures, which is the most that any law could reach.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from classifiers.quality.metrics import rank_correlation
from mixtures.laws import Law, fit_law
from mixtures.recipe import Recipe, Source, Stage, load_recipe, policy_folder
from mixtures.simplex import cap_shares, draw_mixtures
from mixtures.wording import say_count
from pipelines.request import RunRequest
from pipelines.run_folder import RunFolder
from pipelines.steps import policy_of
from pipelines.studies import POLICY_FILE, REFERENCE, Proxy, Study, mean_of, prepare_study, spread_of, write_yaml
from storage.errors import InputError, RecipeError

Floats = npt.NDArray[np.float64]

BEST, OWN = "best", "recipe"
CANDIDATES = 100_000
AVERAGED = 100
"""The best mixture is the mean of so many of the candidates, as in RegMix: the single best one is a law's error."""
PLAN_FILE = "plan.json"
BEST_FILE = "best.yaml"
FEWEST = 8
AMOUNTS = ("weight", "tokens", "max_share", "max_epochs", "fill_in_middle")
"""What the study's own recipe leaves out of a source."""


@dataclass(frozen=True, kw_only=True)
class MixtureSearchRequest:
    """What is asked for.

    `recipe`: whose sources are weighed (default: the run's); `mixtures`: those that the laws are fitted to;
    `heldout_mixtures`: those that say how good the laws are, each trained with `repeats` seeds; `final_seeds`: models
    of the best mixture and of the recipe's own; `tokens`: what each model learns from; `heldout`: tokens of each source
    that all are measured on; `target_tokens`: the training that the mixture is for, whose `max_epochs` must hold
    (default: the recipe's tokens, else as many as there are); `objective`: weights of the held-out texts (default: all
    alike); `stage`: the one whose sources are weighed, in a recipe of several (default: the first); `reference`:
    documents that are measured on and not learned from.
    """

    recipe: str | None = None
    out: str = "runs/default"
    mixtures: int = 48
    heldout_mixtures: int = 16
    repeats: int = 2
    final_seeds: int = 3
    tokens: int = 1_000_000
    heldout: int = 20_000
    target_tokens: int | None = None
    objective: Mapping[str, float] = field(default_factory=dict)
    reference: str | None = None
    stage: str | None = None
    preset: str = "proxy"
    seed: int = 0
    ray_address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        for name in ("repeats", "final_seeds", "tokens", "heldout"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name, least in (("mixtures", FEWEST), ("heldout_mixtures", 4)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; a law needs {least} or more")
        if any(weight <= 0 for weight in self.objective.values()):
            raise InputError("the weights of an objective must be above 0")


@dataclass(frozen=True, kw_only=True)
class SearchPlan(Study):
    """A study with the request that it answers, the recipe, and those of its sources that are weighed."""

    request: MixtureSearchRequest
    recipe: Recipe
    stage: Stage | None
    sources: tuple[Source, ...]


@dataclass(frozen=True, kw_only=True)
class Space:
    """The mixtures there may be: `names` of the sources, tokens `available` of each, their `caps` as shares."""

    names: tuple[str, ...]
    available: tuple[int, ...]
    caps: tuple[float, ...]
    own: tuple[float, ...]
    """The recipe's own shares, within the caps."""


def plan_search(request: MixtureSearchRequest, run: RunRequest, folder: RunFolder) -> SearchPlan:
    """Prepare the study. Raises a CurationError for what is not there or cannot be."""
    named = request.recipe or run.recipe
    recipe = load_recipe(named)
    stage = _stage_of(recipe, request.stage)
    sources = tuple(source for source in recipe.sources_of(stage) if source is not None)
    if len(sources) < 2:
        raise RecipeError("a mixture of one source leaves nothing to search", at=recipe.at("sources"))
    if any(source.name == REFERENCE for source in sources) and request.reference:
        raise RecipeError(f"a source is called `{REFERENCE}`, as the reference is", at=recipe.at("sources"))
    names = [*([REFERENCE] if request.reference else []), *(source.name for source in sources)]
    if unknown := [name for name in request.objective if name not in names]:
        raise InputError(
            f"the objective names `{unknown[0]}`, which is no source", hint=f"there are {', '.join(names)}"
        )
    policy = policy_of(replace(run, recipe=named)).model_dump(mode="json", exclude_defaults=True)
    asked = {name: value for name, value in asdict(request).items() if name not in ("out", "ray_address", "workers")}
    study = prepare_study(
        "mixture-search",
        {**asked, "recipe": recipe.identity()},
        run=run,
        folder=folder,
        tokens=request.tokens,
        preset=request.preset,
        policy={"format_version": 1, **policy},
        recipe=lambda tokenizer, length: {
            **describe_recipe(request, recipe.seed, sources, tokenizer, length),
            **recipe.allowed(),
        },
    )
    return SearchPlan(request=request, recipe=recipe, stage=stage, sources=sources, **vars(study))


def _stage_of(recipe: Recipe, name: str | None) -> Stage | None:
    """The stage of that name, the first without one; None for a recipe that has no stages."""
    stages = {stage.name: stage for stage, _ in recipe.stages_in_order() if stage is not None}
    if name is None or name in stages:
        return stages[name] if name else next(iter(stages.values()), None)
    hint = f"its stages are {', '.join(stages)}" if stages else "it has none: leave `--stage` out"
    raise InputError(f"recipe `{recipe.name}` has no stage `{name}`", hint=hint)


def describe_recipe(
    request: MixtureSearchRequest, seed: int, weighed: Sequence[Source], tokenizer: str, length: int
) -> dict[str, Any]:
    """A recipe as YAML has it, each source whole: what the proxies' shards come from."""
    sources: list[dict[str, Any]] = [
        source.model_dump(mode="json", exclude_unset=True, exclude=set(AMOUNTS)) for source in weighed
    ]
    if request.reference:
        sources.insert(0, {"name": REFERENCE, "where": request.reference})
    return {
        "format_version": 1,
        "name": "mixture-search",
        "seed": seed,
        "sequence_length": length,
        "policy": POLICY_FILE,
        "tokenizer": {"load": tokenizer},
        "heldout": {"tokens": request.heldout},
        "sources": sources,
    }


def open_space(plan: SearchPlan, mixture: Path) -> Space:
    """What the written mixture has of each source, and so which shares there may be."""
    held = {
        row["name"]: int(row["tokens_available"]) for row in json.loads((mixture / PLAN_FILE).read_bytes())["sources"]
    }
    sources, asker = plan.sources, plan.stage or plan.recipe
    available = [held[source.name] for source in sources]
    target = plan.request.target_tokens or asker.tokens or math.ceil((asker.epochs or 1) * sum(available))
    caps = [
        min(1.0, source.max_share or 1.0, source.max_epochs * tokens / target)
        for source, tokens in zip(sources, available, strict=True)
    ]
    own = cap_shares(np.array([_own_shares(sources, available, target)]), caps)[0]
    names = tuple(source.name for source in sources)
    return Space(names=names, available=tuple(available), caps=tuple(caps), own=tuple(own.tolist()))


def _own_shares(sources: Sequence[Source], available: Sequence[int], target: int) -> Floats:
    """What the recipe asks for, as shares: its tokens, its weights of the rest, or the sizes."""
    fixed = np.array([source.tokens or 0 for source in sources], np.float64)
    weights = np.array([source.weight or 0 for source in sources], np.float64)
    if not (fixed.any() or weights.any()):
        weights = np.array(available, np.float64)
    rest = max(target - fixed.sum(), 0.0)
    asked = fixed + (rest * weights / weights.sum() if weights.any() else 0.0)
    return np.asarray(asked / asked.sum())


def draw(request: MixtureSearchRequest, space: Space) -> Floats:
    """The shares of all sampled mixtures, [mixtures + heldout_mixtures, sources]; the held-out ones come last."""
    count = request.mixtures + request.heldout_mixtures
    return draw_mixtures(space.available, space.caps, count, seed=request.seed)


def sampled_proxies(request: MixtureSearchRequest, space: Space) -> list[Proxy]:
    """A proxy for each mixture that laws are fitted to, and `repeats` for each held-out one."""
    rows = draw(request, space)
    fitted = [_proxy(f"m{i:04}", space, row, 1) for i, row in enumerate(rows[: request.mixtures])]
    heldout = [
        _proxy(f"h{i:04}", space, row, seed)
        for i, row in enumerate(rows[request.mixtures :])
        for seed in range(1, request.repeats + 1)
    ]
    return [*fitted, *heldout]


def final_proxies(request: MixtureSearchRequest, space: Space, best: Floats) -> list[Proxy]:
    """The best mixture and the recipe's own, with several seeds."""
    rows = {BEST: best, OWN: np.array(space.own)}
    seeds = range(1, request.final_seeds + 1)
    return [_proxy(name, space, row, seed) for name, row in rows.items() for seed in seeds]


def _proxy(name: str, space: Space, shares: Floats, seed: int) -> Proxy:
    weights = {source: float(share) for source, share in zip(space.names, shares, strict=True) if share > 0}
    return Proxy(name=name, weights=weights, seed=seed)


@dataclass(frozen=True)
class Objective:
    """The laws of all held-out texts, weighed: `predict` takes shares [n, sources] to bits per byte [n]."""

    laws: Mapping[str, Law]
    weights: Mapping[str, float]

    def predict(self, shares: Floats) -> Floats:
        return self.combine({name: law.predict(shares) for name, law in self.laws.items()})

    def of(self, bits: Mapping[str, float]) -> float:
        """The weighted mean of one proxy's bits per byte."""
        return float(self.combine({name: np.array([bits[name]]) for name in self.weights})[0])

    def combine(self, bits: Mapping[str, Floats]) -> Floats:
        """The weighted mean of bits per byte by held-out text, each [n]."""
        return np.average([bits[name] for name in self.weights], axis=0, weights=list(self.weights.values()))


def fit_objective(request: MixtureSearchRequest, space: Space, proxies: Sequence[Mapping[str, Any]]) -> Objective:
    """A law for each held-out text, from the proxies that are there for it."""
    fitted = [proxy for proxy in proxies if proxy["name"].startswith("m")]
    shares = np.array([[proxy["weights"].get(name, 0.0) for name in space.names] for proxy in fitted])
    texts = list(fitted[0]["bits_per_byte"])
    weights = dict(request.objective) or dict.fromkeys(texts, 1.0)
    values = {text: np.array([proxy["bits_per_byte"][text] for proxy in fitted]) for text in texts}
    return Objective({text: fit_law(shares, values[text]) for text in texts}, weights)


def find_best(request: MixtureSearchRequest, space: Space, objective: Objective) -> Floats:
    """The shares with the least predicted loss that the caps allow."""
    rows = draw_mixtures(space.available, space.caps, CANDIDATES, seed=request.seed + 1)
    order = np.argsort(objective.predict(rows), kind="stable")
    best, own = rows[order[:AVERAGED]].mean(axis=0), np.array(space.own)
    predicted = objective.predict(np.stack([best, own]))
    return best if predicted[0] <= predicted[1] else own


def describe_result(
    plan: SearchPlan, space: Space, objective: Objective, best: Floats, proxies: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """All that was found, as JSON."""
    rows = zip(space.names, space.available, space.caps, space.own, best.tolist(), strict=True)
    keys = ("name", "tokens_available", "most", "recipe_share", "best_share")
    return {
        "format_version": 1,
        "identity": plan.identity,
        "request": asdict(plan.request),
        "steps": plan.steps,
        "sources": [dict(zip(keys, row, strict=True)) for row in rows],
        "objective": dict(objective.weights),
        "laws": {name: {"kind": law.kind, "error": round(law.error, 5)} for name, law in objective.laws.items()},
        "heldout_mixtures": judge_laws(plan.request, space, objective, proxies),
        "trained": {
            BEST: _final(objective, BEST, best, proxies),
            OWN: _final(objective, OWN, np.array(space.own), proxies),
        },
        "best_recipe": str(plan.folder.home / BEST_FILE),
        "proxies": list(proxies),
    }


def judge_laws(
    request: MixtureSearchRequest, space: Space, objective: Objective, proxies: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """How predicted and trained agree on the mixtures that no law has seen.

    `rank_correlation` is Spearman's between predicted and the mean over seeds, `ceiling` the one between the first two
    seeds (None for one seed).
    """
    shares = draw(request, space)[request.mixtures :]
    trained: list[list[float]] = [[] for _ in shares]
    for proxy in proxies:
        if proxy["name"].startswith("h"):
            trained[int(proxy["name"][1:])].append(objective.of(proxy["bits_per_byte"]))
    predicted, measured = objective.predict(shares), np.array([np.mean(values) for values in trained])
    seeds = np.array([values[:2] for values in trained])
    ceiling = rank_correlation(seeds[:, 0], seeds[:, 1]) if request.repeats > 1 else None
    return {
        "rank_correlation": rank_correlation(predicted, measured),
        "ceiling": ceiling,
        "error": round(float(np.sqrt(np.mean((predicted - measured) ** 2))), 5),
        "predicted": [round(value, 5) for value in predicted.tolist()],
        "trained": [[round(value, 5) for value in values] for values in trained],
    }


def _final(objective: Objective, name: str, shares: Floats, proxies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = [proxy["bits_per_byte"] for proxy in proxies if proxy["name"] == name]
    values = [objective.of(bits) for bits in found]
    return {
        "predicted": round(float(objective.predict(shares[None, :])[0]), 5),
        "measured": mean_of(values),
        "spread": spread_of(values),
        "texts": {text: mean_of([bits[text] for bits in found]) for text in objective.laws},
    }


def write_best_recipe(plan: SearchPlan, space: Space, best: Floats) -> Path:
    """The recipe with the best weights, ready to run; a source of no share has no place in it, or in its stage."""
    values = plan.recipe.model_dump(mode="json", exclude_unset=True)
    shares = {name: round(share, 4) for name, share in zip(space.names, best.tolist(), strict=True) if share >= 5e-5}
    if plan.stage is None:
        values["sources"] = [
            {**_without_amount(source), "weight": shares[source["name"]]}
            for source in values["sources"]
            if source["name"] in shares
        ]
    else:
        stage = next(row for row in values["stages"] if row["name"] == plan.stage.name)
        own_rows = stage.get("sources", {})
        stage["sources"] = {
            name: {**_without_amount(own_rows.get(name, {})), "weight": share} for name, share in shares.items()
        }
    if plan.recipe.inputs:
        values["inputs"] = _placed_inputs(plan.recipe)
    own = policy_folder(plan.recipe) / values["policy"]
    values["policy"] = str(own.absolute()) if own.is_file() else values["policy"]
    if load := values["tokenizer"].get("load"):
        values["tokenizer"]["load"] = str((policy_folder(plan.recipe) / load).absolute())
    path = plan.folder.home / BEST_FILE
    write_yaml(path, values)
    return path


def _placed_inputs(recipe: Recipe) -> dict[str, Any]:
    """The recipe's inputs, for a recipe in another folder."""
    return {
        source: written.placed(recipe.folder).model_dump(mode="json", exclude_defaults=True)
        for source, written in recipe.inputs.items()
    }


def _without_amount(source: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in source.items() if key not in ("weight", "tokens")}


def rows_of(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The shares as people read them, a row a source."""
    return [
        {
            "source": row["name"],
            "tokens": say_count(row["tokens_available"]),
            "most": f"{100 * row['most']:.1f} %",
            "recipe": f"{100 * row['recipe_share']:.1f} %",
            "best": f"{100 * row['best_share']:.1f} %",
        }
        for row in result["sources"]
    ]


def sentences_of(result: Mapping[str, Any]) -> list[str]:
    """What was found, in words: what the best mixture is worth, and how far the laws can be trusted."""
    told = []
    for name, what in ((BEST, "the best mixture"), (OWN, "the recipe's own")):
        row = result["trained"][name]
        spread = "" if row["spread"] is None else f" ± {row['spread']:.4f}"
        told.append(f"{what}: {row['predicted']:.4f} bits per byte predicted, {row['measured']:.4f}{spread} trained")
    told.append(_gain(result))
    held = result["heldout_mixtures"]
    told.append(
        f"rank correlation of predicted and trained, {len(held['predicted'])} other mixtures: {_agreement(held)}"
    )
    return told


def _gain(result: Mapping[str, Any]) -> str:
    """What the best mixture gains over the recipe's own, and whether seeds alone could have made it."""
    best, own = (result["trained"][name] for name in (BEST, OWN))
    gain = own["measured"] - best["measured"]
    said = f"gain by training: {gain:+.4f} bits per byte"
    if best["spread"] is None:
        return f"{said}; of one seed each, so nobody knows what chance did"
    error = math.hypot(best["spread"], own["spread"]) / math.sqrt(result["request"]["final_seeds"])
    doubt = "" if abs(gain) > 2 * error else "; seeds alone could make that: raise --tokens or --final-seeds"
    return f"{said}, standard error {error:.4f}{doubt}"


def _agreement(held: Mapping[str, Any]) -> str:
    """The rank correlation, and the ceiling where there is one; `none` where all values are alike."""
    said = {key: "none" if held[key] is None else f"{held[key]:+.2f}" for key in ("rank_correlation", "ceiling")}
    ceiling = f"; of two seeds with each other: {said['ceiling']}, the ceiling" if len(held["trained"][0]) > 1 else ""
    return said["rank_correlation"] + ceiling
