"""The search for near-duplicates that a run makes: what its request says, else what its policy's rule says.

Invariant: the search finds all that the policy's `min_similarity` counts; where it would not, the run is refused before
it starts. Without a word from anybody words are compared, from the policy's `min_similarity` or 0.8.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import yaml
from pydantic import ValidationError

from classifiers.encoders.encoder import EncoderConfig
from classifiers.encoders.models import DEFAULT_MODEL
from classifiers.quality.stage import embed_stage
from mixtures.policy import Policy, Rule, Search
from pipelines.contamination import contamination_spec
from pipelines.dedup.parameters import DedupConfig, SemanticConfig, near_duplicates
from pipelines.request import RunRequest
from pipelines.stages import MEASURING_OPTIONS, measuring_stages
from storage.errors import InputError, RecipeError
from storage.identity import fingerprint
from storage.stage import Stage

DEFAULT_THRESHOLD = 0.8


def search_of(request: RunRequest, policy: Policy) -> DedupConfig:
    """The search of a run. Its vectors are named by what makes them, so that more of the same are no new search."""
    if request.semantic is None:
        return choose_search(request.near, policy)
    vectors = fingerprint({"stage": encoder_stage(request.encoder).identity(), **_gate_of(request, policy)})
    return choose_search(request.near, policy, SemanticConfig(threshold=request.semantic, vectors=vectors))


def _gate_of(request: RunRequest, policy: Policy) -> dict[str, Any]:
    """What decides which documents have a vector: the gate's rules, and what measures the documents for them."""
    if policy.gate is None:
        return {"gate": []}
    options = {name: getattr(request, name) for name in MEASURING_OPTIONS}
    return {
        "gate": [rule.model_dump(mode="json") for rule in policy.rules if rule.rule in policy.gate.rules],
        "measured": [stage.identity() for stage in measuring_stages(**options)],
        "benchmarks": contamination_spec(request),
        "of_texts": [request.rewrite, request.repeated_spans, request.repeated_lines],
    }


def encoder_stage(encoder: str | None) -> Stage:
    """The encoder of a request, without a claim on GPUs: the job's resources say that."""
    return embed_stage(EncoderConfig(), model=encoder or DEFAULT_MODEL, gpus=0)


def choose_search(asked: str | None, policy: Policy, semantic: SemanticConfig | None = None) -> DedupConfig:
    """The search of a request's `near` (`PRESET[:OPTION=VALUE,…]`) or of the policy; by URL where that has a rule, and
    by meaning as `semantic` says.

    Raises InputError for what is no search, RecipeError when the policy counts what the search would not find.
    """
    rule = policy.duplicate_rule("near")
    search = parse_search(asked) if asked else (rule.search if rule else None) or Search()
    least = rule.min_similarity if rule else None
    config = _configure(search, least)
    if rule and least is not None and least < config.threshold:
        raise _blind(policy, rule, search, config.threshold)
    _check_semantic(policy, semantic)
    return replace(config, urls=policy.duplicate_rule("url") is not None, semantic=semantic)


def _check_semantic(policy: Policy, semantic: SemanticConfig | None) -> None:
    """Raises RecipeError where the policy counts pairs by meaning that the search would not find."""
    rule = policy.duplicate_rule("semantic")
    if rule is None:
        return
    at = policy.at("rules", policy.rules.index(rule), "duplicates")
    if semantic is None:
        hint = f"`--semantic {rule.min_similarity or 0.9:g}`, or leave the rule out"
        raise RecipeError(
            f"rule `{rule.rule}` drops semantic duplicates, which this run does not look for", at=at, hint=hint
        )
    if rule.min_similarity is not None and rule.min_similarity < semantic.threshold:
        raise RecipeError(
            f"rule `{rule.rule}` drops semantic duplicates from a cosine of {rule.min_similarity:g}, but the search "
            f"records them from {semantic.threshold:g} only",
            at=at,
            hint=f"search from there: `--semantic {rule.min_similarity:g}`",
        )


def _configure(search: Search, least: float | None) -> DedupConfig:
    threshold = search.threshold
    if threshold is None and search.preset == "default":
        threshold = DEFAULT_THRESHOLD if least is None else least
    return near_duplicates(threshold, **search.model_dump(exclude={"threshold"}))


def _blind(policy: Policy, rule: Rule, search: Search, threshold: float) -> RecipeError:
    position = policy.rules.index(rule)
    return RecipeError(
        f"rule `{rule.rule}` drops near-duplicates from a similarity of {rule.min_similarity:g}, but the search "
        f"`{search.preset}` records them from {threshold:g} only",
        at=policy.at("rules", position, "min_similarity"),
        hint=f"set `min_similarity: {threshold:g}`, or search from there: `--near {search.preset}:threshold="
        f"{rule.min_similarity:g}`",
    )


def parse_search(text: str) -> Search:
    """`PRESET` or `PRESET:option=value,…`. Raises InputError."""
    preset, _, rest = text.partition(":")
    try:
        options = dict(_option(item) for item in rest.split(",") if item)
        return Search(**{"preset": preset, **options})
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        said = fault["msg"].removeprefix("Value error, ")
        raise _no_search(text, f"{where}: {said}" if where else said) from error
    except ValueError as error:
        raise _no_search(text, str(error)) from error


def _option(item: str) -> tuple[str, Any]:
    name, equals, value = item.partition("=")
    if not (name and equals and value) or name == "preset":
        raise ValueError(f"`{item}` is not OPTION=VALUE")
    return name, yaml.safe_load(value)


def _no_search(text: str, said: str) -> InputError:
    return InputError(
        f"`--near {text}`: {said}",
        hint="write `--near cci4`, or `--near default:unit=characters,permutations=250,threshold=0.7`",
    )
