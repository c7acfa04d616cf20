"""Several processes give the single one's losses and checkpoints in every layout, and go on from each other's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.fsdp
import torch.distributed.pipelining  # imported before any fork  # noqa: F401

from tests.trainer.processes import run_processes
from tests.trainer.shapes import DEEPSEEK, GPT_NEO
from trainer.checkpoints.folders import checkpoint_folder, latest_checkpoint, open_checkpoint
from trainer.data.mixture import open_mixture
from trainer.metrics import read_metrics
from trainer.models.kinds import build_model
from trainer.optimizer import model_tensors
from trainer.parallel.layout import LayoutError, plan_layout
from trainer.parallel.world import join_world
from trainer.plans import make_plan
from trainer.settings import Preset
from trainer.train import Run

MakePreset = Callable[..., Preset]
STEPS = 4
EPSILON = 1e-4
"""AdamW's, so that a step grows with its gradient: with 1e-8 the last digits of one that is next to nothing decide."""

LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "data 2": (2, {}),
    "shard 2": (2, {"data_parallel_shard": 2}),
    "tensor 2": (2, {"tensor_parallel": 2}),
    "pipeline 2": (2, {"pipeline_parallel": 2, "micro_batch": 1}),
    "data 2 × tensor 2, sequence": (4, {"tensor_parallel": 2, "sequence_parallel": True}),
    "data 2 × shard 2": (4, {"data_parallel_shard": 2, "micro_batch": 1}),
    "shard 2 × tensor 2": (4, {"data_parallel_shard": 2, "tensor_parallel": 2}),
    "pipeline 2 × data 2": (4, {"pipeline_parallel": 2, "micro_batch": 1}),
    "pipeline 2 × shard 2": (4, {"pipeline_parallel": 2, "data_parallel_shard": 2, "micro_batch": 1}),
    "pipeline 2 × tensor 2, sequence": (
        4, {"pipeline_parallel": 2, "tensor_parallel": 2, "sequence_parallel": True, "micro_batch": 1},
    ),
    "pipeline 2, interleaved": (2, {"pipeline_parallel": 2, "pipeline_chunks": 2, "micro_batch": 1}),
    "expert 2": (2, {"expert_parallel": 2}),
    "data 2 × expert 2": (4, {"expert_parallel": 2, "micro_batch": 1}),
    "expert 2 × shard 2": (4, {"expert_parallel": 2, "data_parallel_shard": 2, "micro_batch": 1}),
    "pipeline 2 × expert 2": (4, {"pipeline_parallel": 2, "expert_parallel": 2, "micro_batch": 1}),
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "tied": {"num_layers": 4},
    "olmo": {"num_layers": 4, "tied_embeddings": False, "qk_norm": True, "norm_after": True},
    "experts": DEEPSEEK,
    "untied experts": {**DEEPSEEK, "tied_embeddings": False},
    "neo": GPT_NEO,
}
QUICK = [
    ("shard 2", "tied"),
    ("tensor 2", "tied"),
    ("pipeline 2, interleaved", "tied"),
    ("data 2 × tensor 2, sequence", "olmo"),
    ("expert 2 × shard 2", "experts"),
    ("pipeline 2 × expert 2", "experts"),
]
FOR_EXPERTS = [layout for layout in LAYOUTS if "tensor" not in layout]
FOR_NEO = [layout for layout in FOR_EXPERTS if "expert" not in layout]
ALL = [
    *((layout, shape) for layout in LAYOUTS for shape in ("tied", "olmo") if "expert" not in layout),
    *((layout, shape) for layout in FOR_EXPERTS for shape in ("experts", "untied experts")),
    *((layout, "neo") for layout in FOR_NEO),
]
CASES = [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in ALL if case not in QUICK)]


@pytest.fixture(scope="module")
def make_deep(make_preset: MakePreset) -> MakePreset:
    """Presets of four layers, so that they can be cut into four stages."""

    def make(shape: str = "tied", **changes: Any) -> Preset:
        preset = make_preset(**{"steps": STEPS, "save_every": 1, "keep": 9, "epsilon": EPSILON, **changes})
        model = SHAPES[shape] if "kind" in SHAPES[shape] else {**preset.model, **SHAPES[shape]}
        return Preset(name="deep", model=model, training=preset.training)

    return make


@pytest.fixture(scope="module")
def alone(mixture_folder: Path, tmp_path_factory: pytest.TempPathFactory, make_deep: MakePreset) -> dict[str, Path]:
    """What one process makes of each shape."""
    folder = tmp_path_factory.mktemp("alone")
    for shape in SHAPES:
        run_loop(mixture_folder, make_deep(shape), folder / shape)
    return {shape: folder / shape for shape in SHAPES}


def run_loop(data: Path, preset: Preset, out: Path) -> None:
    """Train to the end; then every process can put together the model that the checkpoint holds."""
    mixture = open_mixture(data)
    with join_world("cpu") as world:
        run = Run(mixture, make_plan(mixture, preset, world), out, world, lambda _: None)
        run.resume()
        run.train()
        whole = model_tensors(run.share.whole(lambda: build_model(run.plan.model)))
        saved = open_checkpoint(checkpoint_folder(out, run.plan.steps)).model()
        assert whole.keys() == saved.keys() and all(torch.equal(whole[name], saved[name]) for name in saved)


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(out / "metrics.jsonl")]


EXPERTS = {
    "kind": "deepseek_v3", "hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_positions": 64,
    "kv_latent_size": 16, "qk_size": 8, "qk_rope_size": 4, "v_size": 8, "ffn_size": 48, "num_dense_layers": 0,
    "expert_ffn_size": 16, "shared_ffn_size": 16, "num_experts": 8, "experts_per_token": 2, "num_predictors": 1,
    "bias_update_rate": 0.05, "balance_coefficient": 0.01,
}  # fmt: skip


