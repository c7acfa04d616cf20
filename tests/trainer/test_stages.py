"""Stages go on from checkpoints as OLMo's do: rates inferred, ingredients by seed, and their average."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from storage.errors import InputError, ModelError
from trainer.checkpoints.folders import open_checkpoint
from trainer.cli import main
from trainer.metrics import read_metrics
from trainer.registry.anneal import anneal_preset
from trainer.registry.record import row_of
from trainer.registry.rows import run_folders
from trainer.registry.search import list_checkpoints, resolve
from trainer.registry.soup import average, cook_soup
from trainer.settings import Preset
from trainer.train import train

MakePreset = Callable[..., Preset]


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory: pytest.TempPathFactory, mixture_folder: Path, make_preset: MakePreset) -> Path:
    """16 steps of a cosine from 1e-2 to 1e-3, whose last rate is not zero."""
    preset = make_preset(steps=16, save_every=8, min_learning_rate=1e-3)
    return train(mixture_folder, preset, tmp_path_factory.mktemp("stages") / "long", tell=lambda _: None)


@pytest.fixture(scope="module")
def ingredients(first_stage: Path, mixture_folder: Path) -> Path:
    """Three anneals of 8 steps from the first stage's end, as OLMo's seeds have it."""
    out = first_stage.parent / "anneals"
    words = ["--from", str(first_stage), "--data", str(mixture_folder), "--out", str(out), "--steps", "8"]
    assert main(["anneal", *words, "--seeds", "42,666,42069", "--save-every", "4"]) == 0
    return out


def test_an_anneal_starts_at_the_rate_where_the_stage_stopped_and_ends_at_zero(ingredients: Path) -> None:
    names = []
    for number, seed in enumerate((42, 666, 42069), start=1):
        out = ingredients / f"ingredient{number}"
        rates = [row["lr"] for row in read_metrics(out / "metrics.jsonl")]
        assert rates == pytest.approx([1e-3 * (1 - step / 8) for step in range(1, 9)])
        row = row_of(out / "iter_0000008")
        assert (row.seed, row.ingredient, row.stage, row.lr) == (seed, number, 2, 0.0)
        assert [parent.name for parent in row.parents] == ["stage1-step16-tokens3K"]
        assert (row.tokens, row.tokens_in_all) == (8 * 128, 24 * 128)
        names.append(row.name)
    assert names == [f"stage2-ingredient{number}-step8-tokens2K" for number in (1, 2, 3)]


def test_ingredients_start_from_the_same_weights_and_see_other_data(first_stage: Path, ingredients: Path) -> None:
    before = torch.cat([t.flatten() for t in open_checkpoint(first_stage / "iter_0000016").model().values()])
    losses = [read_metrics(ingredients / f"ingredient{n}/metrics.jsonl")[0]["loss"] for n in (1, 2, 3)]
    assert len(set(losses)) == 3
    for number in (1, 2, 3):
        after = open_checkpoint(ingredients / f"ingredient{number}/iter_0000008").model().values()
        assert 0 < float((torch.cat([t.flatten() for t in after]) - before).norm() / before.norm()) < 0.5


def test_an_anneal_from_an_anneal_goes_on_at_its_rate(ingredients: Path, first_stage: Path) -> None:
    half_way = ingredients / "ingredient2/iter_0000004"
    preset = anneal_preset(half_way, {})
    assert preset.training.learning_rate == pytest.approx(1e-3 * 0.5)
    assert (preset.training.schedule, preset.training.warmup_fraction, preset.training.steps) == ("linear", 0.0, None)
    assert preset.training.stage == 0 and preset.training.ingredient == 0
    with pytest.raises(ModelError, match="stopped at a learning rate of 0: there is nothing left to fall from"):
        anneal_preset(ingredients / "ingredient2/iter_0000008", {})
    assert (
        anneal_preset(ingredients / "ingredient2/iter_0000008", {"learning_rate": 1e-4}).training.learning_rate == 1e-4
    )


def test_longer_sequences_raise_the_positions_and_the_base(first_stage: Path) -> None:
    preset = anneal_preset(first_stage / "iter_0000016", {"sequence_length": 256}, rope_base=500_000.0)
    assert preset.model["max_positions"] == 256 and preset.model["rope_base"] == 500_000.0


def test_the_average_is_the_mean_of_the_weights_and_a_checkpoint_like_others(
    ingredients: Path, mixture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [str(ingredients / f"stage2-ingredient{number}-step8-tokens2K") for number in (1, 2, 3)]
    assert main(["soup", *names, "--out", str(tmp_path / "soup")]) == 0
    assert "stage2-soup-step8-tokens2K" in capsys.readouterr().out
    models = [open_checkpoint(resolve(name)).model() for name in names]
    soup = open_checkpoint(tmp_path / "soup/iter_0000008").model()
    for name, tensor in soup.items():
        exact = torch.stack([model[name].double() for model in models]).mean(0)
        assert float((tensor.double() - exact).abs().max()) < 1e-7
    row = row_of(tmp_path / "soup/iter_0000008")
    assert (row.kind, row.stage, row.tokens_in_all) == ("soup", 2, 24 * 128)
    assert [(parent.name, parent.weight) for parent in row.parents] == [
        (Path(n).name, pytest.approx(1 / 3)) for n in names
    ]
    assert (tmp_path / "soup" / row.parents[0].path).resolve() == (ingredients / "ingredient1/iter_0000008").resolve()
    data = ["--data", str(mixture_folder)]
    assert main(["evaluate", "--checkpoints", str(tmp_path / "soup"), *data, "--device", "cpu"]) == 0
    assert main(["export", "--checkpoints", str(tmp_path / "soup"), "--out", str(tmp_path / "hf")]) == 0
    scores = [row_of(resolve(name)).mean_bits_per_byte or 0.0 for name in names]
    souped = row_of(tmp_path / "soup/iter_0000008").mean_bits_per_byte
    assert souped is not None and souped <= sum(scores) / 3 + 1e-4
    words = ["anneal", "--from", str(tmp_path / "soup"), *data, "--out", str(tmp_path / "third"), "--steps", "2"]
    assert main(words) == 2 and "tell `--learning-rate`" in capsys.readouterr().err
    assert main([*words, "--learning-rate", "1e-4"]) == 0
    assert row_of(tmp_path / "third/iter_0000002").name == "stage3-step2-tokens1K"
    assert main(["resume", str(tmp_path / "soup")]) == 2


def test_branches_of_one_run_have_names_of_their_own(first_stage: Path, mixture_folder: Path, tmp_path: Path) -> None:
    """Each anneal without a number gets one, wherever it starts from in the run, and keeps it when it goes on."""
    start = Path(shutil.copytree(first_stage, tmp_path / "long"))
    data = ["--data", str(mixture_folder), "--steps", "2"]
    for name, step in (("a", 16), ("b", 16), ("c", 8), ("b", 16)):
        words = ["--from", str(start / f"iter_{step:07d}"), "--out", str(tmp_path / name), "--learning-rate", "1e-4"]
        assert main(["anneal", *words, *data]) == 0
    names = [one.row.name for one in list_checkpoints([tmp_path]) if one.row.stage == 2]
    assert names == [f"stage2{branch}-step2-tokens1K" for branch in ("", "-ingredient2", "-ingredient3")]
    assert resolve(f"{tmp_path}/stage2-ingredient2-step2-tokens1K") == tmp_path / "b/iter_0000002"


def test_weights_of_an_average_count_relative_to_each_other(ingredients: Path, tmp_path: Path) -> None:
    folders = [ingredients / f"ingredient{number}/iter_0000008" for number in (1, 2)]
    soup = open_checkpoint(cook_soup(folders, tmp_path / "soup", [1, 3])).model()
    one, two = (open_checkpoint(folder).model() for folder in folders)
    for name in soup:
        assert torch.allclose(soup[name].double(), 0.25 * one[name].double() + 0.75 * two[name].double(), atol=1e-7)
    with pytest.raises(InputError, match="3 weights for 2 checkpoints"):
        cook_soup(folders, tmp_path / "other", [1, 1, 1])
    with pytest.raises(InputError, match="each must be above 0"):
        cook_soup(folders, tmp_path / "other", [1, 0])
    with pytest.raises(InputError, match="is not empty"):
        cook_soup(folders, tmp_path / "soup")


def test_a_mean_of_many_small_weights_loses_nothing() -> None:
    """In float32 a running sum of 1,000 values near 1 is off by more than 1e-6."""
    values = [torch.full((4,), 1 + i * 1e-6) for i in range(1000)]
    mean = average(({"w": value} for value in values), [1 / 1000] * 1000)["w"]
    assert float((mean.double() - 1.0004995).abs().max()) < 1e-7


def test_models_that_differ_have_no_average(
    ingredients: Path, mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    wider = make_preset(steps=2)
    wider = Preset(name="wider", model={**wider.model, "ffn_size": 64}, training=wider.training)
    train(mixture_folder, wider, tmp_path / "wider", tell=lambda _: None)
    with pytest.raises(ModelError, match="ffn_size 64, not 48"):
        cook_soup([ingredients / "ingredient1/iter_0000008", tmp_path / "wider/iter_0000002"], tmp_path / "soup")
    foreign = Path(shutil.copytree(ingredients / "ingredient1", tmp_path / "foreign"))
    state = json.loads((foreign / "iter_0000008/state.json").read_text())
    state["run"]["vocabulary"] = "f" * 64
    (foreign / "iter_0000008/state.json").write_text(json.dumps(state))
    with pytest.raises(ModelError, match="vocabulary ffffffffffff…"):
        cook_soup([ingredients / "ingredient1/iter_0000008", foreign / "iter_0000008"], tmp_path / "soup")
    assert not (tmp_path / "soup").exists()


def test_the_family_is_listed_in_order(first_stage: Path, ingredients: Path) -> None:
    assert len(list(run_folders([first_stage.parent]))) == 4
    names = [one.row.name for one in list_checkpoints([first_stage.parent]) if one.is_there]
    assert names[:2] == ["stage1-step8-tokens2K", "stage1-step16-tokens3K"]
    assert names[2:4] == ["stage2-ingredient1-step4-tokens1K", "stage2-ingredient1-step8-tokens2K"]
