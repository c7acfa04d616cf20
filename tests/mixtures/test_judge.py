"""Judging: in = kept + dropped, each drop decided once, every failing rule recorded, the same bytes each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixtures.binding import bind_gate, bind_policy
from mixtures.decisions import commit_decisions, publish_decisions
from mixtures.judge import DUPLICATES, Decisions, admit, judge_duplicates, judge_rules
from mixtures.policy import Policy
from mixtures.ranking import candidate_keys, rank_candidates
from mixtures.yaml_files import load_yaml
from storage.errors import DatasetError, SqlError
from storage.manifests import open_dataset
from storage.schema import IDENTIFIER
from tests.mixtures.tiny_run import Doc, Run, doc_id, facts

MakeRun = Callable[..., Run]
PolicyFrom = Callable[[str], Policy]

POLICY = """
format_version: 1
name: strict
gate: {rules: [unclear, short]}
rules:
  - {rule: unclear, measure: language.score, min: 0.5}
  - rule: short
    measure: rules.num_words
    per: language.label
    limits: {zh: {min: 20, max: 30}, other: {min: 5}}
  - {rule: copied, duplicates: exact, keep: {best: [quality.score desc]}}
  - {rule: elsewhere, when: "url.host <> 'example.org' AND source = 'web'", measured: rules.num_words, limit: 3}
  - {rule: alike, duplicates: near, min_similarity: 0.8, keep: {best: [text_bytes desc, quality.score desc]}}
  - {rule: poor, measure: quality.bucket, min: 4, only: "source = 'web'", if_missing: fail}
