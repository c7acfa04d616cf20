"""Binding: a policy's expressions checked, typed and tied to the columns of a catalogue, before any row is read.

All faults are said at once, each with its line. A single-precision measurement is compared in single precision, so
that 0.1 does not exceed a limit of 0.1 by its rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from mixtures.ensemble import BUCKET, STAGE, with_ensemble
from mixtures.names import Definition, Names, names_of
from mixtures.policy import Limits, Policy, Rule
from mixtures.sql import Engine, open_engine, parse_expression, reason
from mixtures.wording import shorten
from storage.errors import SqlError

_NUMBERS = tuple(
    "TINYINT SMALLINT INTEGER BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT UHUGEINT FLOAT DOUBLE DECIMAL "
    "BOOLEAN".split()
)
_WHOLE = tuple(kind for kind in _NUMBERS if kind not in ("FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN"))
TABLE = "_documents"
EVIDENCE_LIMIT = 300


@dataclass(frozen=True, kw_only=True)
class BoundRule:
    """A rule as SQL over the catalogue: what is measured, the limits, to whom it applies, and what to show."""

    name: str
    position: int
    at: str
    value: str
    low: str
    high: str
    applies: str
    evidence: str
    condition: bool
    single: bool
    fail_missing: bool

    @property
    def counts_missing(self) -> bool:
        return not self.condition

    def failed_sql(self, i: int) -> str:
        """Over the columns `_v{i}` (value), `_l{i}`, `_h{i}` (limits), `_a{i}` (applies; of `when` the condition)."""
        if self.condition:
            return f"_a{i}"
        low, high = self._compared(i)
        missing = f" OR _v{i} IS NULL" if self.fail_missing else ""
        return f"_a{i} AND (coalesce(_v{i} < {low}, false) OR coalesce(_v{i} > {high}, false){missing})"

    def limit_sql(self, i: int) -> str:
        """The limit that was passed, as it was written."""
        return f"CASE WHEN _v{i} < {self._compared(i)[0]} OR _h{i} IS NULL THEN _l{i} ELSE _h{i} END"

    def measured_sql(self, i: int) -> str:
        """The value as double; of a single-precision one the shortest decimal, 0.1 rather than 0.10000000149."""
        return f"CAST(CAST(_v{i} AS VARCHAR) AS DOUBLE)" if self.single else f"CAST(_v{i} AS DOUBLE)"

    def _compared(self, i: int) -> tuple[str, str]:
        return (f"CAST(_l{i} AS FLOAT)", f"CAST(_h{i} AS FLOAT)") if self.single else (f"_l{i}", f"_h{i}")


@dataclass(frozen=True)
class RankKey:
    """One thing to compare duplicates by: a bound expression and its direction."""

    sql: str
    descending: bool


@dataclass(frozen=True)
class BoundPolicy:
    """A policy tied to a catalogue's columns; `bindings` lists the names it reads and the columns they stand for."""

    identity: str
    rules: tuple[BoundRule, ...]
    duplicates: tuple[tuple[str, int, str, float | None], ...]
    ranks: dict[str, tuple[RankKey, ...]]
    bindings: dict[str, str]

    @property
    def columns(self) -> list[str]:
        """The catalogue's columns that the policy reads."""
        return sorted({column.partition(".")[0] for column in self.bindings.values()})

    def duplicate_table(self) -> pa.Table:
        """kind, position, rule, min_similarity of the rules on duplicates."""
        schema = pa.schema(
            [("kind", pa.string()), ("position", pa.int32()), ("rule", pa.string()), ("min_similarity", pa.float64())]
        )
        return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in self.duplicates], schema)


@dataclass(frozen=True, kw_only=True)
class PercentileRule:
    """A rule whose limits are percentiles, as SQL: what is fitted, in which groups, of which documents."""

    name: str
    value: str
    group: str
    applies: str
    low: float | None
    high: float | None
    asked: tuple[str | None, ...]
    """The expressions as the policy writes them: with the stages' identities, what the fitted limits belong to."""
    names: tuple[str, ...]


