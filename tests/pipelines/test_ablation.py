"""Ablations: one held-out set for all arms, equal tokens, and tables whose every figure is computed."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from scipy import stats

from mixtures.policy import load_policy
from mixtures.recipe import load_recipe
from mixtures.withheld import read_withheld, write_withheld
from pipelines.ablation import (
    AblationPlan,
    AblationRequest,
    describe_arm,
    list_withheld,
    plan_ablation,
    plan_arm,
    proxies_of,
)
from pipelines.comparison import compare, markdown_of, sentences_of, table_of
from pipelines.report.ablation import render_ablation
from pipelines.request import RunRequest
from pipelines.run_folder import RunFolder, StepRecord, write_step
from storage.errors import InputError, RecipeError
from storage.schema import IDENTIFIER
from tests.stored_run import make_stored_run

RECIPE = """\
format_version: 1
name: both
seed: 5
policy: strict.yaml
tokenizer: {load: t.json}
sources:
  - {name: web, where: source = 'web', weight: 1, max_epochs: 2}
  - {name: wiki, where: source = 'wiki', weight: 3}
"""
STRICT = """\
format_version: 1
name: strict
rules:
  - {rule: short, measure: rules.num_words, min: 5}
  - {rule: copy, duplicates: exact}
"""
STRICTER = STRICT.replace("strict", "stricter").replace("min: 5", "min: 50")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    for step in ("ingest", "score", "judge", "vocabulary"):
        result = {"identity": step, "tokenizer": "t"}
        write_step(run, StepRecord(step=step, identity=step, result=result, costs={}))
    for name, text in (("recipe", RECIPE), ("strict", STRICT), ("stricter", STRICTER)):
        (tmp_path / f"{name}.yaml").write_text(text)
    return run


def planned(folder: RunFolder, *arms: str, **asked: Any) -> AblationPlan:
    home = folder.root.parent
    named = tuple(str(home / f"{arm}.yaml") for arm in arms or ("strict", "stricter"))
    run = RunRequest(out=str(folder.root), recipe=str(home / "recipe.yaml"))
    return plan_ablation(AblationRequest(arms=named, **{"tokens": 50_000, **asked}), run, folder)


def test_held_out_are_documents_that_pass_the_rules_of_all_arms(folder: RunFolder) -> None:
    plan = planned(folder, heldout=500)
    policy, recipe = load_policy(str(plan.folder.policy)), load_recipe(str(plan.folder.recipe))
    assert [(rule.rule, rule.min) for rule in policy.rules if rule.measure] == [("short", 5.0), ("short_2", 50.0)]
    assert [rule.duplicates for rule in policy.rules if rule.duplicates] == ["exact", "near"]
    assert [source.name for source in recipe.sources] == ["web", "wiki"] and recipe.heldout.tokens == 500


def test_named_texts_are_held_out_whatever_policies_say(folder: RunFolder) -> None:
    plan = planned(folder, measure_on={"clean": "source = 'gold'", "wiki": "source = 'wiki'"})
    policy, recipe = load_policy(str(plan.folder.policy)), load_recipe(str(plan.folder.recipe))
    assert policy.rules[0].when == "NOT coalesce((source = 'gold') OR (source = 'wiki'), false)"
    assert [(source.name, source.where) for source in recipe.sources] == [
        ("clean", "source = 'gold'"),
        ("wiki", "source = 'wiki'"),
    ]


def test_an_arm_is_its_recipe_for_the_tokens_without_what_is_held_out(folder: RunFolder) -> None:
    plan = planned(folder)
    run = RunRequest(out=str(folder.root), recipe=str(folder.root.parent / "recipe.yaml"))
    study = plan_arm(plan, plan.arms[1], run, [b"0123456789abcdef"])
    recipe = load_recipe(str(study.folder.recipe))
    assert read_withheld(recipe) == [b"0123456789abcdef"]
    assert recipe.tokens == 50_000 and recipe.heldout.tokens == 0
    assert [(source.weight, source.max_epochs) for source in recipe.sources] == [(1.0, 2.0), (3.0, 4.0)]
    assert load_policy(str(study.folder.policy)).identity() == plan.arms[1].policy.identity()


def test_an_arm_keeps_what_it_withholds_itself(folder: RunFolder) -> None:
    home = folder.root.parent
    listed = write_withheld(home, [b"a" * 16])
    (home / "own.yaml").write_text(RECIPE + f"withheld: {listed.name}\n")
    plan = planned(folder, "strict", "own")
    run = RunRequest(out=str(folder.root), recipe=str(home / "recipe.yaml"))
    study = plan_arm(plan, plan.arms[1], run, [b"b" * 16])
    assert read_withheld(load_recipe(str(study.folder.recipe))) == [b"a" * 16, b"b" * 16]


def test_groups_of_duplicates_are_withheld_whole(tmp_path: Path) -> None:
    run = make_stored_run(tmp_path)
    selection = pq.read_table(run.mixture / "selection.parquet")
    held = selection.filter(pa.compute.equal(selection["split"], "heldout"))["doc_id"].to_pylist()
    plain = list_withheld(run.corpus.verdicts, run.mixture, everything=False)
    assert held and set(plain) == set(held)
    assert set(list_withheld(run.corpus.verdicts, run.mixture, everything=True)) == set(selection["doc_id"].to_pylist())


def test_a_copy_of_a_held_out_document_is_withheld_too(tmp_path: Path) -> None:
    ids = [bytes([i]) * 16 for i in range(4)]
    pq.write_table(
        pa.table({"doc_id": pa.array(ids[:2], IDENTIFIER), "split": ["heldout", "train"]}),
        tmp_path / "selection.parquet",
    )

    class Verdicts:
        parts = (0, 1)

        def read(self, part: int, columns: list[str]) -> pa.Table:
            mine = slice(2 * part, 2 * part + 2)
            groups = [ids[0], ids[1], ids[2], ids[0]]
            values = {"doc_id": pa.array(ids[mine], IDENTIFIER), "cluster_id": pa.array(groups[mine], IDENTIFIER)}
            return pa.table(values).select(columns)

    found = list_withheld(Verdicts(), tmp_path, everything=False)  # type: ignore[arg-type]
    assert set(found) == {ids[0], ids[3]}


def write_plan(folder: Path, tokens: int) -> Path:
    source = {"documents": 9, "tokens_available": 20_000, "highest_epochs": 2.5}
    values = {"tokens_given": tokens, "sources": [source], "mixture": "m", "warnings": []}
    folder.mkdir(exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(values))
    return folder


def test_an_arm_with_too_few_tokens_is_refused_and_repeats_are_told(folder: RunFolder, tmp_path: Path) -> None:
    plan, judged = planned(folder), {"kept": 9, "dropped": 1, "decided": {"short": 1}}
    told = describe_arm(plan, plan.arms[0], write_plan(tmp_path / "mixture", 50_000), judged)
    assert told["epochs"] == 2.5 and told["tokens_available"] == 20_000 and told["rules"] == {"short": 1}
    with pytest.raises(RecipeError, match="`strict` has 40.0 k tokens within `max_epochs`"):
        describe_arm(plan, plan.arms[0], write_plan(tmp_path / "mixture", 40_000), judged)


def test_every_experiment_trains_on_equal_tokens_with_its_own_preset(folder: RunFolder) -> None:
    matrix = folder.root.parent / "matrix.yaml"
    axes = {"data": ["strict.yaml", "stricter.yaml"], "training.global_batch": [4, 8]}
    matrix.write_text(yaml.safe_dump({"format_version": 1, "name": "m", "seeds": 2, "preset": "tiny", "axes": axes}))
    plan = planned(folder, "matrix")
    proxies = proxies_of(plan, "held", {"strict": "one", "stricter": "two"})
    assert [(proxy.seed, proxy.mixture) for proxy in proxies] == [
        *[(1, "one")] * 2, *[(1, "two")] * 2, *[(2, "one")] * 2, *[(2, "two")] * 2,
    ]  # fmt: skip
    assert [proxy.steps for proxy in proxies[:2]] == [50_000 // (256 * 4), 50_000 // (256 * 8)]
    assert len({proxy.folder for proxy in proxies}) == 8
    written = yaml.safe_load(Path(str(proxies[1].preset)).read_text())
    assert written["training"]["global_batch"] == 8 and written["model"]["num_layers"] == 4


def test_an_arm_more_leaves_the_models_of_the_others_where_they_are(folder: RunFolder) -> None:
    (folder.root.parent / "third.yaml").write_text(STRICT.replace("strict", "third").replace("min: 5", "min: 9"))
    mixtures = {"strict": "one", "stricter": "two", "third": "three"}
    two, three = (
        {proxy.folder for proxy in proxies_of(planned(folder, *arms), "held", mixtures)}
        for arms in (("strict", "stricter"), ("strict", "stricter", "third"))
    )
    assert two < three and len(three) == 9


def test_what_changes_the_result_changes_its_place(folder: RunFolder) -> None:
    asked: tuple[dict[str, Any], ...] = ({}, {"seeds": 2}, {"tokens": 60_000}, {"heldout": 9}, {"preset": "proxy"})
    places = {planned(folder, **options).folder.home for options in asked}
    assert len(places) == 5 and planned(folder, workers=3).folder.home in places
    (folder.root.parent / "strict.yaml").write_text(STRICT.replace("min: 5", "min: 6"))
    assert planned(folder).folder.home not in places


def test_what_cannot_be_is_refused(folder: RunFolder) -> None:
    with pytest.raises(InputError, match="nothing to compare"):
        AblationRequest(arms=("web_default",))
    with pytest.raises(InputError, match="seeds is 0"):
        AblationRequest(arms=("a", "b"), seeds=0)
    recipe = folder.root.parent / "recipe.yaml"
    recipe.write_text(RECIPE.replace("weight: 3", "tokens: 5k"))
    with pytest.raises(RecipeError, match="give all of them weights"):
        planned(folder)


MEASURED = {
    ("strict", 1): {"web": 2.10, "wiki": 1.90},
    ("strict", 2): {"web": 2.20, "wiki": 2.00},
    ("strict", 3): {"web": 2.16, "wiki": 1.91},
    ("stricter", 1): {"web": 2.00, "wiki": 1.95},
    ("stricter", 2): {"web": 2.11, "wiki": 2.04},
    ("stricter", 3): {"web": 2.07, "wiki": 1.97},
}


def compared(plan: AblationPlan) -> dict[str, Any]:
    slugs = {experiment.name: experiment.slug for experiment in plan.experiments}
    proxies = [
        {"name": slugs[name], "seed": seed, "tokens": 1000, "parameters": 7, "bits_per_byte": bits}
        for (name, seed), bits in MEASURED.items()
    ]
    arm = {
        "policy": "p", "kept": 3, "dropped": 4, "rules": {"short": 4}, "documents": 3, "tokens_available": 9,
        "epochs": 1.5, "warnings": [],
    }  # fmt: skip
    heldout = {name: {"tokens": 10, "bytes": 40} for name in ("web", "wiki")}
    return compare(plan, [{"name": name, **arm} for name in slugs], heldout, proxies)


def test_intervals_and_paired_differences_are_scipys(folder: RunFolder) -> None:
    strict, stricter = compared(planned(folder))["experiments"]
    values = {name: [MEASURED[name, seed]["web"] for seed in (1, 2, 3)] for name in ("strict", "stricter")}
    low, high = stats.t.interval(0.95, 2, loc=fmean(values["strict"]), scale=stats.sem(values["strict"]))
    assert (strict["bits_per_byte"]["web"]["low"], strict["bits_per_byte"]["web"]["high"]) == (
        pytest.approx(low),
        pytest.approx(high),
    )
    paired = stats.ttest_rel(values["stricter"], values["strict"]).confidence_interval(0.95)
    found = stricter["difference"]["web"]
    assert (found["low"], found["high"]) == (pytest.approx(paired.low), pytest.approx(paired.high))
    assert strict["difference"] == {}


def test_the_mean_of_all_texts_counts_each_alike(folder: RunFolder) -> None:
    row = compared(planned(folder))["experiments"][0]["bits_per_byte"]
    expected = fmean(fmean(bits.values()) for (name, _), bits in MEASURED.items() if name == "strict")
    assert row["all"]["mean"] == pytest.approx(expected)
    assert row["all"]["mean"] == pytest.approx((row["web"]["mean"] + row["wiki"]["mean"]) / 2)


def test_averages_of_an_axis_are_those_of_its_experiments(folder: RunFolder) -> None:
    """Every average of the table, anew from the runs: a figure that was typed would not follow them."""
    matrix = folder.root.parent / "matrix.yaml"
    axes = {"data": ["strict.yaml", "stricter.yaml"], "training.global_batch": [4, 8]}
    matrix.write_text(yaml.safe_dump({"format_version": 1, "name": "m", "seeds": 2, "axes": axes}))
    plan = planned(folder, "matrix")
    proxies = [
        {"name": one.slug, "seed": seed, "tokens": 9, "parameters": 7, "bits_per_byte": {"web": i + seed / 10}}
        for i, one in enumerate(plan.experiments)
        for seed in (1, 2)
    ]
    result = compare(plan, [], {}, proxies)
    assert set(result["averages"]) == {"data", "training.global_batch"}
    for axis, rows in result["averages"].items():
        for row in rows:
            mine = [one["name"] for one in result["experiments"] if one["axes"][axis] == row["value"]]
            bits = [run["bits_per_byte"]["web"] for run in result["runs"] if run["experiment"] in mine]
            assert row["experiments"] == 2 and row["bits_per_byte"]["web"]["mean"] == pytest.approx(fmean(bits))


def test_people_read_what_was_computed(folder: RunFolder) -> None:
    result = compared(planned(folder))
    assert table_of(result)[0]["web"].startswith("2.1533 ± 0.1")
    web, wiki, _ = sentences_of(result)
    assert web.startswith("stricter against strict, web: -0.0933 ± 0.0143 bits per byte, better; their intervals touch")
    assert wiki.endswith("worse; their intervals touch")
    text = markdown_of(result)
    assert "| strict | 1,000 |" in text and "| short | 4 |" in text
    page = render_ablation(result, {"strict": [(10.0, 3.0), (20.0, 2.0)]})
    assert page.count("<circle") == 6 and "Training losses" in page and "2.1533" in page