"""


def judge(run: Run, policy: Policy, duplicates: pa.Table | None = None) -> Decisions:
    """All of a run as if it were one part."""
    table = pa.concat_tables([run.catalogue.read(part) for part in run.catalogue.parts])
    bound = bind_policy(policy, table.schema)
    return judge_duplicates(table, bound, judge_rules(table, bound), duplicates=duplicates, clusters=run.clusters())


def duplicate_rows(*rows: tuple[str, str, float | None, str]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    arrays = [pa.array([doc_id(name) for name in column], IDENTIFIER) for column in columns[:2]]
    return pa.table([*arrays, pa.array(columns[2], pa.float64()), pa.array(columns[3], pa.string())], schema=DUPLICATES)


def verdicts(decisions: Decisions) -> dict[str, str | None]:
    rows = facts(decisions.verdicts.to_pylist())
    return {row["doc_id"]: row["rule"] if row["verdict"] == "dropped" else None for row in rows}


def reasons(decisions: Decisions) -> list[tuple[Any, ...]]:
    rows = facts(decisions.reasons.to_pylist())
    return [tuple(row[k] for k in ("doc_id", "rule", "measured", "limit", "decided", "evidence")) for row in rows]


def test_each_failing_rule_is_recorded_and_the_first_decides(make_run: MakeRun, policy_from: PolicyFrom) -> None:
    run = make_run(
        [
            Doc("good"),
            Doc("murky", score=0.4375, words=2, bucket=1),
            Doc("brief", words=4),
            Doc("han", label="zh", words=19),
            Doc("long-han", label="zh", words=31),
            Doc("away", host="evil.org", words=7),
            Doc("wiki-away", host="evil.org", source="wiki", bucket=1),
            Doc("unscored", bucket=None),
            Doc("unmeasured", score=None, words=None),
        ]
    )
    decisions = judge(run, policy_from(POLICY))
    assert verdicts(decisions) == {
        "good": None,
        "murky": "unclear",
        "brief": "short",
        "han": "short",
        "long-han": "short",
        "away": "elsewhere",
        "wiki-away": None,
        "unscored": "poor",
        "unmeasured": None,
    }
    assert reasons(decisions) == [
        ("murky", "unclear", 0.4375, 0.5, True, None),
        ("murky", "short", 2, 5, False, "language.label=en"),
        ("murky", "poor", 1, 4, False, None),
        ("brief", "short", 4, 5, True, "language.label=en"),
        ("han", "short", 19, 20, True, "language.label=zh"),
        ("long-han", "short", 31, 30, True, "language.label=zh"),
        ("away", "elsewhere", 7, 3, True, "url.host=evil.org, source=web"),
        ("unscored", "poor", None, 4, True, None),
    ]
    assert decisions.facts == {
        "kept": 3,
        "dropped": 6,
        "decided": {"elsewhere": 1, "poor": 1, "short": 3, "unclear": 1},
        "failed": {"elsewhere": 1, "poor": 2, "short": 4, "unclear": 1},
        "missing": {"unclear": 1, "short": 1, "poor": 1},
        "sources": {
            "wiki": {"kept": 1, "decided": {}},
            "web": {"kept": 2, "decided": {"elsewhere": 1, "poor": 1, "short": 3, "unclear": 1}},
        },
    }


def test_limits_are_included_and_single_precision_does_not_move_them(
    make_run: MakeRun, policy_from: PolicyFrom
) -> None:
    policy = policy_from(
        "format_version: 1\nname: p\nrules:\n  - {rule: high, measure: rules.ratio, max: 0.1}\n"
        "  - {rule: low, measure: language.score, min: 0.65}\n"
    )
    run = make_run([Doc("at", ratio=0.1, score=0.65), Doc("over", ratio=0.1001, score=0.6499)])
    decisions = judge(run, policy)
    assert verdicts(decisions) == {"at": None, "over": "high"}
    assert reasons(decisions) == [
        ("over", "high", 0.1001, 0.1, True, None),
        ("over", "low", 0.6499, 0.65, False, None),
    ]


def test_a_measurement_that_is_no_number_fails_an_upper_limit(make_run: MakeRun, policy_from: PolicyFrom) -> None:
    policy = policy_from("format_version: 1\nname: p\nrules:\n  - {rule: high, measure: rules.ratio, max: 0.1}\n")
    assert verdicts(judge(make_run([Doc("nan", ratio=float("nan"))]), policy)) == {"nan": "high"}


def test_duplicates_take_their_place_in_the_order_of_rules(make_run: MakeRun, policy_from: PolicyFrom) -> None:
    run = make_run(
        [
            Doc("kept", cluster="kept", cluster_size=3),
            Doc("copy", host="evil.org", cluster="kept", cluster_size=3),
            Doc("brief", words=1),
            Doc("near", cluster="kept", cluster_size=3),
        ]
    )
    found = duplicate_rows(("copy", "kept", 1.0, "exact"), ("near", "kept", 0.875, "near"))
    decisions = judge(run, policy_from(POLICY), found)
    assert verdicts(decisions) == {"kept": None, "copy": "copied", "brief": "short", "near": "alike"}
    keeper = doc_id("kept").hex()
    assert reasons(decisions) == [
        ("copy", "copied", 1.0, None, True, f"kept={keeper} similarity=1.0000"),
        ("copy", "elsewhere", 10, 3, False, "url.host=evil.org, source=web"),
        ("brief", "short", 1, 5, True, "language.label=en"),
        ("near", "alike", 0.875, 0.8, True, f"kept={keeper} similarity=0.8750"),
    ]
    clusters = [(row["cluster_id"], row["cluster_size"]) for row in facts(decisions.verdicts.to_pylist())]
    assert clusters == [("kept", 3), ("kept", 3), ("brief", 1), ("kept", 3)]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("copy", "copy", 1.0, "exact")], "1 duplicates of themselves"),
        ([("copy", "kept", 0.5, "near")], "1 less similar"),
        ([("copy", "kept", 1.0, "exact"), ("copy", "kept", 1.0, "exact")], "1 named twice"),
        ([("copy", "kept", 1.0, "semantic")], "1 of a kind that the policy has no rule for"),
    ],
)
def test_duplicates_that_contradict_the_policy_are_refused(
    make_run: MakeRun, policy_from: PolicyFrom, rows: list[tuple[str, str, float, str]], words: str
) -> None:
    with pytest.raises(DatasetError, match=words):
        judge(make_run([Doc("copy"), Doc("kept")]), policy_from(POLICY), duplicate_rows(*rows))


def test_candidates_are_ranked_as_keep_says_and_ties_go_to_the_smallest_id(
    make_run: MakeRun, policy_from: PolicyFrom
) -> None:
    run = make_run(
        [
            Doc("c", bucket=9, text="xx"),
            Doc("b", bucket=9, text="xx"),
            Doc("a", bucket=None, text="xx"),
            Doc("short", bucket=19, text="x"),
            Doc("failed", words=1, text="xxx"),
            Doc("alone", text="xxxx"),
        ]
    )
    members = pa.array([doc_id(name) for name in ("a", "b", "c", "short", "failed")], IDENTIFIER)
    bound = bind_policy(policy_from(POLICY), run.catalogue.schema(run.catalogue.parts[0]))
    keys = []
    for part in run.catalogue.parts:
        table = run.catalogue.read(part)
        keys.append(candidate_keys(table, bound, judge_rules(table, bound), "near", members))
    ranked = facts(rank_candidates(pa.concat_tables(keys), bound, "near").to_pylist())
    assert [row["doc_id"] for row in ranked] == ["failed", "b", "c", "a", "short"]
    # `a` has no bucket and fails the rule on quality, which is one of those that come before the choice of a keeper.
    assert [row["passed"] for row in ranked] == [False, True, True, False, True]
    assert [row["rank"] for row in ranked] == [0, 1, 2, 3, 4]


def test_documents_of_one_url_are_ranked_by_their_own_rule_and_the_newest_is_best(
    make_run: MakeRun, policy_from: PolicyFrom
) -> None:
    run = make_run([Doc("old", bucket=9), Doc("new", bucket=3), Doc("undated")], part_rows=9)
    table = run.catalogue.read(run.catalogue.parts[0])
    when = table.column_names.index("collected_at")
    kind = table.schema.field(when).type
    table = table.set_column(when, "collected_at", pa.array([1, 2, None], pa.int64()).cast(kind))
    same_page = "  - {rule: same_page, duplicates: url}\n"
    bound = bind_policy(policy_from(POLICY + same_page), table.schema)
    keys = candidate_keys(table, bound, judge_rules(table, bound), "near", table["doc_id"])
    ranked = facts(rank_candidates(keys, bound, "near").to_pylist())
    by_url = sorted(ranked, key=lambda row: row["url_rank"])
    assert [row["doc_id"] for row in by_url] == ["new", "old", "undated"]


def test_a_document_of_a_url_that_is_kept_has_no_similarity(make_run: MakeRun, policy_from: PolicyFrom) -> None:
    policy = policy_from("format_version: 1\nname: p\nrules:\n  - {rule: same_page, duplicates: url}\n")
    decisions = judge(make_run([Doc("kept"), Doc("old")]), policy, duplicate_rows(("old", "kept", None, "url")))
    assert reasons(decisions) == [("old", "same_page", None, None, True, f"kept={doc_id('kept').hex()}")]


def test_a_merit_that_is_no_number_is_the_worst(make_run: MakeRun, policy_from: PolicyFrom) -> None:
    policy = policy_from(
        "format_version: 1\nname: p\nrules:\n  - {rule: d, duplicates: exact, keep: {best: [rules.ratio desc]}}\n"
    )
    run = make_run([Doc("a", ratio=float("nan")), Doc("b", ratio=0.1), Doc("c", ratio=0.2)])
    table = run.catalogue.read(run.catalogue.parts[0])
    bound = bind_policy(policy, table.schema)
    keys = candidate_keys(table, bound, judge_rules(table, bound), "exact", table["doc_id"])
    assert facts(rank_candidates(keys, bound, "exact")["doc_id"].to_pylist()) == ["c", "b", "a"]


def test_the_gate_admits_what_its_own_rules_pass(make_run: MakeRun, policy_from: PolicyFrom) -> None:
    run = make_run([Doc("good"), Doc("murky", score=0.1), Doc("brief", words=1), Doc("poor", bucket=0)], part_rows=9)
    table, policy = run.catalogue.read(run.catalogue.parts[0]), policy_from(POLICY)
    rows = facts(admit(table, bind_gate(policy, table.schema)).to_pylist())
    assert [(row["doc_id"], row["admitted"], row["rule"]) for row in rows] == [
        ("good", True, None),
        ("murky", False, "unclear"),
        ("brief", False, "short"),
        ("poor", True, None),
    ]


def test_a_value_that_an_expression_cannot_take_names_the_rule(make_run: MakeRun, policy_from: PolicyFrom) -> None:
    policy = policy_from(
        "format_version: 1\nname: p\nrules:\n  - {rule: fine, measure: text_bytes, min: 1}\n"
        "  - {rule: cast, when: 'CAST(language.label AS INTEGER) > 1'}\n"
    )
    with pytest.raises(SqlError, match="rule `cast` cannot be computed") as caught:
        judge(make_run([Doc("a")]), policy)
    assert (caught.value.at or "").endswith("policy.yaml:5")


def test_a_part_without_documents_is_judged(make_run: MakeRun, policy_from: PolicyFrom) -> None:
    decisions = judge(make_run([]), policy_from(POLICY))
    assert decisions.verdicts.num_rows == decisions.reasons.num_rows == 0
    assert (decisions.facts["kept"], decisions.facts["dropped"]) == (0, 0)


def test_decisions_are_byte_identical_and_totals_are_published(
    make_run: MakeRun, policy_from: PolicyFrom, tmp_path: Path
) -> None:
    docs = [Doc(f"d{i:02d}", words=i, bucket=i % 7) for i in range(20)]
    policy = policy_from(POLICY)
    files = []
    for root in ("one", "two"):
        folder = make_run(docs, root=tmp_path / root).judge(policy)
        files.append({path.name: path.read_bytes() for path in sorted(folder.rglob("*.*"))})
    assert files[0] == files[1]
    manifest = open_dataset(folder / "verdicts").manifest
    assert manifest.facts["kept"] + manifest.facts["dropped"] == 20
    assert manifest.stage["policy_identity"] == policy.identity()


def test_a_lost_verdict_is_not_published(make_run: MakeRun, policy_from: PolicyFrom, tmp_path: Path) -> None:
    run, policy = make_run([Doc("a"), Doc("b")]), policy_from(POLICY)
    part = run.catalogue.parts[0]
    table = run.catalogue.read(part)
    bound = bind_policy(policy, table.schema)
    whole = judge_duplicates(table, bound, judge_rules(table, bound))
    short = Decisions(whole.verdicts.slice(1), whole.reasons, whole.facts)
    with pytest.raises(DatasetError, match="1 documents were judged, but 2 kept"):
        publish_decisions(tmp_path / "d", policy, [commit_decisions(tmp_path / "d", part, bound, short)])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.one_of(st.none(), st.integers(0, 40)), st.sampled_from(["en", "zh", "fr"]),
            st.one_of(st.none(), st.floats(0, 1, width=32)), st.one_of(st.none(), st.integers(0, 19)), st.booleans(),
        ),
        max_size=12,
    )
)  # fmt: skip
def test_in_is_kept_plus_dropped_and_one_rule_decides(
    rows: list[tuple[int | None, str, float | None, int | None, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("judged")
    (root / "policy.yaml").write_text(POLICY.lstrip())
    policy = load_yaml(root / "policy.yaml", Policy)
    docs = [
        Doc(f"d{i}", words=words, label=label, score=score, bucket=bucket, source="web" if web else "wiki")
        for i, (words, label, score, bucket, web) in enumerate(rows)
    ]
    decisions = judge(Run(root / "run", docs, 5), policy)
    order = [rule.rule for rule in policy.rules]
    failed: dict[str, list[str]] = {doc.name: [] for doc in docs}
    decided: dict[str, list[str]] = {doc.name: [] for doc in docs}
    for name, rule, _, _, decides, _ in reasons(decisions):
        failed[name].append(rule)
        decided[name] += [rule] if decides else []
    assert {doc.name: _expected(doc) for doc in docs} == failed
    for name, verdict in verdicts(decisions).items():
        assert decided[name] == ([verdict] if verdict else [])
        assert verdict == (min(failed[name], key=order.index) if failed[name] else None)


def _expected(doc: Doc) -> list[str]:
    """POLICY written in Python."""
    low, high = (20, 30) if doc.label == "zh" else (5, 10**9)
    faults = [
        ("unclear", doc.score is not None and doc.score < 0.5),
        ("short", doc.words is not None and not low <= doc.words <= high),
        ("poor", doc.source == "web" and (doc.bucket is None or doc.bucket < 4)),
    ]
    return [rule for rule, fails in faults if fails]
