"""The classifying job's parts, without a cluster: one pass for all scorers, what is reused, and buckets."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classifiers.scorers.stage import scorer_stage
from pipelines.jobs import classify
from pipelines.jobs.classify import _gated, classify_part, fit_thresholds, identify, tell_part
from pipelines.run_folder import RunFolder
from storage.identity import fingerprint
from storage.manifests import Manifest, write_manifest
from storage.parts import part_from_json, part_to_json
from tests.classifiers.scorers.conftest import BAD, GOOD, write_classifier, write_fasttext
from tests.mixtures.tiny_run import Doc, Run

POLICY = """
format_version: 1
name: gated
gate: {{rules: [too_few_words]}}
rules:
  - {{rule: too_few_words, measure: rules.num_words, min: {least}}}
"""
DOMAINS = {0: "Sports", 1: "Science", 2: "Adult"}
NUMBER = 30


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "edu": f"edu={write_classifier(folder / 'edu')}",
        "domain": f"domain={write_classifier(folder / 'domain', DOMAINS, seed=2)}",
        "dclm": f"dclm={write_fasttext(folder / 'dclm.bin')}:positive=__label__hq",
    }


@pytest.fixture
def run(tmp_path: Path) -> Run:
    draw = random.Random(1)
    texts = [" ".join(draw.choices(GOOD + BAD, k=20 + i)) for i in range(NUMBER)]
    docs = [Doc(f"d{i}", words=i, text=text, source="ab"[i % 2]) for i, text in enumerate(texts)]
    return Run(tmp_path / "run", docs, 7)


@pytest.fixture
def read_by(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[int]]:
    """How many texts each model was given, by the open model."""
    seen: Counter[int] = Counter()
    measure = classify.measure_together

    def counting(scorers: Any, batches: Any) -> Any:
        for scorer, batch in zip(scorers, batches, strict=True):
            seen[id(scorer)] += len(batch) - batch.column("text").null_count
        return measure(scorers, batches)

    monkeypatch.setattr(classify, "measure_together", counting)
    yield seen


def score(run: Run, *asked: str, least: int = 0, ranked: tuple[str, ...] = (), refit: bool = False) -> Any:
    """What every scorer tells of each row, as the job publishes it, and what it says of each scorer."""
    policy = run.root / f"policy-{least}.yaml"
    policy.write_text(POLICY.format(least=least))
    folder, scorers = RunFolder(run.root), identify(asked)
    gated = _gated(run.root, scorers)
    told = {
        "root": str(run.root),
        "policy": str(policy),
        "scorers": scorers,
        "stages": [g.stage.identity() for g in gated],
    }
    results = [classify_part({**told, "part": part_to_json(part)})["parts"] for part in run.documents.parts]
    for i, one in enumerate(gated):
        parts = tuple(part_from_json(parts[i]) for parts in results)
        write_manifest(one.folder, Manifest(kind="scorer", identity=fingerprint(str(parts)), stage={}, parts=parts))
    fitted = fit_thresholds({**told, "ranked": ranked, "refit": refit})["fitted"]
    rows = []
    by_stage = dict(zip(told["stages"], zip(*results, strict=True), strict=True))
    for i, part in enumerate(run.documents.parts):
        outputs = [by_stage[one.stage][i] for one in scorers]
        described = {"asked": list(asked), "fitted": fitted}
        more = {"ranked": ranked, "fitted": fitted, "described": described, "outputs": outputs}
        done = part_from_json(tell_part({**told, **more, "part": part_to_json(part)})["part"])
        rows += open_dataset_part(folder, done)
    return rows, {one["name"]: one for one in fitted}


def open_dataset_part(folder: RunFolder, part: Any) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return [row["scores"] for row in pq.read_table(folder.scores / part.file).to_pylist()]


def test_all_scorers_tell_of_what_the_gate_admits(run: Run, models: dict[str, str]) -> None:
    rows, fitted = score(run, *models.values(), least=10)
    assert [row["edu"]["value"] is not None for row in rows] == [i >= 10 for i in range(NUMBER)]
    assert {name: set(row) for name, row in rows[0].items()} == {
        "edu": {"value", "bucket"}, "domain": {"label", "score"}, "dclm": {"value", "bucket"},
    }  # fmt: skip
    assert {row["domain"]["label"] for row in rows[10:]} <= set(DOMAINS.values())
    assert all(0 <= row["dclm"]["value"] <= 1.01 for row in rows[10:])
    assert max(row["dclm"]["bucket"] for row in rows[10:]) == 19
    assert fitted["domain"]["thresholds"] is None and sum(fitted["edu"]["shares"]) == pytest.approx(1)
    assert fitted["edu"]["sample"] == 20


def test_a_text_is_read_once_and_a_scorer_more_reads_for_itself_alone(
    run: Run, models: dict[str, str], read_by: Counter[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = count_passes(run, monkeypatch)
    first, _ = score(run, models["edu"], models["dclm"])
    assert len(passes) == len(run.documents.parts), "one pass of the text for both"
    assert set(read_by.values()) == {NUMBER}
    again, _ = score(run, models["edu"], models["dclm"] + ",scale=5", "good=" + models["edu"].partition("=")[2])
    assert len(passes) == len(run.documents.parts), "another name, scale or class reads no text"
    assert [row["dclm"]["value"] for row in again] == pytest.approx([5 * row["dclm"]["value"] for row in first])
    assert [row["dclm"]["bucket"] for row in again] == [row["dclm"]["bucket"] for row in first]
    assert [row["good"] for row in again] == [row["edu"] for row in first]
    score(run, models["edu"], models["domain"])
    assert set(read_by.values()) == {NUMBER} and len(read_by) == 3


def count_passes(run: Run, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Each time that a part's texts are read for scorers."""
    from pipelines.jobs import gated

    seen: list[Any] = []
    measure = gated._measure
    monkeypatch.setattr(gated, "_measure", lambda *given: seen.append(given) or measure(*given))
    return seen


