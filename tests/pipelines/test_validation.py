"""What a validation asks for and says: ranges, the policy and recipe that it writes, and the comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mixtures.policy import load_policy
from mixtures.recipe import load_recipe
from pipelines.request import RunRequest
from pipelines.run_folder import RunFolder, StepRecord, require_step, write_step
from pipelines.studies import REFERENCE, find_finished
from pipelines.validation import (
    ValidationPlan,
    ValidationRequest,
    compare_proxies,
    plan_validation,
    table_of,
)
from storage.errors import CurationError, InputError

POLICY = """\
format_version: 1
name: strict
gate: {rules: [short, poor]}
rules:
  - {rule: short, measure: rules.num_words, min: 5}
  - {rule: poor, measure: quality.bucket, min: 4}
  - {rule: odd, when: scores.edu.value < 1}
  - {rule: near_duplicate, duplicates: near, min_similarity: 0.8, keep: {best: [quality.score desc]}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    for step in ("ingest", "score", "judge", "vocabulary"):
        result = {"identity": step, "tokenizer": "t"}
        write_step(run, StepRecord(step=step, identity=step, result=result, costs={}))
    (tmp_path / "policy.yaml").write_text(POLICY)
    return run


def plan(folder: RunFolder, **asked: Any) -> ValidationPlan:
    policy = str(folder.root.parent / "policy.yaml")
    return plan_validation(ValidationRequest(**asked), RunRequest(out=str(folder.root), policy=policy), folder)


@pytest.mark.parametrize("groups", range(2, 21))
def test_ranges_hold_every_bucket_once(groups: int) -> None:
    ranges = ValidationRequest(groups=groups).ranges()
    assert [bucket for low, high in ranges.values() for bucket in range(low, high + 1)] == list(range(20))
    assert len(ranges) == groups


def test_the_policy_that_it_writes_drops_nothing_by_a_score(folder: RunFolder) -> None:
    written = load_policy(str(plan(folder).folder.policy))
    assert [rule.rule for rule in written.rules] == ["short", "near_duplicate"]
    assert written.gate is not None and written.gate.rules == ("short",)
    keep = written.rules[1].keep
    assert keep is not None and keep.best == ("quality.score desc",)


def test_the_recipe_that_it_writes_has_a_source_for_each_range_after_the_reference(folder: RunFolder) -> None:
    planned = plan(folder, groups=4, where="source = 'web'", reference="source = 'wiki'", tokens=5000, heldout=300)
    recipe = load_recipe(str(planned.folder.recipe))
    assert [source.name for source in recipe.sources] == [REFERENCE, "b00-04", "b05-09", "b10-14", "b15-19"]
    assert recipe.sources[1].where == "(quality.bucket) BETWEEN 0 AND 4 AND (source = 'web')"
    assert [source.tokens for source in recipe.sources] == [1, 5000, 5000, 5000, 5000]
    assert recipe.heldout.tokens == 300 and planned.steps == 5000 // (256 * 4)


def test_the_runs_own_records_are_borrowed_and_not_written(folder: RunFolder) -> None:
    before = {path: path.read_bytes() for path in folder.steps.iterdir()}
    planned = plan(folder)
    assert {path.name for path in planned.folder.steps.iterdir()} == {"ingest.json", "score.json"}
    write_step(planned.folder, StepRecord(step="judge", identity="other", result={}, costs={}))
    assert require_step(folder, "judge").identity == "judge"
    assert {path: path.read_bytes() for path in folder.steps.iterdir()} == before


def test_what_changes_the_result_changes_its_place(folder: RunFolder) -> None:
    places = {plan(folder, **asked).folder.home for asked in ({}, {"by": "1"}, {"seeds": 2}, {"tokens": 9000})}
    assert len(places) == 4 and plan(folder, workers=3).folder.home in places


def test_what_cannot_be_is_refused(folder: RunFolder) -> None:
    for wrong in ({"groups": 1}, {"groups": 21}, {"tokens": 0}, {"seeds": 0}, {"max_epochs": 0}):
        with pytest.raises(InputError):
            ValidationRequest(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="less than one step"):
        plan(folder, tokens=100)
    with pytest.raises(CurationError, match="no preset"):
        plan(folder, preset="huge")
    (folder.steps / "vocabulary.json").unlink()
    with pytest.raises(CurationError, match="`vocabulary` has not been done"):
        plan(folder)


def proxy(source: str, seed: int, **bits: float) -> dict[str, Any]:
    return {
        "name": source,
        "seed": seed,
        "tokens": 1000,
        "bits_per_byte": {k.replace("_", "-"): v for k, v in bits.items()},
    }


def test_proxies_are_compared_on_the_reference_and_on_what_others_learned_from(folder: RunFolder) -> None:
    planned = plan(folder, groups=2, reference="true", seeds=2)
    proxies = [
        proxy("b00-09", 1, reference=3.0, b00_09=1.0, b10_19=2.0),
        proxy("b00-09", 2, reference=3.2, b00_09=1.0, b10_19=2.0),
        proxy("b10-19", 1, reference=2.0, b00_09=2.5, b10_19=1.0),
        proxy("b10-19", 2, reference=2.0, b00_09=2.5, b10_19=1.0),
    ]
    result = compare_proxies(planned, proxies)
    low, high = result["rows"]
    assert (low[REFERENCE], low["others"], high[REFERENCE], high["others"]) == (3.1, 2.0, 2.0, 2.5)
    assert low["reference_spread"] == pytest.approx(0.14142) and high["reference_spread"] == 0
    assert result["rank_correlation"] == {REFERENCE: -1.0, "others": 1.0}
    assert table_of(result)[0]["reference"] == "3.1000 ± 0.1414"
    assert find_finished(planned) is None
    planned.folder.result.write_text(json.dumps(result))
    found = find_finished(planned)
    assert found is not None and found["rows"] == result["rows"]


def test_without_a_reference_there_is_no_such_column(folder: RunFolder) -> None:
    planned = plan(folder, groups=2)
    result = compare_proxies(planned, [proxy("b00-09", 1, b10_19=2.0), proxy("b10-19", 1, b00_09=1.0)])
    assert result["rank_correlation"] == {"others": -1.0} and "reference" not in table_of(result)[0]
