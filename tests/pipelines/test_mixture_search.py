"""What a mixture search asks for, fits and says: on proxies whose losses a formula makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixtures.recipe import load_recipe
from pipelines.mixture_search import (
    BEST,
    OWN,
    MixtureSearchRequest,
    SearchPlan,
    Space,
    describe_result,
    final_proxies,
    find_best,
    fit_objective,
    open_space,
    plan_search,
    rows_of,
    sampled_proxies,
    sentences_of,
    write_best_recipe,
)
from pipelines.request import RunRequest
from pipelines.run_folder import RunFolder, StepRecord, write_step
from pipelines.studies import REFERENCE, Proxy, find_finished, write_result
from storage.errors import CurationError, InputError, RecipeError

RECIPE = """\
format_version: 1
name: three
seed: 5
tokens: 4_000_000
policy: policy.yaml
tokenizer: {train: {vocabulary_size: 1000}}
sources:
  - {name: web, where: "source = 'web'", weight: 6}
  - {name: wiki, where: "source = 'wiki'", weight: 3, max_epochs: 2}
  - {name: code, where: "source = 'code'", weight: 1, max_share: 0.3}
"""
POLICY = "format_version: 1\nname: mine\nrules: [{rule: short, measure: rules.num_words, min: 5}]\n"
TRANSFER = np.array([[0.6, 0.3, 0.02], [0.1, 1.0, 0.02], [0.05, 0.05, 1.2]])


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    for step in ("ingest", "score", "judge", "vocabulary"):
        write_step(run, StepRecord(step=step, identity=step, result={"identity": step, "tokenizer": "t"}, costs={}))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "policy.yaml").write_text(POLICY)
    return run


def plan(folder: RunFolder, **asked: Any) -> SearchPlan:
    request = MixtureSearchRequest(recipe=str(folder.root.parent / "recipe.yaml"), **asked)
    return plan_search(request, RunRequest(out=str(folder.root)), folder)


def space_of(planned: SearchPlan, **available: int) -> Space:
    mixture = planned.folder.root / "mixture"
    mixture.mkdir(parents=True, exist_ok=True)
    held = {"web": 6_000_000, "wiki": 1_000_000, "code": 3_000_000, **available}
    rows = [{"name": name, "tokens_available": tokens} for name, tokens in held.items()]
    (mixture / "plan.json").write_text(json.dumps({"sources": rows}))
    return open_space(planned, mixture)


def trained(proxies: list[Proxy]) -> list[dict[str, Any]]:
    """Bits per byte on each source's text by how much of it, and of what is like it, the proxy read."""
    names = ("web", "wiki", "code")
    rows = []
    for proxy in proxies:
        shares = np.array([proxy.weights.get(name, 0.0) for name in names])
        noise = np.random.default_rng([proxy.seed, int(1e6 * shares[0])]).normal(0, 0.002, 3)
        bits = 1.5 + 0.6 * (TRANSFER @ shares) ** -0.25 + noise
        found = dict(zip(names, bits.tolist(), strict=True))
        row = {"name": proxy.name, "weights": dict(proxy.weights), "seed": proxy.seed, "bits_per_byte": found}
        rows.append(row)
    return rows


def test_the_studys_recipe_has_every_source_whole(folder: RunFolder) -> None:
    planned = plan(folder, reference="source = 'books'", heldout=500)
    recipe = load_recipe(str(planned.folder.recipe))
    assert [source.name for source in recipe.sources] == [REFERENCE, "web", "wiki", "code"]
    assert all(source.weight is None and source.tokens is None for source in recipe.sources)
    assert recipe.heldout.tokens == 500 and recipe.tokens is None and recipe.sequence_length == 128
    assert load_recipe(str(planned.folder.recipe)).seed == 5


def test_shares_are_capped_by_what_there_is_for_the_target(folder: RunFolder) -> None:
    space = space_of(plan(folder))
    assert space.caps == (1.0, 0.5, 0.3)
    assert space.own == pytest.approx((0.6, 0.3, 0.1))
    scarce = space_of(plan(folder, target_tokens=10_000_000))
    assert scarce.caps == pytest.approx((1.0, 0.2, 0.3)) and scarce.own == pytest.approx(
        (0.6857, 0.2, 0.1143), abs=1e-4
    )
    with pytest.raises(RecipeError, match=r"can make up .* of the target's tokens"):
        space_of(plan(folder, target_tokens=400_000_000))


def test_a_recipe_that_says_epochs_is_searched_for_as_many_tokens(folder: RunFolder) -> None:
    path = folder.root.parent / "recipe.yaml"
    path.write_text(path.read_text().replace("tokens: 4_000_000", "epochs: 2"))
    assert space_of(plan(folder)).caps == space_of(plan(folder, target_tokens=20_000_000)).caps


