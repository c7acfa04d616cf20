"""Recipes: what a model is trained on, in YAML that a person writes by hand.

Sources are SQL conditions over the documents that the policy kept; each document belongs to the first source that
takes it, in every stage. A source says how much by `weight` (relative) or `tokens` (absolute), never by ratios that
must sum to one. Stages say it anew and draw from the same sources, so that what one of them used up is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from mixtures.inputs import RecipeInput
from mixtures.yaml_files import Count, Place, Written, WrittenFile, fault, find_file, load_yaml, one_of

SHIPPED = Path(__file__).parent / "recipes"
DEFAULT_MAX_EPOCHS = 4.0
"""Up to here repeated tokens are worth almost as much as fresh ones (Muennighoff et al., 2305.16264)."""


FACTOR_STEPS, MAX_FACTOR = 100, 100.0
"""Factors of repetition count in hundredths."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Epochs = Annotated[float, Field(gt=0)]
Factor = Annotated[float, Field(ge=0, le=MAX_FACTOR)]


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Expression = Annotated[
    str, BeforeValidator(_as_text), WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1}, {"type": "number"}]})
]
"""SQL, or a plain number."""


def _positive(value: float | None) -> float | None:
    if value is not None and value <= 0:
        raise ValueError(f"{value:g} takes nothing: remove the source, or give it a number above 0")
    return value


class TrainTokenizer(Written):
    """A byte-level BPE trained on the documents that the recipe takes."""

    vocabulary_size: Count = Field(gt=256, description="Entries, the 256 bytes and the end-of-document token included.")
    sample: Count | None = Field(
        default=None, gt=0, description="Bytes of text to train it on, taken evenly from all sources (default: 256M)."
    )
    balance: dict[str, float] | None = Field(
        default=None,
        min_length=1,
        description="Weights of the sample's groups, e.g. {en: 2, zh: 1}; `other` is every group not named.",
    )
    balance_by: str | None = Field(
        default=None, min_length=1, description="What the groups are, in SQL (default: language.label)."
    )
    digits: int = Field(default=1, ge=1, le=9, description="Digits that may stand together in an entry.")
    min_frequency: Count = Field(default=2, ge=1, description="Occurrences that a pair needs to become an entry.")
    max_token_bytes: int = Field(default=64, ge=2, description="Length of the longest entry.")
    end_of_document: str = Field(
        default="<|endoftext|>", min_length=1, description="The token that ends a document; its id is 0."
    )
    special_tokens: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(), max_length=10_000, description="More tokens that no text becomes, with the ids from 1 on."
    )

    @property
    def balance_key(self) -> str:
        return self.balance_by or "language.label"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.balance_by is not None and self.balance is None:
            raise fault("`balance_by` says what the groups are, but no `balance` names them", "balance_by")
        for name, weight in (self.balance or {}).items():
            if weight <= 0:
                raise fault(
                    f"`{name}` has a weight of {weight:g}: leave it out, or give it more than 0", "balance", name
                )
        tokens = (self.end_of_document, *self.special_tokens)
        for i, token in enumerate(self.special_tokens):
            if token in tokens[: i + 1]:
                raise fault(f"the special token {token!r} is named twice", "special_tokens", i)
        if self.vocabulary_size < 256 + len(tokens):
            raise fault(
                f"{self.vocabulary_size} entries cannot hold 256 bytes and {len(tokens)} tokens", "vocabulary_size"
            )
        return self


class Tokenizer(Written):
    """Which tokenizer: train one, or load one."""

    model_config = one_of("train", "load")

    train: TrainTokenizer | None = Field(default=None, description="Train a byte-level BPE.")
    load: str | None = Field(
        default=None,
        min_length=1,
        description="Path of a `tokenizer.json`, of a tiktoken file, or of a folder that holds a tokenizer.",
    )
    scheme: str | None = Field(
        default=None,
        min_length=1,
        description="With `load`: how a tiktoken file cuts text, where its name does not say.",
    )
    end_of_document: str | None = Field(
        default=None, min_length=1, description="With `load`: the token that ends a document, where it is not found."
    )
    fill_in_middle: tuple[str, str, str] | None = Field(
        default=None,
        description="The tokens before prefix, suffix and middle of rearranged documents, where they are not known.",
    )

    keep: Count | None = Field(
        default=None,
        gt=256,
        description="With `load`: keep this many entries, those most frequent in the documents (TinyStories: 10k).",
    )

    @property
    def of_documents(self) -> bool:
        """True when the recipe's documents make it what it is."""
        return self.train is not None or self.keep is not None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.train is None) == (self.load is None):
            raise ValueError("`tokenizer` needs one of `train` and `load`")
        if self.end_of_document is not None and self.load is None:
            raise fault("`end_of_document` stands under `train` for a tokenizer that is trained", "end_of_document")
        if self.scheme is not None and self.load is None:
            raise fault("`scheme` goes with `load`; a trained tokenizer has its own", "scheme")
        if self.keep is not None and self.load is None:
            raise fault("`keep` goes with `load`; `vocabulary_size` is that of a trained tokenizer", "keep")
        return self


