"""Longer contexts: the NTK base by its defining property, stages that train on, and a toy that finds what it read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from storage.errors import InputError, ModelError
from trainer.checkpoints.trained import Trained, open_trained
from trainer.cli import main
from trainer.extension import ntk_base, plan_stages, rotary_size
from trainer.models.gpt_neo import GPTNeoConfig
from trainer.models.layers import Rotary


@pytest.fixture(scope="module")
def opened(trained: Path) -> Trained:
    return open_trained(trained)


def test_the_slowest_rotation_covers_the_longer_text_as_it_did_the_shorter() -> None:
    size, base = 32, 10_000.0
    longer = Rotary(size, 4 * 256, ntk_base(base, 4.0, size))
    shorter = Rotary(size, 256, base)
    slow = size // 2 - 1
    angle = torch.acos(shorter.cosine[255, slow])
    assert float(torch.acos(longer.cosine[4 * 255, slow])) == pytest.approx(float(angle), rel=1e-3)
    torch.testing.assert_close(longer.cosine[:256, 0], shorter.cosine[:, 0])


def test_stages_are_planned_from_the_model(opened: Trained) -> None:
    stages = plan_stages(opened, [64, 128], ["ntk", "50000"], [Path("a")])
    size = rotary_size(opened.model.config)
    assert [stage.rope_base for stage in stages] == [pytest.approx(ntk_base(10_000.0, 2.0, size)), 50_000.0]
    assert [(stage.length, stage.data) for stage in stages] == [(64, Path("a")), (128, Path("a"))]
    for lengths, bases, told in (
        ([32], ["ntk"], "must grow from 32"),
        ([64, 64], ["ntk"], "must grow"),
        ([64], ["much"], "`much` is no RoPE base"),
        ([64, 128, 256], ["1e4", "2e4"], "2 values of `--rope-base` for 3 stages"),
    ):
        with pytest.raises(InputError, match=told):
            plan_stages(opened, lengths, bases, [Path("a")])


def test_learned_positions_cannot_grow() -> None:
    config = GPTNeoConfig(vocabulary_size=9, hidden_size=8, num_layers=1, num_heads=2, max_positions=8, ffn_size=8)
    with pytest.raises(ModelError, match="has learned a vector for each position"):
        rotary_size(config)


def test_the_command_trains_the_stages_and_measures_both_lengths(
    trained: Path, mixture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "longer"
    command = ["extend", "--checkpoints", str(trained), "--data", str(mixture_folder), "--out", str(out)]
    command += ["--lengths", "64", "128", "--steps", "2", "--learning-rate", "1e-3", "--device", "cpu"]
    assert main(command) == 0
    row = json.loads((out / "extension.json").read_text())["stages"]
    assert [stage["length"] for stage in row] == [32, 64, 128]
    assert [[score["length"] for score in stage["scores"]] for stage in row] == [[32, 64], [32, 64], [32, 64, 128]]
    last = open_trained(out / "length-0000128")
    assert last.model.config.max_positions == 128 and last.training.sequence_length == 128
    assert last.training.global_batch * 128 == 4 * 32
    assert last.model.config.rope_base > open_trained(out / "length-0000064").model.config.rope_base > 10_000
    capsys.readouterr()
    assert main(command) == 0 and capsys.readouterr().out.count("finished already") == 2
