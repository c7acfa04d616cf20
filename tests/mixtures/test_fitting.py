"""Percentile rules: fitted over all parts and groups, reused for new parts, and judged like any limit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from mixtures.binding import bind_gate, bind_policy
from mixtures.catalogue import publish_catalogue, write_catalogue_part
from mixtures.fitting import fit_policy, limits_from_json, limits_to_json
from mixtures.judge import judge_duplicates, judge_rules
from mixtures.policy import Policy, load_policy
from storage.errors import RecipeError, SqlError
from storage.manifests import Dataset, Manifest, open_dataset, write_manifest
from storage.parts import commit_table
from storage.schema import IDENTIFIER
from tests.mixtures.tiny_run import Doc, Run, name_of

PolicyFrom = Callable[[str], Policy]
POLICY = """
format_version: 1
name: tail
rules:
  - {rule: unusual, measure: language.score, max_percentile: 90, per: source}
"""


def docs(source: str, scores: list[float | None]) -> list[Doc]:
    return [Doc(f"{source}{i}", source=source, score=score) for i, score in enumerate(scores)]


def dropped(run: Run, policy: Policy, home: Path, *, refit: bool = False) -> dict[str, tuple[float, float, str]]:
    """Name → (measured, limit, evidence) of each dropped document, through JSON as a job tells it."""
    fitted = limits_from_json(limits_to_json(fit_policy(policy, run.catalogue, home, refit=refit)))
    found = {}
    for part in run.catalogue.parts:
        table = run.catalogue.read(part)
        bound = bind_policy(policy, table.schema, fitted)
        for row in judge_duplicates(table, bound, judge_rules(table, bound)).reasons.to_pylist():
            found[name_of(row["doc_id"])] = (row["measured"], row["limit"], row["evidence"])
    return found


def test_each_group_has_its_own_percentile(policy_from: PolicyFrom, tmp_path: Path) -> None:
    rows = docs("web", [i / 10 for i in range(10)]) + docs("wiki", [5.0 + i for i in range(20)])
    for part_rows in (4, 100):
        run = Run(tmp_path / str(part_rows), rows, part_rows)
        found = dropped(run, policy_from(POLICY), tmp_path / f"fitted-{part_rows}")
        assert found == {
            "web9": (0.9, pytest.approx(0.8), "source=web"),
            "wiki18": (23.0, 22.0, "source=wiki"),
            "wiki19": (24.0, 22.0, "source=wiki"),
        }


def test_both_sides_without_groups_and_only_some_documents(policy_from: PolicyFrom, tmp_path: Path) -> None:
    policy = policy_from(
        """
format_version: 1
name: both
rules:
  - rule: outside
    measure: language.score
    min_percentile: 25
    max_percentile: 75
    only: source = 'web'
    if_missing: fail
