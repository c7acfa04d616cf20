"""The mixture plan: how many tokens each source gives, how often it repeats, what falls short, before anything runs.

Tokens are those of the token store, end-of-document ids included, so the index holds exactly what the plan says. A
source gives whole epochs and then a partial one, drawn by hash until its target is reached: it exceeds the target by
less than one document.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from mixtures.apportion import effective_tokens
from mixtures.corpus import Corpus
from mixtures.demand import Demand, work_out_demand
from mixtures.recipe import Recipe
from mixtures.supply import Supply, Tally, measure_supply
from mixtures.wording import say_count
from storage.errors import RecipeError
from storage.identity import fingerprint

WARN_EPOCHS = 4.0
REFUSE_EPOCHS = 16.0
MAJOR_SHARE = 0.1
FORMAT_VERSION = 1
_TOLD = ("recipe", "warnings", "notes")
"""What a plan says beside what it plans; no part of its identity."""


@dataclass(frozen=True, kw_only=True)
class SourcePlan:
    """What one source gives, in tokens with their end-of-document ids.

    `documents` and `tokens_available` are what is left beside the held-out set; `documents_given` counts each document
    once. `tokens_asked` is by weight, `tokens_target` after the limits, `tokens_given` what the documents really hold.
    `limit` says what kept it short: `max_epochs` or `max_share`. `withheld_…` are those of the held-out documents that
    this source did not draw: another source drew one of their group of duplicates. `estimated_…` are documents, on
    either side, that the token store lacks. `partial_epoch` and `heldout` are
    the thresholds of the two draws (`mixtures.draw`).
    """

    name: str
    documents: int
    tokens_available: int
    tokens_asked: int
    tokens_target: int
    tokens_given: int
    documents_given: int
    epochs: float
    tokens_effective: float
    limit: str | None
    heldout_documents: int
    heldout_tokens: int
    heldout_bytes: int
    withheld_documents: int
    withheld_tokens: int
    estimated_documents: int
    estimated_tokens: int
    whole_epochs: int
    partial_epoch: int | None
    heldout: int | None


@dataclass(frozen=True, kw_only=True)
class MixturePlan:
    """A recipe worked out on a corpus: with the corpus, enough to write the mixture.

    `notes` say what is not as a run of the recipe would have it; `warnings` what a user may want to change.
    """

    recipe: str
    recipe_identity: str
    policy_identity: str
    corpus: dict[str, str]
    bindings: dict[str, str]
    seed: int
    sequence_length: int
    tokens_asked: int
    tokens_given: int
    tokens_effective: float
    sources: tuple[SourcePlan, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def identity(self) -> str:
        """32 hex digits; the name of the mixture's folder."""
        return fingerprint({key: value for key, value in asdict(self).items() if key not in _TOLD})

    def to_json(self) -> str:
        """The plan as JSON text, the same bytes for the same plan."""
        values = {"format_version": FORMAT_VERSION, "mixture": self.identity(), **asdict(self)}
        return json.dumps(values, indent=1, sort_keys=True) + "\n"

    def rows(self) -> list[tuple[str, ...]]:
        """The plan as a table of texts: a header, a row a source, and the sum."""
        header = ("source", "documents", "tokens", "held out", "asked", "given", "share", "epochs", "worth", "note")
        body = [_row(source, self.tokens_given) for source in self.sources]
        total = (
            "all",
            f"{sum(source.documents for source in self.sources):,}",
            say_count(sum(source.tokens_available for source in self.sources)),
            say_count(sum(source.heldout_tokens for source in self.sources)),
            say_count(self.tokens_asked),
            say_count(self.tokens_given),
            "100.0 %",
            "",
            say_count(round(self.tokens_effective)),
            _note(self.tokens_asked, sum(source.tokens_target for source in self.sources), None),
        )
        return [header, *body, total]


def _row(source: SourcePlan, all_given: int) -> tuple[str, ...]:
    return (
        source.name,
        f"{source.documents:,}",
        say_count(source.tokens_available),
        say_count(source.heldout_tokens),
        say_count(source.tokens_asked),
        say_count(source.tokens_given),
        f"{100 * source.tokens_given / all_given:.1f} %",
        f"{source.epochs:.2f}",
        say_count(round(source.tokens_effective)),
        "; ".join(note for note in _notes(source) if note),
    )


def _note(asked: int, target: int, limit: str | None) -> str:
    if target < asked:
        return f"{say_count(asked - target)} short" + (f": {limit}" if limit else "")
    return f"{say_count(target - asked)} more, from others" if target > asked else ""


def _notes(source: SourcePlan) -> tuple[str, str]:
    return _note(source.tokens_asked, source.tokens_target, source.limit), _withheld_note(source)


