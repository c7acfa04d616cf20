"""Policies: what a document must be like to be kept, as an ordered list of rules in YAML.

Every failing rule is recorded with what was measured and the limit; the first in the policy's order decides. Moving a
threshold changes the policy's identity and re-runs a query, never a measurement.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mixtures.yaml_files import Written, WrittenFile, fault, find_file, load_yaml, one_of
from storage.identity import fingerprint

SHIPPED = Path(__file__).parent / "policies"

Sql = Annotated[str, Field(min_length=1)]
RuleName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


def _check_range(smallest: float | None, largest: float | None) -> None:
    if smallest is None and largest is None:
        raise ValueError("without `min` or `max` everything would pass: give one of them, or both")
    if smallest is not None and largest is not None and smallest > largest:
        raise ValueError(f"`min` {smallest:g} is above `max` {largest:g}: nothing could pass")


class Limits(Written):
    """A measurement must lie between these, both included."""

    min: float | None = Field(default=None, description="Smallest value that passes.")
    max: float | None = Field(default=None, description="Largest value that passes.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_range(self.min, self.max)
        return self


class Keep(Written):
    """Which document of a group of duplicates stays."""

    best: tuple[Sql, ...] = Field(
        min_length=1,
        description="What is compared, first things first: `quality.score desc`, `text_bytes desc`, "
        "`collected_at asc`. Missing values come last, and the smallest doc_id settles a tie.",
    )


class Search(Written):
    """How near-duplicates are looked for: a preset, and what is to be otherwise."""

    preset: Literal["default", "datatrove", "cci4"] = Field(
        default="default",
        description="`default` (words, 112 permutations), `datatrove` (words, 14 bands of 8, from 0.72) or `cci4` "
        "(characters, 250 permutations, from 0.7).",
    )
    unit: Literal["words", "characters"] | None = Field(default=None, description="What shingles are runs of.")
    shingle_size: int | None = Field(default=None, ge=1, le=64, description="Words or characters of a shingle.")
    permutations: int | None = Field(
        default=None, ge=1, le=4096, description="Hashes of a signature; bands and rows are then worked out."
    )
    bands: int | None = Field(default=None, ge=1, le=1024, description="With `rows`: instead of `permutations`.")
    rows: int | None = Field(default=None, ge=1, le=64, description="With `bands`: hashes of a band.")
    threshold: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Smallest similarity that is recorded (default: the preset's, for `default` the rule's "
        "`min_similarity`).",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.bands is None) != (self.rows is None):
            raise ValueError("of `bands` and `rows` one is missing; they go together")
        if self.bands is not None and self.permutations is not None:
            raise ValueError("`permutations` beside `bands` and `rows`: give one or the others")
        return self


class Rule(Written):
    """One rule: a measurement with limits, or a condition under which documents fail, or duplicates."""

    model_config = one_of("measure", "when", "duplicates")

    rule: RuleName = Field(description="The fault, as it will stand in the ledger: `too_few_words`.")
    only: Sql | None = Field(
        default=None, description="Condition (SQL) that documents must meet for the rule to apply to them."
    )
    measure: Sql | None = Field(default=None, description="What is measured: a name, or an SQL expression.")
    min: float | None = Field(default=None, description="Smallest value that passes.")
    max: float | None = Field(default=None, description="Largest value that passes.")
    min_percentile: float | None = Field(
        default=None, gt=0, lt=100, description="What is below this percentile of its `per` group fails."
    )
    max_percentile: float | None = Field(
        default=None, gt=0, lt=100, description="What is above this percentile of its `per` group fails."
    )
    per: Sql | None = Field(default=None, description="What the limits depend on, such as `language.label`.")
    limits: dict[str, Limits] | None = Field(
        default=None,
        description="Limits by the value of `per`; `other` holds for all values that are not named.",
    )
    optional: bool = Field(
        default=False, description="Leave the rule out of a run in which the stage that it names has measured nothing."
    )
    if_missing: Literal["pass", "fail"] | None = Field(
        default=None, description="What becomes of a document that was not measured (default: pass)."
    )
    when: Sql | None = Field(default=None, description="Condition (SQL) under which a document fails.")
    measured: Sql | None = Field(default=None, description="With `when`: the number to record as measured.")
    limit: float | None = Field(default=None, description="With `when`: the number to record as limit.")
    duplicates: Literal["exact", "url", "near", "semantic"] | None = Field(
        default=None,
        description="Drop all but one of the documents with equal texts (`exact`), with one URL in its normal form "
        "(`url`), with similar texts (`near`) or with texts that mean the same (`semantic`).",
    )
    min_similarity: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Smallest similarity that counts: with `duplicates: near` of Jaccard's kind, with "
        "`duplicates: semantic` the cosine.",
    )
    search: Search | None = Field(
        default=None, description="With `duplicates: near`: how they are looked for, unless the run says otherwise."
    )
    keep: Keep | None = Field(
        default=None,
        description="With `duplicates`: which one stays (default: the longest; with `duplicates: url` the newest).",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        forms = {name: getattr(self, name) is not None for name in ("measure", "when", "duplicates")}
        if sum(forms.values()) != 1:
            given = " and ".join(f"`{name}`" for name, there in forms.items() if there) or "none of them"
            raise ValueError(f"rule `{self.rule}` needs one of `measure`, `when` and `duplicates`; it has {given}")
        form = next(name for name, there in forms.items() if there)
        if foreign := [key for key in _MISPLACED[form] if getattr(self, key) is not None]:
            raise ValueError(f"`{foreign[0]}` does not go with `{form}` in rule `{self.rule}`")
        if form == "measure":
            self._check_limits()
        if self.min_similarity is not None and self.duplicates in ("exact", "url"):
            raise ValueError(f"`min_similarity` does not go with `duplicates: {self.duplicates}` in rule `{self.rule}`")
        if self.search is not None and self.duplicates != "near":
            raise ValueError(f"`search` goes with `duplicates: near` only; rule `{self.rule}` is another")
        return self

    @property
    def percentiles(self) -> tuple[float, ...]:
        """Those that must be fitted before the rule can be judged."""
        return tuple(percent for percent in (self.min_percentile, self.max_percentile) if percent is not None)

    def _check_limits(self) -> None:
        if self.percentiles:
            if self.min is not None or self.max is not None or self.limits is not None:
                raise ValueError(f"rule `{self.rule}` has fixed limits beside percentiles; write two rules")
            if list(self.percentiles) != sorted(self.percentiles):
                raise ValueError(f"`min_percentile` is above `max_percentile` in rule `{self.rule}`")
            return
        if (self.per is None) != (self.limits is None):
            raise ValueError(f"rule `{self.rule}` has one of `per` and `limits`; they go together")
        if self.limits is not None:
            if self.min is not None or self.max is not None:
                raise ValueError(f"rule `{self.rule}` has `min` or `max` beside `limits`; put them under `other` there")
            if not self.limits:
                raise ValueError(f"rule `{self.rule}` has empty `limits`: everything would pass")
        else:
            _check_range(self.min, self.max)


_RANGE = ("min", "max", "min_percentile", "max_percentile", "per", "limits", "if_missing")
_MISPLACED = {
    "measure": ("measured", "limit", "keep", "min_similarity", "search"),
    "when": (*_RANGE, "keep", "min_similarity", "search"),
    "duplicates": ("only", *_RANGE, "measured", "limit"),
}


class Gate(Written):
    """Which rows are worth a costly stage."""

    rules: tuple[RuleName, ...] = Field(
        min_length=1, description="Rules that a document must pass before quality scoring and other costly stages."
    )


class Policy(WrittenFile):
    """A policy file."""

    rules: tuple[Rule, ...] = Field(min_length=1, description="The rules, in the order in which they decide.")
    gate: Gate | None = Field(default=None, description="What costly stages skip.")
    ensemble: dict[RuleName, Sql] | None = Field(
        default=None,
        min_length=1,
        description="Names for what several scorers say together, as `ensemble.NAME`: `maximum` or `mean` of all "
        "scorers' buckets, or an SQL expression. `bucket` is their maximum where nothing is said.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [rule.rule for rule in self.rules]
        for i, rule in enumerate(self.rules):
            if rule.rule in names[:i]:
                raise fault(f"two rules are called `{rule.rule}`; the ledger tells them apart by name", "rules", i)
            if rule.duplicates and self.duplicate_rule(rule.duplicates) is not rule:
                raise fault(f"a second rule drops {rule.duplicates} duplicates; keep one of them", "rules", i)
        for i, gated in enumerate(self.gate.rules if self.gate else ()):
            if gated not in names:
                listed = ", ".join(names)
                raise fault(
                    f"the gate names `{gated}`, which is no rule here; the rules are: {listed}", "gate", "rules", i
                )
            if self.rules[names.index(gated)].percentiles:
                raise fault(
                    f"the gate names `{gated}`, but percentiles are known only when all parts are measured",
                    "gate", "rules", i,
                )  # fmt: skip
            if self.rules[names.index(gated)].duplicates:
                raise fault(
                    f"the gate names `{gated}`, but duplicates are known only after the gate", "gate", "rules", i
                )
        return self

    def gate_identity(self) -> str:
        """32 hex digits of what decides who is admitted: the gate's rules, not the rest of the policy."""
        gated = self.gate.rules if self.gate else ()
        return fingerprint([rule.model_dump(mode="json") for rule in self.rules if rule.rule in gated])

    def duplicate_rule(self, kind: str) -> Rule | None:
        """The rule for `exact`, `url`, `near` or `semantic` duplicates, if there is one."""
        return next((rule for rule in self.rules if rule.duplicates == kind), None)


def load_policy(reference: str, *, beside: Path | None = None) -> Policy:
    """A policy by its path (from the folder `beside`) or by the name of a shipped one. Raises RecipeError."""
    return load_yaml(find_file(reference, SHIPPED, beside=beside), Policy)