FittedLimits = Mapping[str, Mapping[str, Limits]]
"""Of each percentile rule by name: limits by the value of `per` (the empty string without one)."""


def bind_policy(policy: Policy, schema: pa.Schema, fitted: FittedLimits | None = None) -> BoundPolicy:
    """Tie a whole policy to a catalogue; percentile rules have the limits that were `fitted`, else none.

    Raises SqlError with all faults: unknown names, wrong types, refused SQL.
    """
    names = policy_names(policy, schema)
    if faults := _faults_of_ensemble(policy, schema, names):
        raise gather_faults(faults, policy.file)
    return _bind(policy, schema, policy.rules, fitted or {}, names)


def bind_percentiles(policy: Policy, schema: pa.Schema) -> tuple[PercentileRule, ...]:
    """The rules of a policy that must be fitted first. Raises SqlError."""
    with open_engine(**{TABLE: schema.empty_table()}) as engine:
        names = policy_names(policy, schema)
        return tuple(
            _bind_percentile(Binder(engine, names), rule, _locator(policy, position))
            for position, rule in enumerate(policy.rules)
            if rule.percentiles and not _is_left_out(rule, names)
        )


def _bind_percentile(binder: Binder, rule: Rule, at: Locator) -> PercentileRule:
    assert rule.measure is not None
    return PercentileRule(
        name=rule.rule,
        value=f"CAST({binder.number(rule.measure, at('measure'))[0]} AS DOUBLE)",
        group=_group_sql(binder, rule, at),
        applies=binder.condition(rule.only, at("only"))[0] if rule.only else "true",
        low=rule.min_percentile,
        high=rule.max_percentile,
        asked=(rule.measure, rule.only, rule.per, *_definitions(binder, rule)),
        names=tuple(sorted(binder.bindings)),
    )


def _definitions(binder: Binder, rule: Rule) -> tuple[str, ...]:
    """What the defined names of a rule stand for."""
    texts = [text for text in (rule.measure, rule.only, rule.per) if text]
    named = [name for text in texts for name in parse_expression(text).names if name in binder.names.defined]
    return tuple(binder.names.defined[name].text for name in sorted(set(named)))


def _group_sql(binder: Binder, rule: Rule, at: Locator) -> str:
    return f"coalesce(CAST({binder.bind(rule.per, at('per'))[0]} AS VARCHAR), '')" if rule.per else "''"


def bind_gate(policy: Policy, schema: pa.Schema) -> BoundPolicy:
    """Tie only the gate's rules, which need no costly measurement; without a gate every document passes."""
    gated = policy.gate.rules if policy.gate else ()
    return _bind(policy, schema, tuple(rule for rule in policy.rules if rule.rule in gated), {}, names_of(schema))


def _bind(
    policy: Policy, schema: pa.Schema, wanted: tuple[Rule, ...], fitted: FittedLimits, names: Names
) -> BoundPolicy:
    rules: list[BoundRule] = []
    ranks: dict[str, tuple[RankKey, ...]] = {}
    faults: list[SqlError] = []
    with open_engine(**{TABLE: schema.empty_table()}) as engine:
        binder = Binder(engine, names)
        for position, rule in enumerate(policy.rules):
            if rule not in wanted or _is_left_out(rule, binder.names):
                continue
            at = _locator(policy, position)
            try:
                if rule.duplicates:
                    ranks[rule.duplicates] = _rank_keys(binder, rule, at)
                else:
                    rules.append(_bind_rule(binder, rule, position, at, fitted.get(rule.rule, {})))
            except SqlError as error:
                faults.append(error)
    if faults:
        raise gather_faults(faults, policy.file)
    kinds = [(rule.duplicates, i, rule.rule, rule.min_similarity) for i, rule in enumerate(policy.rules)]
    return BoundPolicy(
        policy.identity(),
        tuple(rules),
        tuple((kind, i, name, similarity) for kind, i, name, similarity in kinds if kind in ranks and kind),
        ranks,
        dict(sorted(binder.bindings.items())),
    )


