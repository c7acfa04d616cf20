"""Every step stands once in each record of a run, however often it was resumed; absent packages are told plainly."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from storage.errors import EnvironmentMismatch
from trainer import metrics
from trainer.data.mixture import open_mixture
from trainer.metrics import StepMetrics, listeners, read_metrics
from trainer.parallel.world import join_world
from trainer.plans import make_plan
from trainer.settings import Preset
from trainer.train import Run

MakePreset = Callable[..., Preset]


def learn(data: Path, preset: Preset, out: Path, until: int | None = None) -> Run:
    """Train; with `until`, leave off after that step as a killed process does."""
    mixture = open_mixture(data)
    with join_world("cpu") as world:
        run = Run(mixture, make_plan(mixture, preset, world), out, world, lambda _: None)
        run.resume()
        if until:
            save = run._save_if_due

            def stop(file: Any) -> None:
                save(file)
                if run.step == until:
                    raise KeyboardInterrupt

            run._save_if_due = stop  # type: ignore[method-assign]
        try:
            run.train()
        except KeyboardInterrupt:
            pass
    return run


def test_a_resumed_table_has_each_step_once(mixture_folder: Path, tmp_path: Path, make_preset: MakePreset) -> None:
    preset = make_preset(steps=12, save_every=5, evaluate_every=4, z_loss=1e-3, dropout=0.1, dropout_start=0.5)
    learn(mixture_folder, preset, tmp_path, until=8)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 8
    assert pq.read_table(tmp_path / "metrics.parquet")["step"].to_pylist() == [1, 2, 3, 4, 5]
    learn(mixture_folder, preset, tmp_path)
    table = pq.read_table(tmp_path / "metrics.parquet")
    assert table["step"].to_pylist() == list(range(1, 13))
    assert table["loss"].to_pylist() == [row["loss"] for row in read_metrics(tmp_path / "metrics.jsonl")]
    measured = [
        step for step, bits in zip(range(1, 13), table["heldout.a"].to_pylist(), strict=True) if bits is not None
    ]
    assert measured == [4, 8, 12]
    assert table["dropout"].to_pylist() == [0.0] * 6 + [0.1] * 6
    assert all(0 < x < 0.1 for x in table["part.z_loss"].to_pylist())


def test_evaluation_on_the_way_changes_nothing(mixture_folder: Path, tmp_path: Path, make_preset: MakePreset) -> None:
    for name, every in (("plain", 0), ("measured", 2)):
        learn(mixture_folder, make_preset(steps=6, evaluate_every=every, dropout=0.2), tmp_path / name)
    plain, measured = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("plain", "measured"))
    assert [row["loss"] for row in plain] == [row["loss"] for row in measured]
    assert set(measured[1]["heldout"]) == {"a", "b"} and measured[0]["heldout"] == {}


def test_tensorboard_is_told_from_where_the_run_goes_on(
    mixture_folder: Path, tmp_path: Path, make_preset: MakePreset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its readers purge what stands from `purge_step` on (tensorboard's EventAccumulator), so each step shows once."""
    shown: dict[int, float] = {}

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            assert folder == str(tmp_path / "tensorboard")
            for step in [step for step in shown if step >= purge_step]:
                del shown[step]

        def add_scalar(self, name: str, value: float, step: int) -> None:
            if name == "loss":
                assert step not in shown
                shown[step] = value

        def close(self) -> None:
            return None

    monkeypatch.setattr(metrics, "_optional", lambda *_: SimpleNamespace(SummaryWriter=Writer))
    preset = make_preset(steps=12, save_every=5, tensorboard=True)
    learn(mixture_folder, preset, tmp_path, until=8)
    learn(mixture_folder, preset, tmp_path)
    assert shown == {row["step"]: row["loss"] for row in read_metrics(tmp_path / "metrics.jsonl")}


def test_wandb_is_offline_and_one_run_for_a_plan(
    tmp_path: Path, make_preset: MakePreset, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Mapping[str, Any]] = []
    run = SimpleNamespace(log=lambda scalars, step: told.append({**scalars, "at": step}), finish=lambda: None)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **options: told.append(options) or run))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for _ in range(2):
        (listener,) = listeners(tmp_path, make_preset(wandb="mill").training, {"steps": 3}, 0)
        listener.tell(1, {"loss": 2.0})
        listener.close()
    first, row, second, _ = told
    assert first["mode"] == "offline" and first["project"] == "mill" and first["id"] == second["id"]
    assert row == {"loss": 2.0, "at": 1}


@pytest.mark.parametrize("asked", [{"tensorboard": True}, {"wandb": "mill"}])
def test_an_absent_package_is_told_plainly(
    tmp_path: Path, make_preset: MakePreset, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    for name in ("torch.utils.tensorboard", "tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EnvironmentMismatch, match="is not installed here") as caught:
        listeners(tmp_path, make_preset(**asked).training, {}, 0)
    assert "pip install" in str(caught.value)


def test_a_trace_of_the_steps_that_were_asked_for(
    mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    learn(mixture_folder, make_preset(steps=5, profile="2-3,5", profile_memory=True), tmp_path)
    assert sorted(path.name for path in (tmp_path / "profile").iterdir()) == [
        "steps-2-3-process-0.json.gz",
        "steps-5-5-process-0.json.gz",
    ]


def test_numbers_that_are_none_are_null() -> None:
    row = StepMetrics(
        step=1, tokens=1, consumed_samples=1, loss=float("nan"), lr=0.1, grad_norm=None, seconds=1, tokens_per_second=1
    )
    assert row.row()["loss"] is None and "loss" not in row.scalars() and row.scalars()["lr"] == 0.1


def test_dropout_starts_late_and_is_the_same_again(
    mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    changes = {"steps": 8, "save_every": 2, "keep": 9}
    runs = {
        "none": make_preset(**changes),
        "late": make_preset(**changes, dropout=0.3, dropout_start=0.5),
        "always": make_preset(**changes, dropout=0.3),
    }
    losses = {}
    for name, preset in runs.items():
        learn(mixture_folder, preset, tmp_path / name)
        losses[name] = [row["loss"] for row in read_metrics(tmp_path / name / "metrics.jsonl")]
    assert losses["late"][:4] == losses["none"][:4] and losses["late"][4] != losses["none"][4]
    assert losses["always"][0] != losses["none"][0]
    learn(mixture_folder, runs["late"], tmp_path / "again", until=6)
    learn(mixture_folder, runs["late"], tmp_path / "again")
    assert [row["loss"] for row in read_metrics(tmp_path / "again/metrics.jsonl")] == losses["late"]


def test_recomputation_changes_no_bit(mixture_folder: Path, tmp_path: Path, make_preset: MakePreset) -> None:
    found = []
    for recompute in (False, True):
        run = learn(mixture_folder, make_preset(steps=3, recompute=recompute, dropout=0.2), tmp_path / str(recompute))
        found.append([parameter.detach().clone() for parameter in run.share.parameters().values()])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
