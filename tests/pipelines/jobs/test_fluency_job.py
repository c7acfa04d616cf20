"""The fluency job's parts, without a cluster: the gate, what is reused when it widens, and the thirds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classifiers.fluency.thirds import assign_thirds
from pipelines.jobs import worker
from pipelines.jobs.fluency import fit_thirds, loss_part, third_part
from pipelines.run_folder import RunFolder
from pipelines.stages import losses_stage
from storage.manifests import Manifest, open_dataset, write_manifest
from storage.parts import part_from_json, part_to_json
from tests.classifiers.fluency.conftest import write_tiny_llama
from tests.mixtures.tiny_run import Doc, Run

POLICY = """
format_version: 1
name: gated
gate: {{rules: [too_few_words]}}
rules:
  - {{rule: too_few_words, measure: rules.num_words, min: {least}}}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_llama(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    docs = [Doc(f"d{i}", words=i, text="the river and the mill " * (i + 1), source="ab"[i % 2]) for i in range(12)]
    return Run(tmp_path / "run", docs, 5)


def measure(run: Run, model: str, least: int) -> list[dict[str, Any]]:
    """The losses of all rows, under a gate that asks for `least` words; published as the job does."""
    policy = run.root / f"policy-{least}.yaml"
    policy.write_text(POLICY.format(least=least))
    stage = losses_stage(model, None).identity()
    folder, parts = RunFolder(run.root), []
    for part in run.documents.parts:
        told = {"root": str(run.root), "policy": str(policy), "stages": [stage], "model": model, "tokenizer": None}
        parts.append(part_from_json(loss_part({**told, "part": part_to_json(part)})["parts"][0]))
    write_manifest(folder.losses, Manifest(kind="losses", identity=str(least), stage={}, parts=tuple(parts)))
    dataset = open_dataset(folder.losses)
    return [row["fluency"] for part in parts for row in dataset.read(part).to_pylist()]


def test_only_admitted_documents_are_read(run: Run, model: str) -> None:
    rows = measure(run, model, 8)
    assert [row["loss"] is not None for row in rows] == [i >= 8 for i in range(12)]
    assert all(row["reason"] is None for row in rows)


def test_a_wider_gate_measures_only_the_new_rows(run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = measure(Run(run.root.parent / "fresh", run.docs, 5), model, 4)
    seen: list[int] = []
    opened = worker.worker_function

    def counting(stage: Any) -> Any:
        function = opened(stage)

        def call(batch: Any) -> Any:
            seen.append(len(batch) - batch.column("text").null_count)
            return function(batch)

        return call

    monkeypatch.setattr(worker, "worker_function", counting)
    measure(run, model, 8)
    assert sum(seen) == 4
    assert measure(run, model, 4) == fresh, "reuse changes nothing"
    assert sum(seen) == 8, "the four of before were not read again"


def fit(run: Run, *, refit: bool = False) -> dict[str, Any]:
    return fit_thirds({"root": str(run.root), "stage": "s", "refit": refit})


def test_thirds_are_of_each_source_and_kept(run: Run, model: str) -> None:
    rows = measure(run, model, 4)
    found = fit(run)
    assert found["distribution"]["a"]["count"] == found["distribution"]["b"]["count"] == 4
    assert found["distribution"]["a"]["loss_99.5"] == max(row["loss"] for row in rows[4::2])
    assert set(found["distribution"]["a"]) == {f"loss_{p}" for p in ("99.5", "99", "95", "90", "80", "70")} | {"count"}
    folder, thirds = RunFolder(run.root), []
    for ours, theirs in zip(run.documents.parts, open_dataset(folder.losses).parts, strict=True):
        told = {"root": str(run.root), "limits": found["limits"], "documents": part_to_json(ours)}
        part = part_from_json(third_part({**told, "losses": part_to_json(theirs)})["part"])
        table = run.documents.__class__(folder.fluency, open_dataset(folder.losses).manifest).read(part)
        thirds += [row["fluency"]["third"] for row in table.to_pylist()]
    assert thirds[:4] == [None] * 4
    for side in (4, 5):
        ranked = sorted((rows[i]["loss"], thirds[i]) for i in range(side, 12, 2))
        assert [third for _, third in ranked] == ["high", "high", "middle", "low"]
    measure(run, model, 0)
    assert fit(run)["limits"] == found["limits"]
    assert fit(run, refit=True)["limits"] != found["limits"]


def test_a_third_ends_at_its_limit_and_a_missing_loss_has_none() -> None:
    loss = np.array([1.0, 1.5, 2.0, math.nan, 5.0])
    assert assign_thirds(["a"] * 5, loss, {"a": (1.0, 2.0)}).to_pylist() == ["high", "middle", "middle", None, "low"]
    with pytest.raises(KeyError):
        assign_thirds(["b"], np.array([1.0]), {"a": (1.0, 2.0)})
