"""What can be found wrong with a request before anything starts, so that a run fails in a second or not for its words.

Names in SQL are checked here only where they ask for what this run does not measure; others when a catalogue is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from classifiers.encoders.models import DEFAULT_MODEL, find_model
from classifiers.fasttext.file import read_classifier
from mixtures.ensemble import MAXIMUM, MEAN, SCORES, STAGE, with_ensemble
from mixtures.names import names_of
from mixtures.policy import Policy
from mixtures.recipe import Recipe
from mixtures.sql import Expression, parse_expression
from mixtures.wording import shorten
from pipelines.contamination import contamination_spec
from pipelines.dedup.spans.cut import REMOVE
from pipelines.dedup.spans.parameters import spans_config
from pipelines.named_inputs import NamedInput, named_inputs
from pipelines.raw_inputs import bucket_sources_of, expand, inputs_of, reading_of
from pipelines.request import RunRequest
from pipelines.scorers import check_scorers, told_schema
from pipelines.search import search_of
from pipelines.stages import cuts_spans, losses_stage, measuring_stages, own_rewrites, rewriting_stages
from pipelines.steps import (
    check_labels,
    is_asked,
    measuring_options,
    policy_of,
    preset_file,
    recipe_of,
)
from sources.tables.columns import columns_of
from storage.errors import InputError, SqlError

SHOWN_COLUMNS = 12


def check_request(request: RunRequest) -> None:
    """Find what can be found wrong with a request before anything starts: inputs, recipe, policy, preset, labels.

    Raises the CurationError of the first fault; names in SQL are checked later, against what was measured.
    """
    recipe, policy = recipe_of(request), policy_of(request)
    for i, source in enumerate(recipe.sources):
        _check_asked(request, parse_expression(source.where, at=recipe.at("sources", i, "where")))
    for text, at in _written(policy):
        _check_asked(request, parse_expression(text, at=at))
    _check_scores(request, recipe, policy)
    search_of(request, policy)
    preset_file(request.preset)
    check_labels(request)
    bucket_sources_of(request)
    reading_of(request)
    inputs_of(request)
    _check_columns(request)
    _check_spans(request)
    check_models(request)


def _check_columns(request: RunRequest) -> None:
    """Raises InputError for columns that were named for a source, and that its first file does not have."""
    faults = []
    for named in named_inputs(request):
        there = columns_of(expand(named)[0]) if named.columns else []
        for field, column in named.columns.items():
            if there and column not in there and (field == "text" or field in named.places):
                faults.append((named, field, there))
    if faults:
        raise _unknown_columns(faults)


def _unknown_columns(faults: Sequence[tuple[NamedInput, str, list[str]]]) -> InputError:
    """All of them, with the columns that there are."""
    told = []
    for named, field, there in faults:
        near = get_close_matches(named.columns[field], there, 1)
        meant = f"; did you mean `{near[0]}`?" if near else ""
        listed = ", ".join(f"`{name}`" for name in there[:SHOWN_COLUMNS])
        what = f"source `{named.source}` has no column `{named.columns[field]}` for `{field}`{meant} It has {listed}"
        told.append((named.places.get(field, "--column"), what if meant else what.replace(" It has", "; it has")))
    if len(told) == 1:
        return InputError(told[0][1], at=told[0][0], hint="name one of these, or leave it out")
    lines = "".join(f"\n  {at}: {what}" for at, what in told)
    return InputError(f"{len(told)} columns are not there{lines}", hint="name one of these, or leave them out")


def _check_asked(request: RunRequest, expression: Expression) -> None:
    """Raises SqlError for a name of a stage that this run was not asked to measure."""
    for stage, hint in _not_asked(request).items():
        if any(name.startswith(f"{stage}.") for name in expression.names):
            raise SqlError(
                f"`{shorten(expression.text)}` needs the stage `{stage}`, which this run does not measure",
                at=expression.at,
                hint=hint,
            )


def _not_asked(request: RunRequest) -> dict[str, str]:
    """The stages that this run does not measure, each with what asks for it."""
    hints = {
        "scores": (request.score, "name a classifier: `--score NAME=MODEL`"),
        "fluency": (request.fluency_model, "give a causal language model: `--fluency-model PATH`"),
        "repeated": (request.repeated_spans, "ask for it: `--repeated-spans substring:200`"),
        "repeated_lines": (request.repeated_lines, "ask for it: `--repeated-lines host:3`"),
    }
    return {stage: hint for stage, (asked, hint) in hints.items() if not asked}


def _check_scores(request: RunRequest, recipe: Recipe, policy: Policy) -> None:
    """Raises for a scorer that could not score, and for a name that none of them gives; names of others come later."""
    check_scorers(request.score)
    schema = told_schema(request.score)
    places = {name: policy.at("ensemble", name) for name in policy.ensemble or {}}
    names = with_ensemble(names_of(schema), schema, policy.ensemble, places)
    wheres = [(source.where, recipe.at("sources", i, "where")) for i, source in enumerate(recipe.sources)]
    for text, at in [*wheres, *_written(policy)]:
        for name in parse_expression(text, at=at).names:
            if name.partition(".")[0] in (SCORES, STAGE):
                names.require(name, text=text, at=at)


def _written(policy: Policy) -> Iterator[tuple[str, str]]:
    """The expressions of a policy that cannot be left out, each with its place."""
    for i, rule in enumerate(policy.rules):
        for key in ("only", "measure", "per", "when", "measured") if not rule.optional else ():
            if expression := getattr(rule, key):
                yield expression, policy.at("rules", i, key)
    for name, expression in (policy.ensemble or {}).items():
        if expression not in (MAXIMUM, MEAN):
            yield expression, policy.at("ensemble", name)


def _check_spans(request: RunRequest) -> None:
    """Raises InputError for spans that cannot be looked for, or that are to be cut and are not looked for."""
    spans_config(request.repeated_spans, request.repeated_lines)
    if cuts_spans(request.rewrite) and not is_asked("spans", request):
        raise InputError(
            f"`--rewrite {REMOVE}` has nothing to remove",
            hint="say what is looked for: `--repeated-spans substring:200`, or `--repeated-lines host:3`",
        )


def check_models(request: RunRequest) -> None:
    """Raises ModelError for a language model, an encoder or a fluency model that is none, InputError for a rewrite."""
    stages = measuring_stages(**measuring_options(request)) + rewriting_stages(own_rewrites(request.rewrite))
    for stage in stages:
        stage.identity()
    contamination_spec(request)
    if request.language_model:
        read_classifier(Path(request.language_model))
    find_model(request.encoder or DEFAULT_MODEL)
    if request.fluency_model:
        losses_stage(request.fluency_model, request.fluency_tokenizer)
