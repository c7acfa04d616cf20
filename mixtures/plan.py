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
from fractions import Fraction
from functools import cached_property
from typing import Any

from mixtures.corpus import Corpus
from mixtures.demand import Demand, Offer, work_out_demand
from mixtures.draw import EPOCH
from mixtures.held_back import HeldBack, measure_held_back
from mixtures.recipe import Recipe, Source, Stage
from mixtures.supply import Reached, Supply, measure_supply
from mixtures.withheld import identify_withheld
from mixtures.wording import say_count
from storage.errors import RecipeError
from storage.identity import fingerprint

WARN_EPOCHS = 4.0
REFUSE_EPOCHS = 16.0
MAJOR_SHARE = 0.1
FORMAT_VERSION = 1
_TOLD = ("recipe", "warnings", "notes", "after", "learning_rate", "held_back")
"""What a plan says beside what it plans; no part of its identity."""
_TOLD_OF_SOURCE = (
    "limited_documents", "limited_tokens", "tokens_so_far", "epochs_so_far", "effective_so_far", "highest_epochs",
)  # fmt: skip
_OF_STAGES = ("stage", "after_mixture", "start_whole_epochs", "start_partial_epoch")
"""What counts where there are stages."""


@dataclass(frozen=True, kw_only=True)
class SourcePlan:
    """What one source gives, in tokens with their end-of-document ids.

    `documents` and `tokens_available` are what is left beside the held-out set; `documents_given` counts each document
    once. `tokens_asked` is by weight, `tokens_target` after the limits, `tokens_given` what the documents really hold.
    `limit` says what kept it short: `max_epochs` or `max_share`. `withheld_…` are those of the held-out documents that
    this source did not draw: another source drew one of their group of duplicates. `limited_…` are documents that the
    limit on hosts leaves. `estimated_…` are documents, on either side, that the token store lacks.

    `whole_epochs` and `partial_epoch` say how far the source was gone through in all, and `heldout` is the threshold of
    the held-out draw (`mixtures.draw`); a stage gives what lies after `start_…`, where the stages before it stopped.
    `…_so_far` count from the first stage, this one included; `highest_epochs` are those of the source's most repeated
    documents so far. What a stage gives is worth what it adds to what came before.
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
    limited_documents: int
    limited_tokens: int
    tokens_so_far: int
    epochs_so_far: float
    effective_so_far: float
    highest_epochs: float
    start_whole_epochs: int = 0
    start_partial_epoch: int | None = None

    @property
    def start(self) -> int:
        """In ticks, where this stage goes on."""
        return _ticks(self.start_whole_epochs, self.start_partial_epoch)

    @property
    def end(self) -> int:
        """In ticks, where this stage stops."""
        return _ticks(self.whole_epochs, self.partial_epoch)


def _ticks(whole: int, partial: int | None) -> int:
    return whole * EPOCH + (0 if partial is None else partial + 1)


def _epochs(ticks: int) -> tuple[int, int | None]:
    """Whole epochs, and the last key of the partial one."""
    whole, rest = divmod(ticks, EPOCH)
    return whole, rest - 1 if rest else None


@dataclass(frozen=True, kw_only=True)
class MixturePlan:
    """A recipe, or one `stage` of it, worked out on a corpus: with the corpus, enough to write the mixture.

    `after` is the stage that this one goes on from, and `after_mixture` the identity of its plan. `notes` say what is
    not as a run of the recipe would have it; `warnings` what a user may want to change; `held_back` what licences keep
    out.
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
    stage: str | None = None
    after: str | None = None
    after_mixture: str | None = None
    learning_rate: str | None = None
    held_back: tuple[HeldBack, ...] = ()

    def identity(self) -> str:
        """32 hex digits; the name of the mixture's folder."""
        return self._identity

    @cached_property
    def _identity(self) -> str:
        told = _TOLD if self.stage else (*_TOLD, *_OF_STAGES)
        told_of_source = _TOLD_OF_SOURCE if self.stage else (*_TOLD_OF_SOURCE, *_OF_STAGES)
        values = _without(asdict(self), told)
        return fingerprint({**values, "sources": [_without(source, told_of_source) for source in values["sources"]]})

    def to_values(self) -> dict[str, Any]:
        """The plan as plain values."""
        return {"format_version": FORMAT_VERSION, "mixture": self.identity(), **asdict(self)}

    def to_json(self) -> str:
        """The plan as JSON text, the same bytes for the same plan."""
        return json.dumps(self.to_values(), indent=1, sort_keys=True) + "\n"

    def rows(self) -> list[tuple[str, ...]]:
        """The plan as a table of texts: a header, a row a source that gives something, and the sum."""
        so_far = ("so far",) if self.after else ()
        header = ("source", "documents", "tokens", "held out", "asked", "given", "share", "epochs", *so_far, "worth")
        body = [_row(source, self.tokens_given, so_far=bool(self.after)) for source in self.sources if _takes(source)]
        total = (
            "all",
            f"{sum(source.documents for source in self.sources):,}",
            say_count(sum(source.tokens_available for source in self.sources)),
            say_count(sum(source.heldout_tokens for source in self.sources)),
            say_count(self.tokens_asked),
            say_count(self.tokens_given),
            "100.0 %",
            *("" for _ in ("epochs", *so_far)),
            say_count(round(self.tokens_effective)),
            _note(self.tokens_asked, sum(source.tokens_target for source in self.sources), None),
        )
        return [(*header, "note"), *body, total]