class Heldout(Written):
    """How much of each source no training ever sees; whole groups of near-duplicates go together."""

    model_config = one_of("share", "tokens")

    share: float | None = Field(default=None, ge=0, lt=1, description="Share of each source's tokens.")
    tokens: Count | None = Field(default=None, ge=0, description="Tokens of each source.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.share is None) == (self.tokens is None):
            raise ValueError("`heldout` needs one of `share` and `tokens`")
        return self


class FillInMiddle(Written):
    """Documents with their middle moved to their end, so that a model learns to write between two texts."""

    share: float = Field(gt=0, le=1, description="Share of the source's documents; OpenSeek takes 0.1.")
    suffix_first: float = Field(
        default=0.0, ge=0, le=1, description="Share of those that begin with the suffix, not with the prefix."
    )


class Repeat(Written):
    """How often a document is taken for every time that one of factor 1 is: 3, half as often, or never."""

    model_config = one_of("factor", "by")

    factor: Expression | None = Field(
        default=None, min_length=1, description="The factor itself (SQL), such as `least(cluster_size, 8)`."
    )
    by: str | None = Field(default=None, min_length=1, description="What decides (SQL), such as `quality.bucket`.")
    factors: dict[str, Factor] = Field(default_factory=dict, description="With `by`: the factor of each value.")
    otherwise: Factor = Field(default=1.0, description="With `by`: the factor of every other value, and of none.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.factor is None) == (self.by is None):
            raise ValueError("`repeat` needs one of `factor` and `by`")
        if (self.by is None) == bool(self.factors):
            raise ValueError("`factors` goes with `by`: the factor of each of its values")
        for value, factor in [*self.factors.items(), ("otherwise", self.otherwise)]:
            if (Fraction(str(factor)) * FACTOR_STEPS).denominator != 1:
                place = ("otherwise",) if value == "otherwise" else ("factors", value)
                raise fault(f"a factor counts in hundredths: {factor:g} has more digits", *place)
        return self


class Source(Written):
    """One source: which documents, and how much of them."""

    name: Name = Field(description="Short name; files and reports carry it.")
    where: str = Field(min_length=1, description="Condition (SQL) over names such as `source`, `language.label`.")
    weight: float | None = Field(
        default=None,
        description="Its share of the tokens, relative to the other weights.",
        json_schema_extra={"exclusiveMinimum": 0},
    )
    tokens: Count | None = Field(default=None, description="Its number of tokens; what cannot be met is an error.")
    max_epochs: float = Field(
        default=DEFAULT_MAX_EPOCHS, gt=0, description="How often its documents may be repeated; above 4 the plan warns."
    )
    max_share: float | None = Field(default=None, gt=0, le=1, description="Largest share of all tokens it may have.")
    fill_in_middle: FillInMiddle | None = Field(
        default=None, description="Rearrange a share of its documents, as is done for code."
    )
    max_documents_per_host: Count | None = Field(
        default=None, gt=0, description="Of each host so many documents at most, drawn by hash; the others are left."
    )
    repeat: Repeat | None = Field(default=None, description="Some documents are taken more often than others.")
    order: str | None = Field(
        default=None,
        min_length=1,
        description="Which documents are taken first (SQL, a number), such as `quality.score DESC` (default: by hash).",
    )

    @field_validator("weight", "tokens")
    @classmethod
    def _takes_something(cls, value: float | None) -> float | None:
        return _positive(value)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.weight is not None and self.tokens is not None:
            raise ValueError(f"source `{self.name}` has `weight` and `tokens`; one of them says how much")
        return self

    @property
    def says_how_much(self) -> bool:
        return self.weight is not None or self.tokens is not None


class StageSource(Written):
    """How much of a source one stage takes; what is left out is as the recipe's own list says."""

    weight: float | None = Field(
        default=None,
        description="Its share of the stage's tokens, relative to the other weights.",
        json_schema_extra={"exclusiveMinimum": 0},
    )
    tokens: Count | None = Field(default=None, description="Its number of tokens; what cannot be met is an error.")
    max_share: float | None = Field(
        default=None, gt=0, le=1, description="Largest share of the stage's tokens it may have."
    )

    @field_validator("weight", "tokens")
    @classmethod
    def _takes_something(cls, value: float | None) -> float | None:
        return _positive(value)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.weight is not None and self.tokens is not None:
            raise ValueError("there are `weight` and `tokens`; one of them says how much")
        return self

    def laid_on(self, source: Source) -> Source:
        """The source as this stage takes it."""
        amount = {"weight": self.weight, "tokens": self.tokens} if self.weight or self.tokens else {}
        share = {"max_share": self.max_share} if self.max_share else {}
        return source.model_copy(update={**amount, **share})


class Stage(Written):
    """One stage of training: what it goes on from, how long, and what it takes."""

    model_config = one_of("tokens", "epochs")

    name: Name = Field(description="Short name; folders and reports carry it.")
    after: str | None = Field(
        default=None, min_length=1, description="The stage that it goes on from (default: the one before)."
    )
    tokens: Count | None = Field(default=None, gt=0, description="Training tokens of this stage.")
    epochs: Epochs | None = Field(default=None, description="In place of `tokens`: passes over what its sources hold.")
    sequence_length: int | None = Field(
        default=None, ge=8, description="Tokens the model sees at once (default: the recipe's)."
    )
    sources: dict[str, StageSource] | None = Field(
        default=None, min_length=1, description="What it takes, by source (default: all, as the recipe's list says)."
    )
    seed: int | None = Field(
        default=None, ge=0, lt=2**63, description="Another seed trains on the same documents in another order."
    )
    learning_rate: Literal["preset", "constant", "linear_to_zero"] | None = Field(
        default=None,
        description="For the trainer: the preset's schedule anew, or from where the stage before stopped (default: the "
        "preset's for the first stage, to zero for those after it).",
    )
    rope_base: float | None = Field(
        default=None, gt=0, description="For the trainer: another base of the positions, for longer sequences."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.tokens is None) == (self.epochs is None):
            raise ValueError(f"stage `{self.name}` needs one of `tokens` and `epochs`")
        return self


class Recipe(WrittenFile):
    """A recipe file. Where its documents come from does not make it another: they have identities of their own."""

    APART = (*WrittenFile.APART, "inputs")

    inputs: dict[Annotated[str, Field(min_length=1)], RecipeInput] = Field(
        default_factory=dict,
        max_length=1000,
        description="What a run reads, by the name of the source, beside what its options name.",
    )
    seed: int = Field(ge=0, lt=2**63, description="Another seed draws other documents.")
    sequence_length: int = Field(default=1024, ge=8, description="Tokens the model sees at once.")
    tokens: Count | None = Field(
        default=None, gt=0, description="Training tokens in all (default: as many as the sources hold once)."
    )
    epochs: Epochs | None = Field(
        default=None, description="In place of `tokens`: passes over what the sources hold (default: 1)."
    )
    policy: str = Field(min_length=1, description="A shipped policy's name, or a path from this file's folder.")
    tokenizer: Tokenizer = Field(description="Train a tokenizer, or load one.")
    heldout: Heldout = Field(default=Heldout(share=0.01), description="What is kept for evaluation.")
    allow_licences: tuple[Annotated[str, Field(min_length=1)], ...] | Literal["any"] | None = Field(
        default=None,
        description="Licences that are not known to be permissive and whose texts are taken all the same, as the "
        "documents state them, or `any` (default: none).",
    )
    withheld: str | None = Field(
        default=None,
        min_length=1,
        description="A Parquet file from this file's folder: the documents under `doc_id` are never taken, neither to "
        "train on nor to hold out.",
    )
    sources: tuple[Source, ...] = Field(
        min_length=1, max_length=1000, description="The sources; a document belongs to the first that takes it."
    )

    stages: tuple[Stage, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="Stages that build on each other (default: one, of `tokens`).",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [source.name for source in self.sources]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise fault(f"two sources are called `{name}`", "sources", i, "name")
        if self.tokens is not None and self.epochs is not None:
            raise fault("there are `tokens` and `epochs`; one of them says how many tokens there are", "epochs")
        if self.stages is None:
            self._check_amounts(None, ())
        else:
            self._check_stages(self.stages)
        return self

    def allowed(self) -> dict[str, Any]:
        """`allow_licences` as YAML has it, for another recipe over the same documents; nothing where it is not said."""
        return self.model_dump(mode="json", include={"allow_licences"}, exclude_none=True)

    def _check_stages(self, stages: Sequence[Stage]) -> None:
        for name in ("tokens", "epochs"):
            if getattr(self, name) is not None:
                raise fault(f"a recipe with `stages` has no `{name}` of its own: each stage says how many", name)
        _check_order(stages)
        known = {source.name: source for source in self.sources}
        for i, stage in enumerate(stages):
            for name in stage.sources or ():
                if name not in known:
                    raise fault(
                        f"stage `{stage.name}` takes `{name}`, which is no source of this recipe; "
                        f"its sources: {', '.join(known)}",
                        *("stages", i, "sources", name),
                    )
            self._check_amounts(stage, ("stages", i))
        for i, source in enumerate(self.sources):
            if all(self.sources_of(stage)[i] is None for stage in stages):
                raise fault(f"source `{source.name}` is in no stage", "sources", i)

    def _check_amounts(self, stage: Stage | None, place: Place) -> None:
        """Raises a fault where some of the sources say how much and others do not, or where they ask for too much."""
        own = place if stage is not None and stage.sources is not None else ()
        taken = [(i, source) for i, source in enumerate(self.sources_of(stage)) if source is not None]
        for i, source in taken:
            if not source.says_how_much and any(other.says_how_much for _, other in taken):
                raise fault(
                    f"source `{source.name}` has neither `weight` nor `tokens`, but others have",
                    *(*own, "sources", source.name if own else i),
                )
        fixed, total = sum(source.tokens or 0 for _, source in taken), self.tokens if stage is None else stage.tokens
        if total is not None and fixed > total:
            asker = "the recipe" if stage is None else f"stage `{stage.name}`"
            raise fault(f"the sources ask for {fixed:,} tokens, but {asker} has {total:,} in all", *place, "tokens")

    def sources_of(self, stage: Stage | None) -> tuple[Source | None, ...]:
        """The sources as a stage takes them, None for those that it does not take."""
        if stage is None or stage.sources is None:
            return self.sources
        laid = stage.sources
        return tuple(laid[source.name].laid_on(source) if source.name in laid else None for source in self.sources)

    def stages_in_order(self) -> list[tuple[Stage | None, str | None]]:
        """Every stage after the one that it goes on from, and that one's name; without stages there is one, None."""
        if self.stages is None:
            return [(None, None)]
        parents = _parents(self.stages)
        done: dict[str, Stage] = {}
        while len(done) < len(self.stages):
            done |= {s.name: s for s in self.stages if s.name not in done and parents[s.name] in (None, *done)}
        return [(stage, parents[stage.name]) for stage in done.values()]

    def at_stage(self, stage: Stage | None, source: Source, key: str) -> str:
        """`file:line` of what a stage asks of a source."""
        i = next(i for i, own in enumerate(self.sources) if own.name == source.name)
        if stage is not None and self.stages is not None and stage.sources is not None:
            if getattr(stage.sources[source.name], key, None) is not None:
                return self.at("stages", self.stages.index(stage), "sources", source.name, key)
        return self.at("sources", i, key)


def _parents(stages: Sequence[Stage]) -> dict[str, str | None]:
    before = [None, *(stage.name for stage in stages)]
    return {stage.name: stage.after or before[i] for i, stage in enumerate(stages)}


def _check_order(stages: Sequence[Stage]) -> None:
    """Raises a fault for a name that stands twice, for an unknown one, and for stages that go on from each other."""
    names = [stage.name for stage in stages]
    for i, stage in enumerate(stages):
        if stage.name in names[:i]:
            raise fault(f"two stages are called `{stage.name}`", "stages", i, "name")
        if stage.after is not None and stage.after not in names:
            raise fault(
                f"stage `{stage.name}` goes on after `{stage.after}`, which is no stage; stages: {', '.join(names)}",
                *("stages", i, "after"),
            )
    parents = _parents(stages)
    for i, stage in enumerate(stages):
        way = list(_way_back(stage.name, parents))
        if way[-1] == stage.name and len(way) > 1:
            raise fault(f"the stages go in a circle: {' after '.join(f'`{name}`' for name in way)}", "stages", i)


def _way_back(name: str, parents: dict[str, str | None]) -> Iterator[str]:
    """The stages that one goes on from, itself first; in a circle up to the first that comes again."""
    seen: list[str] = []
    step: str | None = name
    while step is not None and step not in seen:
        seen.append(step)
        yield step
        step = parents[step]
    if step is not None:
        yield step


def load_recipe(reference: str, *, beside: Path | None = None) -> Recipe:
    """A recipe by its path or by the name of a shipped one. Raises RecipeError with every fault and its line."""
    return load_yaml(find_file(reference, SHIPPED, beside=beside), Recipe)


def policy_folder(recipe: Recipe) -> Path:
    """The folder from which a recipe's own paths count: that of its file."""
    return recipe.folder