def test_experts_are_balanced_by_the_load_of_all_processes_and_batches(
    mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    alone, shared = (
        Preset(name="experts", model=EXPERTS, training=make_preset(steps=STEPS, micro_batch=size).training)
        for size in (4, 1)
    )
    run_loop(mixture_folder, alone, tmp_path / "alone")
    run_processes(2, lambda _: run_loop(mixture_folder, shared, tmp_path / "two"), tmp_path / "logs")
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "alone"), rel=1e-5)
    biases = [
        {name: tensor for name, tensor in latest_checkpoint(tmp_path / run).model().items() if "bias_E" in name}  # type: ignore[union-attr]
        for run in ("alone", "two")
    ]
    assert len(biases[0]) == 3
    for name, tensor in biases[0].items():
        assert float(tensor.abs().max()) > 0.09 and torch.equal(tensor, biases[1][name])


def assert_same_checkpoint(found: Path, expected: Path, relative: float) -> None:
    """Each tensor by its length: weights, and the moments, which after one step are the gradient and its square."""
    ours, theirs = open_checkpoint(found), open_checkpoint(expected)
    for kind in ("model", "training"):
        mine, other = getattr(ours, kind)(), getattr(theirs, kind)()
        assert mine.keys() == other.keys()
        for name, tensor in mine.items():
            assert float((tensor - other[name]).norm()) <= relative * float(other[name].norm()), name


@pytest.mark.parametrize(("layout", "shape"), CASES)
def test_processes_give_the_single_ones_losses_and_checkpoint(
    layout: str, shape: str, mixture_folder: Path, tmp_path: Path, make_deep: MakePreset, alone: dict[str, Path]
) -> None:
    size, settings = LAYOUTS[layout]
    preset = make_deep(shape, **settings)
    run_processes(size, lambda _: run_loop(mixture_folder, preset, tmp_path / "out"), tmp_path / "logs")
    assert losses(tmp_path / "out") == pytest.approx(losses(alone[shape]), rel=1e-5)
    for step, relative in ((1, 5e-6), (STEPS, 2e-4)):
        found, expected = (checkpoint_folder(folder, step) for folder in (tmp_path / "out", alone[shape]))
        assert_same_checkpoint(found, expected, relative)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["data 2", "shard 2", "expert 2 × shard 2", "pipeline 2 × shard 2"])
def test_in_bfloat16_several_processes_are_as_near_as_its_digits(
    layout: str, mixture_folder: Path, tmp_path: Path, make_deep: MakePreset
) -> None:
    size, settings = LAYOUTS[layout]
    half: dict[str, Any] = {"precision": "bf16", "z_loss": 1e-3}
    run_loop(mixture_folder, make_deep("experts", **half), tmp_path / "alone")
    preset = make_deep("experts", **half, **settings)
    run_processes(size, lambda _: run_loop(mixture_folder, preset, tmp_path / "out"), tmp_path / "logs")
    assert losses(tmp_path / "out") == pytest.approx(losses(tmp_path / "alone"), rel=2e-3)


@pytest.mark.parametrize("layout", ["data 2", "tensor 2"])
def test_dropout_draws_what_one_process_would(
    layout: str, mixture_folder: Path, tmp_path: Path, make_deep: MakePreset
) -> None:
    size, settings = LAYOUTS[layout]
    chance = {"dropout": 0.2, "z_loss": 1e-3}
    run_loop(mixture_folder, make_deep(**chance), tmp_path / "alone")
    preset = make_deep(**chance, **settings)
    run_processes(size, lambda _: run_loop(mixture_folder, preset, tmp_path / "out"), tmp_path / "logs")
    assert losses(tmp_path / "out") == pytest.approx(losses(tmp_path / "alone"), rel=1e-5)


@pytest.mark.parametrize(
    ("shape", "settings", "size", "told"),
    [
        ("tied", {"tensor_parallel": 3}, 4, "tensor 3 takes a multiple of 3 processes; there are 4"),
        ("tied", {"tensor_parallel": 4}, 4, "`num_kv_heads` is 2; it must be a multiple of `tensor_parallel` 4"),
        ("tied", {"sequence_parallel": True}, 1, "goes with `tensor_parallel`, which is 1"),
        ("tied", {"pipeline_parallel": 2}, 4, "a step has 1 micro-batches for a process; 2 stages need as many"),
        ("tied", {"pipeline_parallel": 8, "micro_batch": 1}, 8, "`num_layers` is 4; 8 stages need at least one each"),
        ("tied", {"expert_parallel": 2}, 2, "`expert_parallel` is for models with experts; this one is llama"),
        ("tied", {"data_parallel_shard": 2, "compile": True}, 2, "`compile` is for whole models"),
        (
            "experts",
            {"tensor_parallel": 2},
            2,
            "for models of kind llama; this one is deepseek_v3: take `data_parallel_shard`",
        ),
        ("experts", {"expert_parallel": 3}, 3, "`num_experts` is 8; it must be a multiple of `expert_parallel` 3"),
        (
            "tied",
            {"micro_batch": 4},
            2,
            "by 2 processes in batches of 4: give `--micro-batch 2`",
        ),
    ],
)
def test_layouts_that_cannot_be_are_refused_in_words(
    shape: str, settings: dict[str, Any], size: int, told: str, make_deep: MakePreset
) -> None:
    preset = make_deep(shape, **settings)
    with pytest.raises(LayoutError) as caught:
        plan_layout(preset.training, preset.model_config(384), size)
    assert told in str(caught.value)