def _without(values: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _takes(source: SourcePlan) -> bool:
    return source.tokens_asked > 0 or source.tokens_given > 0


def _row(source: SourcePlan, all_given: int, *, so_far: bool) -> tuple[str, ...]:
    return (
        source.name,
        f"{source.documents:,}",
        say_count(source.tokens_available),
        say_count(source.heldout_tokens),
        say_count(source.tokens_asked),
        say_count(source.tokens_given),
        f"{100 * source.tokens_given / all_given:.1f} %",
        f"{source.epochs:.2f}",
        *([f"{source.epochs_so_far:.2f}"] if so_far else []),
        say_count(round(source.tokens_effective)),
        "; ".join(note for note in _notes(source) if note),
    )


def _note(asked: int, target: int, limit: str | None) -> str:
    if target < asked:
        return f"{say_count(asked - target)} short" + (f": {limit}" if limit else "")
    return f"{say_count(target - asked)} more, from others" if target > asked else ""


def _notes(source: SourcePlan) -> tuple[str, ...]:
    return (
        _note(source.tokens_asked, source.tokens_target, source.limit),
        _highest_note(source),
        _withheld_note(source),
        _limited_note(source),
    )


def _highest_note(source: SourcePlan) -> str:
    if math.isclose(source.highest_epochs, source.epochs_so_far):
        return ""
    return f"up to {source.highest_epochs:.2f} epochs by `repeat`"


def _limited_note(source: SourcePlan) -> str:
    if not source.limited_documents:
        return ""
    documents, tokens = f"{source.limited_documents:,}", say_count(source.limited_tokens)
    return f"left by max_documents_per_host: {documents} documents, {tokens} tokens"


def _withheld_note(source: SourcePlan) -> str:
    if not source.withheld_documents:
        return ""
    documents, tokens = f"{source.withheld_documents:,}", say_count(source.withheld_tokens)
    return f"held out with another source's duplicates: {documents} documents, {tokens} tokens"


def plan_mixture(recipe: Recipe, corpus: Corpus, *, force: bool = False) -> MixturePlan:
    """Work out a recipe, or the first of its stages. `force` allows more than 16 epochs. Raises as `plan_stages`."""
    return plan_stages(recipe, corpus, force=force)[0]


def plan_stages(recipe: Recipe, corpus: Corpus, *, force: bool = False) -> tuple[MixturePlan, ...]:
    """Work out all stages of a recipe, each after the one that it goes on from; one without stages is one.

    Raises RecipeError when a source has nothing, when its `tokens` are not there, or when documents would be repeated
    more than 16 times; SqlError for its conditions; DatasetError when the three datasets do not belong together.
    """
    supply, bindings = measure_supply(recipe, corpus), corpus.bind(recipe).bindings
    held_back = measure_held_back(corpus)
    once, most = supply.once(), supply.within([Fraction(str(source.max_epochs)) for source in recipe.sources])
    plans: dict[str | None, MixturePlan] = {}
    reached: dict[str | None, Reached] = {None: supply.nothing()}
    for stage, after in recipe.stages_in_order():
        name = None if stage is None else stage.name
        taken = reached[after].tokens
        offers = [Offer(*tokens) for tokens in zip(once, most, taken, strict=True)]
        step = _work_out(recipe, supply, offers, stage, reached[after])
        plans[name] = _mixture_plan(recipe, corpus, bindings, step, plans.get(after), held_back, force=force)
        reached[name] = step.end
    return tuple(plans.values())


def plans_json(plans: Sequence[MixturePlan]) -> str:
    """A recipe's plans as JSON text: of one without stages its plan, else the stages under `stages`."""
    if plans[0].stage is None:
        return plans[0].to_json()
    values = {"format_version": FORMAT_VERSION, "recipe": plans[0].recipe, "stages": [p.to_values() for p in plans]}
    return json.dumps(values, indent=1, sort_keys=True) + "\n"


@dataclass(frozen=True)
class _Step:
    """One stage worked out: its demand, from where to where each source is gone through, and the documents of it."""

    stage: Stage | None
    supply: Supply
    demand: Demand
    start: Reached
    end: Reached
    documents: list[int]


def _work_out(recipe: Recipe, supply: Supply, offers: Sequence[Offer], stage: Stage | None, start: Reached) -> _Step:
    demand = work_out_demand(recipe, stage, offers)
    if stage is not None and not any(demand.targets):
        raise RecipeError(
            f"nothing is left for stage `{stage.name}`: its sources were repeated `max_epochs` times before it",
            at=recipe.at("stages", (recipe.stages or ()).index(stage), "tokens"),
            hint="raise `max_epochs`, give the stages before it fewer tokens, or add sources",
        )
    end = supply.reach([taken + more for taken, more in zip(start.tokens, demand.targets, strict=True)])
    return _Step(stage, supply, demand, start, end, supply.documents_between(start.ends, end.ends))


def _mixture_plan(
    recipe: Recipe,
    corpus: Corpus,
    bindings: dict[str, str],
    step: _Step,
    after: MixturePlan | None,
    held_back: tuple[HeldBack, ...],
    *,
    force: bool,
) -> MixturePlan:
    sources = tuple(_source_plan(source, step, i) for i, source in enumerate(recipe.sources))
    if not force:
        _refuse_repetition(recipe, sources)
    stage = step.stage
    return MixturePlan(
        recipe=recipe.name,
        recipe_identity=recipe.identity(),
        policy_identity=corpus.verdicts.manifest.stage["policy_identity"],
        corpus={
            "catalogue": corpus.catalogue.manifest.identity,
            "verdicts": corpus.verdicts.manifest.identity,
            "tokens": corpus.tokens.manifest.identity,
            **identify_withheld(recipe),
        },
        bindings=bindings,
        seed=recipe.seed if stage is None or stage.seed is None else stage.seed,
        sequence_length=(None if stage is None else stage.sequence_length) or recipe.sequence_length,
        tokens_asked=sum(step.demand.asked),
        tokens_given=sum(source.tokens_given for source in sources),
        tokens_effective=math.fsum(source.tokens_effective for source in sources),
        sources=sources,
        warnings=tuple(_warnings(sources, step.demand)),
        notes=(*corpus.notes, *_estimates(sources)),
        stage=None if stage is None else stage.name,
        after=None if after is None else after.stage,
        after_mixture=None if after is None else after.identity(),
        learning_rate=None if stage is None else stage.learning_rate,
        held_back=held_back,
    )


def _source_plan(source: Source, step: _Step, i: int) -> SourcePlan:
    supply, demand, start, end = step.supply, step.demand, step.start, step.end
    available = supply.train.tokens[i]
    whole, partial = _epochs(end.ends[i])
    start_whole, start_partial = _epochs(start.ends[i])
    given = end.tokens[i] - start.tokens[i]
    return SourcePlan(
        name=source.name,
        documents=supply.train.documents[i],
        tokens_available=available,
        tokens_asked=demand.asked[i],
        tokens_target=demand.targets[i],
        tokens_given=given,
        documents_given=step.documents[i],
        epochs=given / available,
        tokens_effective=end.effective[i] - start.effective[i],
        limit=demand.limits[i],
        heldout_documents=supply.held.documents[i],
        heldout_tokens=supply.held.tokens[i],
        heldout_bytes=supply.held.bytes[i],
        withheld_documents=supply.withheld.documents[i],
        withheld_tokens=supply.withheld.tokens[i],
        estimated_documents=supply.estimated.documents[i],
        estimated_tokens=supply.estimated.tokens[i],
        whole_epochs=whole,
        partial_epoch=partial,
        heldout=supply.heldout[i],
        limited_documents=supply.limited.documents[i],
        limited_tokens=supply.limited.tokens[i],
        tokens_so_far=end.tokens[i],
        epochs_so_far=end.tokens[i] / available,
        effective_so_far=end.effective[i],
        highest_epochs=end.highest[i],
        start_whole_epochs=start_whole,
        start_partial_epoch=start_partial,
    )


def _refuse_repetition(recipe: Recipe, sources: Sequence[SourcePlan]) -> None:
    for i, source in enumerate(sources):
        if source.highest_epochs > REFUSE_EPOCHS and _takes(source):
            raise RecipeError(
                f"recipe repeats {_most_repeated(source)} {source.highest_epochs:.1f} times, above the limit of "
                f"{REFUSE_EPOCHS:g}: "
                f"{say_count(source.tokens_so_far)} tokens would be worth {say_count(round(source.effective_so_far))}",
                at=recipe.at("sources", i, "max_epochs"),
                hint=f"set `max_epochs: {REFUSE_EPOCHS:g}` or less, lower its share, or plan with `--force`",
            )


def _most_repeated(source: SourcePlan) -> str:
    plain = math.isclose(source.highest_epochs, source.epochs_so_far)
    return f"`{source.name}`" if plain else f"what has the highest factor in `{source.name}`"


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
        if source.highest_epochs > WARN_EPOCHS and _takes(source):
            advice = "; train with dropout (0.1, switched on late)" if source.tokens_given > MAJOR_SHARE * given else ""
            so_far = " by now" if source.tokens_so_far > source.tokens_given else ""
            yield (
                f"{_most_repeated(source)} is repeated {source.highest_epochs:.1f} times{so_far}, above "
                f"{WARN_EPOCHS:g}: {say_count(source.tokens_so_far)} tokens are worth "
                f"{say_count(round(source.effective_so_far))}{advice}"
            )