def _withheld_note(source: SourcePlan) -> str:
    if not source.withheld_documents:
        return ""
    documents, tokens = f"{source.withheld_documents:,}", say_count(source.withheld_tokens)
    return f"held out with another source's duplicates: {documents} documents, {tokens} tokens"


def plan_mixture(recipe: Recipe, corpus: Corpus, *, force: bool = False) -> MixturePlan:
    """Work out a recipe. `force` allows more than 16 epochs.

    Raises RecipeError when a source has nothing, when its `tokens` are not there, or when documents would be repeated
    more than 16 times; SqlError for its conditions; DatasetError when the three datasets do not belong together.
    """
    supply = measure_supply(recipe, corpus)
    demand = work_out_demand(recipe, supply.train.tokens)
    rest = [target % available for target, available in zip(demand.targets, supply.train.tokens, strict=True)]
    partial, drawn = supply.draw_partial(rest)
    sources = tuple(_source_plan(recipe, supply, demand, partial, drawn, i) for i in range(len(recipe.sources)))
    if not force:
        _refuse_repetition(recipe, sources)
    return MixturePlan(
        recipe=recipe.name,
        recipe_identity=recipe.identity(),
        policy_identity=corpus.verdicts.manifest.stage["policy_identity"],
        corpus={
            "catalogue": corpus.catalogue.manifest.identity,
            "verdicts": corpus.verdicts.manifest.identity,
            "tokens": corpus.tokens.manifest.identity,
        },
        bindings=corpus.bind(recipe).bindings,
        seed=recipe.seed,
        sequence_length=recipe.sequence_length,
        tokens_asked=sum(demand.asked),
        tokens_given=sum(source.tokens_given for source in sources),
        tokens_effective=math.fsum(source.tokens_effective for source in sources),
        sources=sources,
        warnings=tuple(_warnings(sources, demand)),
        notes=(*corpus.notes, *_estimates(sources)),
    )


def _source_plan(
    recipe: Recipe, supply: Supply, demand: Demand, partial: Sequence[int | None], drawn: Tally, i: int
) -> SourcePlan:
    available = supply.train.tokens[i]
    whole = demand.targets[i] // available
    given = whole * available + drawn.tokens[i]
    return SourcePlan(
        name=recipe.sources[i].name,
        documents=supply.train.documents[i],
        tokens_available=available,
        tokens_asked=demand.asked[i],
        tokens_target=demand.targets[i],
        tokens_given=given,
        documents_given=supply.train.documents[i] if whole else drawn.documents[i],
        epochs=given / available,
        tokens_effective=effective_tokens(available, given),
        limit=demand.limits[i],
        heldout_documents=supply.held.documents[i],
        heldout_tokens=supply.held.tokens[i],
        heldout_bytes=supply.held.bytes[i],
        withheld_documents=supply.withheld.documents[i],
        withheld_tokens=supply.withheld.tokens[i],
        estimated_documents=supply.estimated.documents[i],
        estimated_tokens=supply.estimated.tokens[i],
        whole_epochs=whole,
        partial_epoch=partial[i],
        heldout=supply.heldout[i],
    )


def _refuse_repetition(recipe: Recipe, sources: Sequence[SourcePlan]) -> None:
    for i, source in enumerate(sources):
        if source.epochs > REFUSE_EPOCHS:
            raise RecipeError(
                f"recipe repeats `{source.name}` {source.epochs:.1f} times, above the limit of {REFUSE_EPOCHS:g}: "
                f"{say_count(source.tokens_given)} tokens would be worth {say_count(round(source.tokens_effective))}",
                at=recipe.at("sources", i, "max_epochs"),
                hint=f"set `max_epochs: {REFUSE_EPOCHS:g}` or less, lower its share, or plan with `--force`",
            )


def _estimates(sources: Sequence[SourcePlan]) -> Iterator[str]:
    for source in sources:
        if source.estimated_documents:
            yield (
                f"{source.estimated_documents:,} documents of `{source.name}` are not in the token store: their "
                f"{say_count(source.estimated_tokens)} tokens are estimates"
            )


def _warnings(sources: Sequence[SourcePlan], demand: Demand) -> Iterator[str]:
    target = sum(demand.targets)
    if target < sum(demand.asked):
        yield (
            f"{say_count(sum(demand.asked))} tokens were asked, {say_count(target)} are given: every source is at its "
            "limit; raise `max_epochs` or `max_share`, or add sources"
        )
    given = sum(source.tokens_given for source in sources)
    for source in sources:
        if source.epochs > WARN_EPOCHS:
            advice = "; train with dropout (0.1, switched on late)" if source.tokens_given > MAJOR_SHARE * given else ""
            yield (
                f"`{source.name}` is repeated {source.epochs:.1f} times, above {WARN_EPOCHS:g}: "
                f"{say_count(source.tokens_given)} tokens are worth {say_count(round(source.tokens_effective))}{advice}"
            )
