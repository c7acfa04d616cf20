"""Ensembles: several scorers' buckets together, as names of policies and recipes, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixtures.binding import bind_gate, bind_policy
from mixtures.conditions import assign_sources, bind_sources
from mixtures.ensemble import evaluate_ensemble
from mixtures.judge import judge_duplicates, judge_rules
from mixtures.policy import Policy
from mixtures.recipe import Recipe
from storage.errors import SqlError
from storage.schema import IDENTIFIER

PolicyFrom = Callable[[str], Policy]
RecipeFrom = Callable[..., Recipe]
BUCKETED = pa.struct([("value", pa.float32()), ("bucket", pa.int32())])
SCORES = pa.struct(
    [("edu", BUCKETED), ("dclm", BUCKETED), ("domain", pa.struct([("label", pa.string()), ("score", pa.float32())]))]
)
HEAD = "format_version: 1\nname: test\n"
RULES = "rules:\n  - {rule: low, measure: ensemble.bucket, min: 10}\n"


def scored(edu: list[int | None], dclm: list[int | None]) -> pa.Table:
    rows = [
        {
            "edu": {"value": None if one is None else one / 4, "bucket": one},
            "dclm": {"value": None if two is None else two / 20, "bucket": two},
            "domain": {"label": "Science" if (one or 0) > 9 else "Sports", "score": 0.5},
        }
        for one, two in zip(edu, dclm, strict=True)
    ]
    return pa.table(
        {
            "doc_id": pa.array([i.to_bytes(16, "big") for i in range(len(edu))], IDENTIFIER),
            "source": ["web"] * len(edu),
            "scores": pa.array(rows, SCORES),
        }
    )


TABLE = scored([3, 12, None, None, 19], [11, None, 4, None, 0])


def failing(policy: Policy, table: pa.Table = TABLE) -> list[int]:
    return [row["row"] for row in judge_rules(table, bind_policy(policy, table.schema)).rows.to_pylist()]


def test_without_a_word_it_is_the_maximum_over_the_scorers_that_gave_a_bucket(policy_from: PolicyFrom) -> None:
    assert evaluate_ensemble(TABLE, None).to_pydict() == {"bucket": [11, 12, 4, None, 19]}
    assert failing(policy_from(HEAD + RULES)) == [2]
    assert evaluate_ensemble(TABLE.drop_columns(["scores"]), None).num_columns == 0


def test_mean_and_any_expression_under_names_of_their_own(policy_from: PolicyFrom) -> None:
    ensemble = "ensemble:\n  bucket: mean\n  both: least(scores.edu.bucket, scores.dclm.bucket) * 100\n"
    policy = policy_from(HEAD + ensemble + RULES + "  - {rule: apart, measure: ensemble.both, max: 299}\n")
    found = evaluate_ensemble(TABLE, policy.ensemble).to_pydict()
    assert found == {"bucket": [7, 12, 4, None, 10], "both": [300, 1200, 400, None, 0]}
    assert failing(policy) == [0, 0, 1, 2, 2]


@given(st.lists(st.tuples(*[st.none() | st.integers(0, 19)] * 2), min_size=1, max_size=30))
def test_maximum_and_mean_agree_with_python(rows: list[tuple[int | None, int | None]]) -> None:
    table = scored([one for one, _ in rows], [two for _, two in rows])
    found = evaluate_ensemble(table, {"bucket": "maximum", "mean": "mean"}).to_pylist()
    for row, buckets in zip(found, rows, strict=True):
        there = [bucket for bucket in buckets if bucket is not None]
        assert row["bucket"] == max(there, default=None)
        assert row["mean"] == (int(sum(there) / len(there) + 0.5) if there else None)


def test_a_recipe_names_what_its_policy_defines(recipe_from: RecipeFrom) -> None:
    recipe = recipe_from("  - {name: best, where: ensemble.bucket >= 12}\n  - {name: rest, where: 'true'}")
    assert bind_sources(recipe, TABLE.schema).bindings == {
        "scores.dclm.bucket": "scores.dclm.bucket",
        "scores.edu.bucket": "scores.edu.bucket",
    }
    verdicts = pa.table({"verdict": ["kept"] * 5, "cluster_size": pa.array([1] * 5, pa.int32())})
    assert assign_sources(recipe, TABLE, verdicts).tolist() == [1, 0, 1, 1, 0]
    least = bind_sources(recipe, TABLE.schema, {"bucket": "least(scores.edu.bucket, scores.dclm.bucket)"})
    assert "least" in least.sql


def test_evidence_and_limits_show_the_ensemble(policy_from: PolicyFrom) -> None:
    policy = policy_from(HEAD + "rules:\n  - {rule: low, when: ensemble.bucket < 10}\n")
    decided = judge_duplicates(
        TABLE,
        bind_policy(policy, TABLE.schema),
        judge_rules(TABLE, bind_policy(policy, TABLE.schema)),
    )
    assert [row["evidence"] for row in decided.reasons.to_pylist()] == ["ensemble.bucket=4"]


def test_another_ensemble_is_another_policy_and_none_changes_none(policy_from: PolicyFrom) -> None:
    plain, mean = policy_from(HEAD + RULES), policy_from(HEAD + "ensemble: {bucket: mean}\n" + RULES)
    assert plain.identity() != mean.identity() and plain.gate_identity() == mean.gate_identity()
    gated = policy_from(HEAD + "gate: {rules: [low]}\n" + RULES)
    assert gated.gate_identity() != plain.gate_identity()


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("scores.eduu.bucket", "did you mean `scores.edu.bucket`"),
        ("quality.bucket", "no stage `quality`"),
        ("(SELECT 1)", "a subquery is not allowed"),
        ("read_csv('/etc/passwd')", "not allowed"),
        ("scores.edu.value * 4", "gives FLOAT, not a whole number"),
        ("scores.domain.label", "gives VARCHAR, not a whole number"),
        ("ensemble.bucket", "no stage `ensemble`"),
    ],
)
def test_a_wrong_expression_is_refused_with_its_line(policy_from: PolicyFrom, expression: str, said: str) -> None:
    policy = policy_from(f'{HEAD}ensemble:\n  bucket: "{expression}"\nrules:\n  - {{rule: a, when: text_bytes > 1}}\n')
    table = TABLE.append_column("text_bytes", pa.array([1] * 5))
    with pytest.raises(SqlError) as caught:
        bind_policy(policy, table.schema)
    assert said in str(caught.value) and caught.value.at == f"{policy.file}:4"


def test_without_scorers_and_in_a_gate_there_is_none(policy_from: PolicyFrom) -> None:
    with pytest.raises(SqlError, match="--score NAME=MODEL"):
        failing(policy_from(HEAD + RULES), TABLE.drop_columns(["scores"]))
    gated = policy_from(HEAD + "gate: {rules: [low]}\n" + RULES)
    with pytest.raises(SqlError, match="measure after the gate"):
        bind_gate(gated, TABLE.drop_columns(["scores"]).schema)
    optional = HEAD + RULES.replace("10}", "10, optional: true}") + "  - {rule: long, when: source = 'x'}\n"
    assert failing(policy_from(optional), TABLE.drop_columns(["scores"])) == []
