"""The measuring and the rewriting stages of a run, bound to what its request says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from classifiers.c4_cleaning import CleanLinesConfig, clean_lines_stage
from classifiers.chinese import SimplifyConfig, simplify_stage
from classifiers.datatrove_blocks import make_filter, make_rewrite
from classifiers.fasttext.stage import FastTextConfig, fasttext_stage
from classifiers.fluency.stage import fluency_stage
from classifiers.kenlm.model import is_ngram_model
from classifiers.kenlm.stage import kenlm_stage
from classifiers.language.stage import LanguageConfig, language_stage
from classifiers.privacy.entities import entities_stage
from classifiers.privacy.kinds import ENTITIES, MASKED
from classifiers.privacy.mask import LABELS, MaskConfig, mask_stage
from classifiers.privacy.stage import privacy_stage
from classifiers.rules import rules_stage
from classifiers.url import url_stage
from classifiers.url_lists import UrlListsConfig, url_lists_stage
from classifiers.word_lists import WordListsConfig, word_lists_stage
from pipelines.dedup.spans.cut import REMOVE
from storage.errors import InputError
from storage.stage import Stage


def measuring_stages(
    *,
    language_model: str | None = None,
    entity_model: str | None = None,
    measure: Sequence[str] = (),
    benchmarks: Stage | None = None,
) -> tuple[Stage, ...]:
    """The CPU stages that read each text once, in the order of their columns; `benchmarks` where a run names some."""
    language = LanguageConfig(model=language_model) if language_model else LanguageConfig()
    stages = [language_stage(language), rules_stage(), url_stage(), privacy_stage()]
    if entity_model:
        stages.append(entities_stage(entity_model))
    stages += _asked("measure", measure, MEASUREMENTS, taken=[stage.name for stage in stages])
    if benchmarks:
        stages.append(benchmarks)
    return tuple(stages)


MEASURING_OPTIONS = ("language_model", "entity_model", "measure")
"""The fields of a request that `measuring_stages` takes."""


def losses_stage(model: str, tokenizer: str | None) -> Stage:
    """The stage behind `--fluency-model`: a KenLM model, or else a causal language model."""
    if is_ngram_model(model):
        return kenlm_stage(model=model, tokenizer=tokenizer)
    if tokenizer is not None:
        raise InputError(
            "`--fluency-tokenizer` goes with a KenLM model", at=model, hint="leave it out: the model brings its own"
        )
    return fluency_stage(model=model)


def _simplify(options: Mapping[str, str]) -> Stage:
    return simplify_stage(SimplifyConfig(**options))


def _mask(options: Mapping[str, str]) -> Stage:
    """Options `kinds`, joined by `+`, `replacement`, and `entities`, a model whose finds are masked too."""
    if unknown := sorted(set(options) - {"kinds", "replacement", "entities"}):
        raise ValueError(f"there is no option {', '.join(unknown)}: there are kinds, replacement and entities")
    model = options.get("entities")
    default = (*MASKED, *ENTITIES[:2]) if model else MASKED
    kinds = tuple(options["kinds"].split("+")) if "kinds" in options else default
    return mask_stage(MaskConfig(kinds=kinds, replacement=options.get("replacement", LABELS)), model=model)


def _url_lists(options: Mapping[str, Any]) -> Stage:
    """Options `folders`, joined by `+`, and the fields of UrlListsConfig."""
    given = _typed(options)
    folders = given.pop("folders", "")
    return url_lists_stage(UrlListsConfig(folders=tuple(folders.split("+")) if folders else (), **given))


MEASUREMENTS: dict[str, Callable[[Mapping[str, Any]], Stage]] = {
    "datatrove": lambda options: make_filter(_typed(options)),
    "fasttext": lambda options: fasttext_stage(FastTextConfig(**options)),
    "url_lists": _url_lists,
    "word_lists": lambda options: word_lists_stage(WordListsConfig(**options)),
}
"""Measurements by the name that `--measure` gives, each made from the options after its colon."""

REWRITES: dict[str, Callable[[Mapping[str, Any]], Stage]] = {
    "clean_c4_lines": lambda options: clean_lines_stage(CleanLinesConfig(**options)),
    "datatrove": lambda options: make_rewrite(_typed(options)),
    "mask_privacy": _mask,
    "simplify_chinese": _simplify,
}
"""Rewrites by the name that `--rewrite` gives, likewise."""


def rewriting_stages(asked: Sequence[str]) -> tuple[Stage, ...]:
    """The rewrites of a request in its order, each `NAME` or `NAME:option=value,…`; InputError for what is none."""
    return _asked("rewrite", asked, REWRITES, taken=())


def own_rewrites(asked: Sequence[str]) -> tuple[str, ...]:
    """The rewrites that look at one text alone: all but `remove_repeated_spans`, which the step `spans` does.

    Raises InputError where that one is not the last: spans are those of the text that the others leave.
    """
    if REMOVE in asked[:-1]:
        raise InputError(
            f"`--rewrite {REMOVE}` stands before `--rewrite {asked[-1]}`", hint=f"name `{REMOVE}` last, and once"
        )
    return tuple(name for name in asked if name != REMOVE)


def cuts_spans(asked: Sequence[str]) -> bool:
    """Whether repeated spans are cut out of the texts."""
    return REMOVE in asked


def _asked(
    option: str,
    asked: Sequence[str],
    known: Mapping[str, Callable[[Mapping[str, Any]], Stage]],
    *,
    taken: Sequence[str],
) -> tuple[Stage, ...]:
    stages = tuple(_make(option, text, known) for text in asked)
    names = [*taken, *(stage.name for stage in stages)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            f"the {option} `{twice[0]}` is asked for twice",
            hint="name it once, with all of its options, or give `name=`",
        )
    return stages


def _make(option: str, text: str, known: Mapping[str, Callable[[Mapping[str, Any]], Stage]]) -> Stage:
    name, _, rest = text.partition(":")
    if name not in known:
        names = sorted({*known, *_ELSEWHERE[option]})
        raise InputError(f"there is no {option} `{name}`", hint=f"the {option}s are {', '.join(names)}")
    try:
        return known[name](_options(option, text, rest))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"`--{option} {text}`: {error}", hint=f"its options stand in docs/guides/{_GUIDES[option]}.md"
        ) from error


_GUIDES = {"measure": "measurements", "rewrite": "rewrites"}
_ELSEWHERE: dict[str, tuple[str, ...]] = {"measure": (), "rewrite": (REMOVE,)}


def _options(option: str, text: str, rest: str) -> dict[str, Any]:
    """`option=value,…` as strings, or a YAML mapping in braces, for values with commas."""
    if rest.startswith("{"):
        try:
            mapping = yaml.safe_load(rest)
        except yaml.YAMLError as error:
            raise InputError(f"`--{option} {text}` is not YAML: {error}") from error
        if not isinstance(mapping, dict) or not all(isinstance(key, str) for key in mapping):
            raise InputError(f"`--{option} {text}` is not a mapping of options")
        return mapping
    pairs = [item.partition("=") for item in rest.split(",") if item]
    if not all(equals and value for _, equals, value in pairs):
        name = text.partition(":")[0]
        raise InputError(f"`--{option} {text}` is not NAME:OPTION=VALUE,…", hint=f"write `--{option} {name}`, say")
    return {key: value for key, _, value in pairs}


def _typed(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with numbers and truth values where the text of one is such."""
    return {key: _plain(value) if isinstance(value, str) else value for key, value in options.items()}


def _plain(value: str) -> Any:
    try:
        found = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    return found if isinstance(found, bool | int | float) else value