def test_a_wider_gate_reads_only_the_new_rows(run: Run, models: dict[str, str], read_by: Counter[int]) -> None:
    fresh, _ = score(Run(run.root.parent / "fresh", run.docs, 7), models["edu"], least=5)
    read_by.clear()
    score(run, models["edu"], least=20)
    widened, _ = score(run, models["edu"], least=5)
    assert list(read_by.values()) == [25]
    assert [row["edu"]["value"] for row in widened] == [row["edu"]["value"] for row in fresh]


def test_buckets_rank_the_sources_that_are_named_and_stay(run: Run, models: dict[str, str]) -> None:
    rows, fitted = score(run, models["edu"], ranked=("a",))
    assert fitted["edu"]["sample"] == NUMBER // 2
    values = np.array([row["edu"]["value"] for row in rows])
    assert rows[int(values[::2].argmin())]["edu"]["bucket"] >= 0
    narrowed, kept = score(run, models["edu"], least=20, ranked=("a",))
    assert kept["edu"]["thresholds"] == fitted["edu"]["thresholds"]
    assert [row["edu"]["bucket"] for row in narrowed[20:]] == [row["edu"]["bucket"] for row in rows[20:]]
    assert (
        score(run, models["edu"], least=20, ranked=("a",), refit=True)[1]["edu"]["thresholds"]
        != kept["edu"]["thresholds"]
    )


def test_a_gate_that_admits_nothing_leaves_nothing_told(run: Run, models: dict[str, str]) -> None:
    rows, fitted = score(run, models["edu"], models["domain"], least=1000)
    assert all(
        row == {"edu": {"value": None, "bucket": None}, "domain": {"label": None, "score": None}} for row in rows
    )
    assert fitted["edu"]["thresholds"] is None


def test_two_scorers_of_one_model_share_its_stage(models: dict[str, str]) -> None:
    path = models["domain"].partition("=")[2]
    scorers = identify([f"a={path}", f"b={path}:positive=Science"])
    assert scorers[0].stage == scorers[1].stage == scorer_stage(path).identity()
    assert len(_gated(Path("x"), scorers)) == 1