"""
    )
    run = Run(tmp_path / "run", docs("web", [1.0, 2.0, 3.0, 4.0, 5.0, None]) + docs("wiki", [100.0]), 3)
    assert {name: limit for name, (_, limit, _) in dropped(run, policy, tmp_path).items()} == {
        "web0": 2.0,
        "web4": 4.0,
        "web5": 4.0,
    }


def test_limits_are_kept_for_new_documents_until_a_refit(policy_from: PolicyFrom, tmp_path: Path) -> None:
    policy, old = policy_from(POLICY), docs("web", [float(i) for i in range(10)])
    dropped(Run(tmp_path / "old", old, 3), policy, tmp_path / "fitted")
    grown = Run(tmp_path / "grown", old + docs("wiki", [1.0, 2.0]) + [Doc("late", score=8.5)], 4)
    assert set(dropped(grown, policy, tmp_path / "fitted")) == {"web9", "late"}
    more = Run(tmp_path / "more", old + [Doc(f"late{i}", score=50.0 + i) for i in range(10)], 7)
    assert len(dropped(more, policy, tmp_path / "fitted")) == 11
    assert len(dropped(more, policy, tmp_path / "fitted", refit=True)) == 2
    assert len(dropped(more, policy, tmp_path / "fitted")) == 2, "what was fitted anew stays"


def test_a_look_leaves_nothing(policy_from: PolicyFrom, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", docs("web", [1.0, 2.0]), 3)
    assert fit_policy(policy_from(POLICY), run.catalogue, tmp_path / "fitted", keep=False)
    assert not (tmp_path / "fitted").exists()


def test_a_percentile_is_no_gate_and_has_no_other_limits(policy_from: PolicyFrom) -> None:
    with pytest.raises(RecipeError, match="all parts are measured"):
        policy_from(POLICY + "gate: {rules: [unusual]}\n")
    with pytest.raises(RecipeError, match="fixed limits beside percentiles"):
        policy_from(POLICY.replace("max_percentile: 90", "max_percentile: 90, max: 3"))
    with pytest.raises(RecipeError, match="less than 100"):
        policy_from(POLICY.replace("max_percentile: 90", "max_percentile: 100"))


def test_a_wrong_name_is_said_before_anything_is_fitted(policy_from: PolicyFrom, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", docs("web", [1.0]), 3)
    with pytest.raises(SqlError, match="no stage `fluency`") as caught:
        fit_policy(policy_from(POLICY.replace("language.score", "fluency.loss")), run.catalogue, tmp_path)
    assert "--fluency-model" in str(caught.value)
    assert not bind_gate(policy_from(POLICY), run.catalogue.schema(run.catalogue.parts[0])).rules


def test_within_each_domain_the_half_percent_with_the_highest_loss_goes(tmp_path: Path) -> None:
    """CCI4.0's rule as it is shipped, counted by hand: of 400 and 600 documents two and three lie above 99.5 %."""
    policy = load_policy("cci4_domains")
    counts = {"Science": 400, "Sports": 600, "Law": 100, None: 300}
    losses = {
        name: [(i * 7919 % count) / count + 3 * j for i in range(count)]
        for j, (name, count) in enumerate(counts.items())
    }
    rows = [(name, loss) for name, values in losses.items() for loss in values]
    catalogue = write_domains(tmp_path, rows)
    fitted = fit_policy(policy, catalogue, tmp_path / "fitted")
    (part,) = catalogue.parts
    table = catalogue.read(part)
    failed = judge_rules(table, bind_policy(policy, table.schema, fitted)).rows.to_pylist()
    found = [rows[row["row"]] for row in failed if row["rule"] == "not_fluent_in_its_domain"]
    for name, values in losses.items():
        kept = len(values) - len([1 for domain, _ in found if domain == name])
        assert kept == -(-len(values) * 995 // 1000)
        assert sorted(loss for domain, loss in found if domain == name) == sorted(values)[kept:]


def write_domains(root: Path, rows: list[tuple[str | None, float]]) -> Dataset:
    """A catalogue of documents that pass all else, with these domains and losses."""
    loss = pa.array([{"loss": loss} for _, loss in rows], pa.struct([("loss", pa.float64())]))
    domain = pa.array(
        [{"domain": {"label": name}} for name, _ in rows],
        pa.struct([("domain", pa.struct([("label", pa.string())]))]),
    )
    rules = pa.array([{"num_words": 99, "duplicate_line_ratio": 0.0}] * len(rows))
    ids = pa.array([i.to_bytes(16, "big") for i in range(len(rows))], IDENTIFIER)
    table = pa.table({"doc_id": ids, "text_bytes": [9] * len(rows), "rules": rules, "fluency": loss, "scores": domain})
    part = commit_table(root / "catalogue", "a", table, schema=table.schema)
    write_manifest(root / "catalogue", Manifest(kind="catalogue", identity="a", stage={}, parts=(part,)))
    return open_dataset(root / "catalogue")


def test_a_scorer_more_changes_no_limits_of_the_others(policy_from: PolicyFrom, tmp_path: Path) -> None:
    """Limits belong to the scorer that the rule reads, not to all that the run has."""
    rule = "{rule: low, measure: scores.edu.value, min_percentile: 10, per: scores.domain.label}"
    policy = policy_from(f"format_version: 1\nname: a\nrules:\n  - {rule}\n")
    identities = set()
    for number, stages in enumerate(
        ({"edu": {"stage": "1"}, "domain": {"stage": "2"}},
         {"edu": {"stage": "1"}, "domain": {"stage": "2"}, "more": {"stage": "3"}},
         {"edu": {"stage": "9"}, "domain": {"stage": "2"}})
    ):  # fmt: skip
        run = Run(tmp_path / f"run-{number}", [Doc("a"), Doc("b")], 5)
        catalogue = scored_catalogue(run, stages)
        home = tmp_path / f"limits-{number}"
        fit_policy(policy, catalogue, home)
        identities.add(tuple(sorted(file.name for file in home.glob("*.json"))))
    assert len(identities) == 2


def scored_catalogue(run: Run, stages: dict[str, dict[str, str]]) -> Dataset:
    """The run's catalogue with scores by these scorers."""
    folder = run.root / "attributes" / "scores"
    row = {name: {"label": "x"} if name == "domain" else {"value": 0.5} for name in stages}
    (ours,) = run.documents.parts
    table = pa.table({"doc_id": run.documents.read(ours, ["doc_id"])["doc_id"], "scores": [row] * ours.rows})
    part = commit_table(folder, "s", table, schema=table.schema, of=ours.sha256)
    write_manifest(folder, Manifest(kind="scores", identity="s", stage=stages, parts=(part,)))
    attributes = [*run.attributes, open_dataset(folder)]
    parts = [write_catalogue_part(run.root / "scored", run.documents, ours, attributes)]
    publish_catalogue(run.root / "scored", attributes, parts)
    return open_dataset(run.root / "scored")