def test_the_best_mixture_is_found_trained_and_written(folder: RunFolder) -> None:
    planned = plan(folder, mixtures=32, heldout_mixtures=16, repeats=2, final_seeds=2)
    space = space_of(planned)
    sampled = sampled_proxies(planned.request, space)
    assert len(sampled) == 32 + 16 * 2 and len({(proxy.name, proxy.seed) for proxy in sampled}) == len(sampled)
    found = trained(sampled)
    objective = fit_objective(planned.request, space, found)
    best = find_best(planned.request, space, objective)
    assert best.sum() == pytest.approx(1) and (best <= np.array(space.caps) + 1e-9).all()
    final = trained(final_proxies(planned.request, space, best))
    result = describe_result(planned, space, objective, best, [*found, *final])
    assert result["heldout_mixtures"]["rank_correlation"] > 0.9 and result["heldout_mixtures"]["ceiling"] > 0.9
    ours, own = result["trained"][BEST], result["trained"][OWN]
    assert ours["measured"] < own["measured"] and abs(ours["predicted"] - ours["measured"]) < 0.02
    gain, agreement = sentences_of(result)[2:]
    assert rows_of(result)[1]["most"] == "50.0 %" and "the ceiling" in agreement
    assert "standard error" in gain and "seeds alone" not in gain
    alike = {**result, "trained": {BEST: own, OWN: own}}
    assert "seeds alone could make that" in sentences_of(alike)[2]
    recipe = load_recipe(str(write_best_recipe(planned, space, best)))
    weights = [source.weight for source in recipe.sources]
    assert weights == pytest.approx(best.tolist(), abs=1e-4) and recipe.sources[1].max_epochs == 2
    assert Path(recipe.policy).is_file() and recipe.tokens == 4_000_000
    assert find_finished(planned) is None
    write_result(planned, result)
    assert find_finished(planned) == json.loads(json.dumps(result))


STAGES = """\
stages:
  - {name: long, tokens: 3M}
  - name: anneal
    tokens: 1M
    sources: {wiki: {weight: 1}, code: {weight: 3, max_share: 0.5}}
"""


def test_a_stage_of_several_is_searched_for_itself(folder: RunFolder) -> None:
    (folder.root.parent / "recipe.yaml").write_text(RECIPE.replace("tokens: 4_000_000\n", "") + STAGES)
    assert [source.name for source in plan(folder).sources] == ["web", "wiki", "code"]
    planned = plan(folder, stage="anneal", mixtures=24)
    space = space_of(planned)
    assert space.names == ("wiki", "code") and space.caps == (1.0, 0.5) and space.own == pytest.approx((0.5, 0.5))
    best = find_best(planned.request, space, fit_objective(planned.request, space, trained(
        sampled_proxies(planned.request, space)
    )))  # fmt: skip
    recipe = load_recipe(str(write_best_recipe(planned, space, best)))
    assert recipe.stages is not None and recipe.stages[1].sources is not None
    written = recipe.stages[1].sources
    assert [written[name].weight for name in space.names] == pytest.approx(best.tolist(), abs=1e-4)
    assert written["code"].max_share == 0.5 and recipe.sources[0].weight == 6 and recipe.stages[0].sources is None
    with pytest.raises(InputError, match="no stage `last`"):
        plan(folder, stage="last")


def test_the_objective_decides_what_is_best(folder: RunFolder) -> None:
    bests = []
    for objective in ({"code": 1.0}, {"wiki": 1.0}):
        planned = plan(folder, mixtures=24, objective=objective)
        space = space_of(planned)
        bests.append(find_best(planned.request, space, fit_objective(planned.request, space, trained(
            sampled_proxies(planned.request, space)
        ))))  # fmt: skip
    assert bests[0][2] > 0.27 and bests[1][1] > 0.45


def test_what_cannot_be_is_refused(folder: RunFolder) -> None:
    for wrong in ({"mixtures": 7}, {"heldout_mixtures": 3}, {"repeats": 0}, {"tokens": 0}, {"objective": {"web": 0.0}}):
        with pytest.raises(InputError):
            plan(folder, **wrong)
    with pytest.raises(InputError, match="`books`, which is no source"):
        plan(folder, objective={"books": 1.0})
    with pytest.raises(InputError, match="less than one step"):
        plan(folder, tokens=100)
    alone = RECIPE[: RECIPE.index("  - {name: wiki")]
    (folder.root.parent / "recipe.yaml").write_text(alone)
    with pytest.raises(RecipeError, match="nothing to search"):
        plan(folder)
    (folder.steps / "vocabulary.json").unlink()
    (folder.root.parent / "recipe.yaml").write_text(RECIPE)
    with pytest.raises(CurationError, match="`vocabulary` has not been done"):
        plan(folder)