def policy_names(policy: Policy, schema: pa.Schema) -> Names:
    """What the rules of a policy may name: the catalogue's names, and those of its ensemble."""
    places = {name: policy.at("ensemble", name) for name in policy.ensemble or {}}
    return with_ensemble(names_of(schema), schema, policy.ensemble, places)


def _faults_of_ensemble(policy: Policy, schema: pa.Schema, names: Names) -> list[SqlError]:
    """What is wrong with the ensemble's expressions, whether a rule uses them or not."""
    faults = []
    with open_engine(**{TABLE: schema.empty_table()}) as engine:
        for name, definition in names.defined.items():
            try:
                _check_definition(Binder(engine, names), name, definition, policy.file)
            except SqlError as error:
                faults.append(error)
    return faults


def _check_definition(binder: Binder, name: str, definition: Definition, file: str) -> None:
    """Raises SqlError for an expression that does not fit the columns, and for a bucket that is no whole number."""
    at = definition.at or file
    _, kind, _ = binder.bind(name, at)
    if name == f"{STAGE}.{BUCKET}" and not kind.startswith(_WHOLE):
        raise SqlError(
            f"`{name}` gives {kind}, not a whole number",
            at=at,
            hint=f"round it: `CAST(round({shorten(definition.text, 60)}) AS INTEGER)`, or give it another name",
        )


def _is_left_out(rule: Rule, names: Names) -> bool:
    """Whether the rule is optional and names a stage that has measured nothing here."""
    if not rule.optional:
        return False
    texts = (rule.only, rule.measure, rule.per, rule.when, rule.measured)
    named = {name for text in texts if text for name in parse_expression(text).names if "." in name}
    return any(name.partition(".")[0] not in names.stages for name in named)


def gather_faults(faults: list[SqlError], file: str) -> SqlError:
    """One error that says all of several."""
    if len(faults) == 1:
        return faults[0]
    lines = [f"{fault.at}: {fault.what}" + (f" ({fault.hint})" if fault.hint else "") for fault in faults]
    return SqlError(f"{len(faults)} expressions are wrong\n  " + "\n  ".join(lines), at=file)


class Binder:
    """Checks expressions against the columns of one empty table, and remembers which names were used."""

    def __init__(self, engine: Engine, names: Names) -> None:
        self._engine = engine
        self.names = names
        self.bindings: dict[str, str] = {}

    def bind(self, text: str, at: str) -> tuple[str, str, tuple[str, ...]]:
        """The SQL to run, its DuckDB type, and the names it reads. Raises SqlError."""
        expression = parse_expression(text, at=at)
        sql = expression.bind(self.names)
        self.bindings |= expression.columns(self.names)
        try:
            return sql, self._engine.type_of(sql, TABLE), expression.names
        except duckdb.Error as error:
            raise SqlError(f"`{shorten(text)}` does not fit its columns: {reason(error)}", at=at) from error

    def condition(self, text: str, at: str) -> tuple[str, tuple[str, ...]]:
        """A bound condition and the names it reads. Raises SqlError when it is not true or false."""
        sql, kind, names = self.bind(text, at)
        if kind != "BOOLEAN":
            raise SqlError(
                f"`{shorten(text)}` gives {kind}, not true or false", at=at, hint="compare it: `rules.num_words >= 50`"
            )
        return sql, names

    def number(self, text: str, at: str) -> tuple[str, str]:
        """A bound number and its type. Raises SqlError when it is something else."""
        sql, kind, _ = self.bind(text, at)
        if not kind.startswith(_NUMBERS):
            raise SqlError(
                f"`{shorten(text)}` gives {kind}, not a number",
                at=at,
                hint="use `when:` with a condition on it instead",
            )
        return sql, kind

    def name_sql(self, name: str) -> str:
        return parse_expression(name).bind(self.names)


Locator = Callable[[str], str]


def _locator(policy: Policy, position: int) -> Locator:
    return lambda key: policy.at("rules", position, key)


