"""Longer contexts: the NTK base by its defining property, stages that train on, and a toy that finds what it read."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from storage.errors import InputError, ModelError
from tests.trainer.mixtures import write_texts
from trainer.checkpoints.trained import Trained, open_trained
from trainer.cli import main
from trainer.extension import ntk_base, plan_stages, rotary_size
from trainer.models.gpt_neo import GPTNeoConfig
from trainer.models.layers import Rotary
from trainer.settings import Preset
from trainer.train import train


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


WORDS = "mill river stone rye bread wheel night morning king road horse song water fire tree bird house door".split()
BASE_STEPS, STAGE_STEPS = 800, 120


def tell_secret(chance: random.Random, words: int) -> str:
    """Sixteen sentences in any order; a number between them that is said again and again."""
    fixed = random.Random(5)
    lines = [f"The {' '.join(fixed.choices(WORDS, k=5))}." for _ in range(16)]
    body = [chance.choice(lines) for _ in range(max(2, words // 7))]
    secret = f"\nThe secret number is {chance.randint(10_000, 99_999)}.\n"
    for place in sorted(chance.choices(range(len(body)), k=max(2, len(body) // 4)), reverse=True):
        body.insert(place, secret)
    return " ".join(body) + secret.rstrip()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_toy_grows_to_four_times_its_length_and_keeps_the_short_one(
    tmp_path: Path, make_preset: Callable[..., Preset]
) -> None:
    """256 to 512 to 1,024 tokens, some CPU minutes: the figures of the guide, and no loss at the first length."""
    chance = random.Random(1)
    held = [tell_secret(chance, chance.randint(300, 480)) for _ in range(20)]
    data: list[Path] = []
    for name, longest, count in (("short", 110, 6000), ("middle", 230, 1500), ("long", 480, 800)):
        texts = [tell_secret(chance, chance.randint(10, longest)) for _ in range(count)]
        data.append(write_texts(tmp_path / name, texts, held, like=data[0] if data else None))
    fields: dict[str, Any] = {
        "steps": BASE_STEPS, "sequence_length": 256, "global_batch": 8, "micro_batch": 8, "learning_rate": 3e-3,
        "precision": "auto", "save_every": 10_000,
    }  # fmt: skip
    shape = {"hidden_size": 128, "num_layers": 2, "num_heads": 4, "num_kv_heads": 4, "ffn_size": 256}
    preset = Preset(name="toy", model={**shape, "max_positions": 256}, training=make_preset(**fields).training)
    train(data[0], preset, tmp_path / "base", tell=lambda _: None)
    hay = tmp_path / "hay.txt"
    hay.write_text(" ".join(tell_secret(chance, 110).partition("\n")[0] for _ in range(200)))
    command = ["extend", "--checkpoints", str(tmp_path / "base"), "--out", str(tmp_path / "longer")]
    command += ["--data", *map(str, data[1:]), "--lengths", "512", "1024", "--haystack", str(hay)]
    assert main([*command, "--steps", str(STAGE_STEPS), "--learning-rate", "1e-3"]) == 0
    stages = json.loads((tmp_path / "longer" / "extension.json").read_text())["stages"]
    first, last = ({score["length"]: score for score in stage["scores"]} for stage in (stages[0], stages[-1]))
    print(json.dumps(stages))
    assert set(first) == {256} and set(last) == {256, 512, 1024}
    assert last[256]["bits_per_byte"] <= first[256]["bits_per_byte"] * 1.03
    assert last[1024]["bits_per_byte"] <= first[256]["bits_per_byte"]
    assert all(0 <= score["needles"] <= 1 for score in last.values())
