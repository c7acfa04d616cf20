"""Presets say everything wrong with them at once; learning rates follow Megatron's closed forms."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi
from pathlib import Path

import pytest

from storage.errors import RecipeError
from trainer.schedules import effective_steps, learning_rate_at
from trainer.settings import DECAYS, PRESETS, Preset, load_preset

MakePreset = Callable[..., Preset]


@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_shipped_presets_load(name: str) -> None:
    preset = load_preset(name, {"seed": 5})
    assert preset.name == name and preset.training.seed == 5


def test_everything_wrong_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = (PRESETS / "tiny.yaml").read_text().replace("num_heads: 3\n", "num_heads: three\n", 1)
    path.write_text(text.replace("  ffn_size: 512\n", "") + "  learning_rat: 1\n  schedule: sawtooth\n")
    with pytest.raises(RecipeError) as caught:
        load_preset(str(path))
    told = str(caught.value)
    line = 1 + path.read_text().splitlines().index("  num_heads: three")
    for part in (
        f"line {line}: `num_heads` is 'three'; it must be of type int",
        "`ffn_size` is missing from `model`",
        "`learning_rat` is not a key of `training`",
        "`schedule` is `sawtooth`; it must be one of cosine, linear, constant, wsd",
        f"at: {path}",
        "hint: ",
    ):
        assert part in told


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("  kind: elman\n", "line 2: `kind` is `elman`; it must be one of llama"),
        ("  num_kv_heads: 2\n", "`num_kv_heads` is 2; num_heads must be a multiple of it"),
        ("  num_kv_heads: 0\n", "`num_kv_heads` is 0; it must be at least 1"),
    ],
)
def test_shapes_that_no_model_has_are_refused(tmp_path: Path, line: str, message: str) -> None:
    text = (PRESETS / "tiny.yaml").read_text()
    text = text[text.index("model:") :].replace("  num_kv_heads: 3\n", "" if "kv" in line else "  num_kv_heads: 3\n")
    (tmp_path / "mine.yaml").write_text(text.replace("model:\n", f"model:\n{line}"))
    with pytest.raises(RecipeError, match=message):
        load_preset(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sequence_length": 4_096}, "the model has 512 positions"),
        ({"global_batch": 0}, "must be at least 1"),
        ({"keep": 1}, "must be at least 2"),
        ({"learning_rate": -1.0}, "must be positive"),
        ({"warmup_fraction": 2.0}, "between 0 and 1"),
        ({"precision": "fp8"}, "one of auto, bf16, fp32"),
        ({"warmup_tokens": -1}, "must not be negative"),
        ({"train_tokens": 0}, "must be at least 1"),
        ({"train_samples": 100, "train_tokens": 5}, "is told beside `train_samples`"),
        ({"decay_steps": 100, "decay_tokens": 5}, "is told beside `decay_steps`"),
    ],
)
def test_impossible_values_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_preset("tiny", changes)


@pytest.mark.parametrize("text", ["model: [", "- 1", "model: {}", "model: {}\ntraining: 3", "a: 1\ntraining: {}"])
def test_other_yaml_is_not_a_preset(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(RecipeError):
        load_preset(str(tmp_path / "x.yaml"))


def test_a_missing_preset_names_those_there_are() -> None:
    with pytest.raises(RecipeError, match="no preset `huge`") as caught:
        load_preset("huge")
    assert ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml"))) in str(caught.value)


def rates(make_preset: MakePreset, **changes: object) -> list[float]:
    config = make_preset(learning_rate=1.0, min_learning_rate=0.1, **changes).training
    return [learning_rate_at(step, 100, config) for step in range(1, 101)]


def test_cosine_with_warmup(make_preset: MakePreset) -> None:
    found = rates(make_preset, schedule="cosine", warmup_fraction=0.2)
    assert found[:20] == pytest.approx([step / 20 for step in range(1, 21)])
    assert found[20:] == pytest.approx([0.1 + 0.45 * (1 + cos(pi * k / 80)) for k in range(1, 81)])


def test_linear_and_constant(make_preset: MakePreset) -> None:
    linear = rates(make_preset, schedule="linear", warmup_fraction=0.0)
    assert linear == pytest.approx([1 - 0.9 * k / 100 for k in range(1, 101)])
    assert rates(make_preset, schedule="constant", warmup_fraction=0.0) == [1.0] * 100


@pytest.mark.parametrize("decay", DECAYS)
def test_wsd_is_flat_until_its_tail(make_preset: MakePreset, decay: str) -> None:
    found = rates(make_preset, schedule="wsd", warmup_fraction=0.1, decay_fraction=0.25, decay=decay)
    assert found[9:75] == [1.0] * 66
    assert found[-1] == pytest.approx(0.1)
    remaining = {"linear": 0.4, "cosine": 0.5 * (1 + cos(pi * 0.6)), "exponential": 2 * 0.5**0.6 - 1}
    expected = remaining.get(decay, 1 - 0.6**0.5)
    assert found[75 + 15 - 1] == pytest.approx(0.1 + 0.9 * expected)


def test_without_steps_a_run_is_one_pass(make_preset: MakePreset) -> None:
    config = make_preset(steps=None).training
    assert effective_steps(config, 32 * 4 * 10 + 1) == 10
    assert effective_steps(config, 32 * 4 * 10) == 9
    assert effective_steps(config, 5) == 1
    assert effective_steps(make_preset(steps=7).training, 5) == 7


def test_lengths_are_told_in_steps_samples_or_tokens(make_preset: MakePreset) -> None:
    for told in ({"steps": 9}, {"train_samples": 39}, {"train_tokens": 9 * 4 * 32 + 5}):
        config = make_preset(**{"steps": None, **told}).training
        assert effective_steps(config, 10**9) == 9


def test_a_length_on_the_command_line_replaces_the_presets_own() -> None:
    training = load_preset("tiny", {"train_tokens": 256 * 4 * 20, "warmup_samples": 8}).training
    assert (training.steps, training.train_tokens) == (None, 20_480)
    assert (training.warmup_fraction, training.warmup_samples) == (0.05, 8)
    assert effective_steps(training, 1) == 20


def test_warmup_counts_samples_as_openseek_does(make_preset: MakePreset) -> None:
    """OpenSeek-Small-v1-Baseline: 3e-3 after 2,048,000 samples at 1,024 a step; its log's first line says 1.5e-6."""
    changes = {"learning_rate": 3e-3, "min_learning_rate": 3e-4, "global_batch": 1024, "sequence_length": 4096}
    for told in ({"warmup_samples": 2_048_000}, {"warmup_tokens": 2_048_000 * 4096}, {"warmup_steps": 2000}):
        config = make_preset(**changes, **told).training
        assert learning_rate_at(1, 24_000, config) == pytest.approx(1.5e-6)
        assert learning_rate_at(2000, 24_000, config) == 3e-3
        assert learning_rate_at(13_000, 24_000, config) == pytest.approx(1.65e-3)
        assert learning_rate_at(24_000, 24_000, config) == pytest.approx(3e-4)


def test_a_warmup_may_end_between_two_steps(make_preset: MakePreset) -> None:
    config = make_preset(learning_rate=1.0, schedule="constant", warmup_samples=10).training
    assert [learning_rate_at(step, 9, config) for step in (1, 2, 3)] == pytest.approx([0.4, 0.8, 1.0])


def test_the_fall_of_wsd_in_samples_and_tokens(make_preset: MakePreset) -> None:
    for told in ({"decay_steps": 20}, {"decay_samples": 80}, {"decay_tokens": 80 * 32}):
        found = rates(make_preset, schedule="wsd", warmup_fraction=0.0, **told)
        assert found[:80] == [1.0] * 80
        assert found[80:] == pytest.approx([1 - 0.9 * k / 20 for k in range(1, 21)])
