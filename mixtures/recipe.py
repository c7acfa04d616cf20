"""Recipes: what a model is trained on, in YAML that a person writes by hand.

Sources are SQL conditions over the documents that the policy kept; each document belongs to the first source that
takes it. A source says how much by `weight` (relative) or `tokens` (absolute), never by ratios that must sum to one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from mixtures.yaml_files import Count, Written, WrittenFile, fault, find_file, load_yaml, one_of

SHIPPED = Path(__file__).parent / "recipes"
DEFAULT_MAX_EPOCHS = 4.0
"""Up to here repeated tokens are worth almost as much as fresh ones (Muennighoff et al., 2305.16264)."""


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


class Source(Written):
    """One source: which documents, and how much of them."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")] = Field(
        description="Short name; files and reports carry it."
    )
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

    @field_validator("weight", "tokens")
    @classmethod
    def _takes_something(cls, value: float | None) -> float | None:
        if value is not None and value <= 0:
            raise ValueError(f"{value:g} takes nothing: remove the source, or give it a number above 0")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.weight is not None and self.tokens is not None:
            raise ValueError(f"source `{self.name}` has `weight` and `tokens`; one of them says how much")
        return self


class Recipe(WrittenFile):
    """A recipe file."""

    seed: int = Field(ge=0, lt=2**63, description="Another seed draws other documents.")
    sequence_length: int = Field(default=1024, ge=8, description="Tokens the model sees at once.")
    tokens: Count | None = Field(
        default=None, gt=0, description="Training tokens in all (default: as many as the sources hold once)."
    )
    policy: str = Field(min_length=1, description="A shipped policy's name, or a path from this file's folder.")
    tokenizer: Tokenizer = Field(description="Train a tokenizer, or load one.")
    heldout: Heldout = Field(default=Heldout(share=0.01), description="What is kept for evaluation.")
    sources: tuple[Source, ...] = Field(
        min_length=1, max_length=1000, description="The sources; a document belongs to the first that takes it."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [source.name for source in self.sources]
        asked = [source.weight is not None or source.tokens is not None for source in self.sources]
        for i, source in enumerate(self.sources):
            if source.name in names[:i]:
                raise fault(f"two sources are called `{source.name}`", "sources", i, "name")
            if any(asked) and not asked[i]:
                raise fault(f"source `{source.name}` has neither `weight` nor `tokens`, but others have", "sources", i)
        fixed = sum(source.tokens or 0 for source in self.sources)
        if self.tokens is not None and fixed > self.tokens:
            raise fault(f"the sources ask for {fixed:,} tokens, but the recipe has {self.tokens:,} in all", "tokens")
        return self


def load_recipe(reference: str, *, beside: Path | None = None) -> Recipe:
    """A recipe by its path or by the name of a shipped one. Raises RecipeError with every fault and its line."""
    return load_yaml(find_file(reference, SHIPPED, beside=beside), Recipe)


def policy_folder(recipe: Recipe) -> Path:
    """The folder from which a recipe's own paths count: that of its file."""
    return recipe.folder