def _bind_rule(binder: Binder, rule: Rule, position: int, at: Locator, fitted: Mapping[str, Limits]) -> BoundRule:
    applies = binder.condition(rule.only, at("only"))[0] if rule.only else "true"
    if rule.when is not None:
        condition, names = binder.condition(rule.when, at("when"))
        value = binder.number(rule.measured, at("measured"))[0] if rule.measured else "CAST(NULL AS DOUBLE)"
        return BoundRule(
            name=rule.rule,
            position=position,
            at=at("when"),
            value=value,
            low=_constant(rule.limit),
            high=_constant(None),
            applies=f"({applies} AND {condition})",
            evidence=_evidence(binder, names),
            condition=True,
            single=False,
            fail_missing=False,
        )
    assert rule.measure is not None
    value, kind = binder.number(rule.measure, at("measure"))
    low, high, evidence = _fitted(binder, rule, at, fitted) if rule.percentiles else _limits(binder, rule, at)
    return BoundRule(
        name=rule.rule,
        position=position,
        at=at("measure"),
        value=value,
        low=low,
        high=high,
        applies=applies,
        evidence=evidence,
        condition=False,
        single=kind == "FLOAT",
        fail_missing=rule.if_missing == "fail",
    )


def _limits(binder: Binder, rule: Rule, at: Locator) -> tuple[str, str, str]:
    if rule.limits is None or rule.per is None:
        return _constant(rule.min), _constant(rule.max), "CAST(NULL AS VARCHAR)"
    per, _, names = binder.bind(rule.per, at("per"))
    cases = {value: limits for value, limits in rule.limits.items() if value != "other"}
    low, high = _choose(f"CAST({per} AS VARCHAR)", cases, rule.limits.get("other"))
    return low, high, _evidence(binder, names)


def _fitted(binder: Binder, rule: Rule, at: Locator, fitted: Mapping[str, Limits]) -> tuple[str, str, str]:
    names = binder.bind(rule.per, at("per"))[2] if rule.per else ()
    return *_choose(_group_sql(binder, rule, at), fitted, None), _evidence(binder, names)


def _choose(group: str, cases: Mapping[str, Limits], other: Limits | None) -> tuple[str, str]:
    """The lower and the upper limit by the value of `group`."""

    def side(of: Callable[[Limits], float | None]) -> str:
        whens = " ".join(f"WHEN {quote(value)} THEN {_constant(of(limits))}" for value, limits in cases.items())
        rest = _constant(of(other) if other else None)
        return f"CASE {group} {whens} ELSE {rest} END" if whens else rest

    return side(lambda limits: limits.min), side(lambda limits: limits.max)


def _constant(number: float | None) -> str:
    return "CAST(NULL AS DOUBLE)" if number is None else f"CAST('{number!r}' AS DOUBLE)"


def _evidence(binder: Binder, names: tuple[str, ...]) -> str:
    """The values that a condition looked at: `language.label=fr, rules.num_words=12`."""
    shown = ", ".join(f"{quote(name + '=')} || CAST({binder.name_sql(name)} AS VARCHAR)" for name in names)
    return f"left(concat_ws(', ', {shown}), {EVIDENCE_LIMIT})" if names else "CAST(NULL AS VARCHAR)"


_KEPT_BY_DEFAULT = {"url": ("collected_at desc", "text_bytes desc")}


def _rank_keys(binder: Binder, rule: Rule, at: Locator) -> tuple[RankKey, ...]:
    keys = []
    for item in rule.keep.best if rule.keep else _KEPT_BY_DEFAULT.get(rule.duplicates or "", ("text_bytes desc",)):
        text, _, direction = item.strip().rpartition(" ")
        if direction.lower() not in ("asc", "desc") or not text:
            raise SqlError(
                f"`{shorten(item)}` does not say which way is best",
                at=at("keep"),
                hint=f"write `{shorten(item, 60)} desc`",
            )
        sql, kind, _ = binder.bind(text, at("keep"))
        if kind in ("FLOAT", "DOUBLE"):
            sql = f"CASE WHEN isnan({sql}) THEN NULL ELSE {sql} END"
        keys.append(RankKey(sql, direction.lower() == "desc"))
    return tuple(keys)


def quote(text: str) -> str:
    """An SQL string."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'"
