"""What a policy may say, and what is refused when it is read or bound to a catalogue."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mixtures.binding import bind_gate, bind_policy
from mixtures.policy import Policy
from storage.errors import RecipeError, SqlError
from tests.mixtures.tiny_run import Doc, Run

PolicyFrom = Callable[[str], Policy]


def rules(text: str) -> str:
    return "format_version: 1\nname: p\nrules:\n" + text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  - {rule: a, measure: x.y}", "without `min` or `max`"),
        ("  - {rule: a}", "none of them"),
        ("  - {rule: a, measure: x.y, min: 1, when: 'true'}", "`measure` and `when`"),
        ("  - {rule: a, measure: x.y, min: 3, max: 2}", "nothing could pass"),
        ("  - {rule: a, when: 'true', min: 3}", "`min` does not go with `when`"),
        ("  - {rule: a, measure: x.y, min: 3, keep: {best: [x.y desc]}}", "`keep` does not go with `measure`"),
        ("  - {rule: a, measure: x.y, per: l, min: 3}", "go together"),
        ("  - {rule: a, measure: x.y, per: l, limits: {}}", "empty `limits`"),
        ("  - {rule: a, measure: x.y, min: 1, per: l, limits: {en: {min: 1}}}", "beside `limits`"),
        ("  - {rule: a, duplicates: fuzzy}", "'exact', 'url', 'near' or 'semantic'"),
        ("  - {rule: a, duplicates: exact, min_similarity: 0.5}", "`min_similarity` does not go"),
        ("  - {rule: a, duplicates: url, min_similarity: 0.5}", "with `duplicates: url`"),
        ("  - {rule: a, duplicates: near, min_similarity: 1.5}", "less than or equal to 1"),
        ("  - {rule: Too few, measure: x.y, min: 1}", "`rule`"),
        ("  []", "at least 1 item"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(policy_from: PolicyFrom, text: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        policy_from(rules(text))
    assert words in str(caught.value)
    assert f"policy.yaml:{3 if text.endswith('[]') else 4}" in str(caught.value)


def test_rules_are_told_apart_by_name_and_the_gate_names_them(policy_from: PolicyFrom) -> None:
    one = "  - {rule: a, measure: text_bytes, min: 1}\n"
    with pytest.raises(RecipeError, match="two rules are called `a`") as caught:
        policy_from(rules(one + one))
    assert (caught.value.at or "").endswith(":5")
    with pytest.raises(RecipeError, match="the rules are: a") as caught:
        policy_from(rules(one + "gate: {rules: [b]}"))
    assert (caught.value.at or "").endswith(":5")
    with pytest.raises(RecipeError, match="only after the gate"):
        policy_from(rules(one + "  - {rule: d, duplicates: exact}\ngate: {rules: [d]}"))


def test_all_wrong_expressions_are_said_at_once(make_run: Callable[..., Run], policy_from: PolicyFrom) -> None:
    policy = policy_from(
        rules(
            """\
  - {rule: a, measure: rules.num_word, min: 1}
  - {rule: b, when: rules.num_words + 1}
  - {rule: c, measure: language.label, min: 1}
  - {rule: d, when: "language.label > 1 AND rules.num_words < 'x'"}
  - {rule: e, measure: fluency.loss, max: 3}
  - {rule: f, duplicates: near, keep: {best: [quality.score]}}
"""
        )
    )
    with pytest.raises(SqlError) as caught:
        bind_policy(policy, make_run([Doc("a")]).catalogue.read(make_run([Doc("a")]).catalogue.parts[0]).schema)
    text = str(caught.value)
    assert "6 expressions are wrong" in text
    for line, words in [
        (4, "did you mean `rules.num_words`"),
        (5, "not true or false"),
        (6, "not a number"),
        (7, "does not fit its columns"),
        (8, "run the stage `fluency`"),
        (9, "write `quality.score desc`"),
    ]:
        assert any(f"policy.yaml:{line}" in found and words in found for found in text.splitlines()), (line, text)


def test_the_gate_needs_no_costly_measurement(make_run: Callable[..., Run], policy_from: PolicyFrom) -> None:
    policy = policy_from(
        rules(
            """\
  - {rule: short, measure: rules.num_words, min: 3}
  - {rule: poor, measure: quality.bucket, min: 3}
gate: {rules: [short]}
"""
        )
    )
    run = make_run([Doc("a")])
    measured = run.catalogue.read(run.catalogue.parts[0]).drop_columns(["quality"]).schema
    assert [rule.name for rule in bind_gate(policy, measured).rules] == ["short"]
    with pytest.raises(SqlError, match="no stage `quality`"):
        bind_policy(policy, measured)


def test_a_bound_policy_lists_the_names_that_it_reads(make_run: Callable[..., Run], policy_from: PolicyFrom) -> None:
    policy = policy_from(rules("  - {rule: a, when: \"url.host = 'x' AND url IS NULL\"}\n"))
    run = make_run([Doc("a")])
    bound = bind_policy(policy, run.catalogue.read(run.catalogue.parts[0]).schema)
    assert bound.bindings == {"url": "url", "url.host": "url_facts.host"}
