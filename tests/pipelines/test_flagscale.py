"""FlagScale's experiments: Megatron's words as FlagScale makes them, ours beside them, and nothing passed over."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pipelines.cli import cli
from pipelines.flagscale.arguments import effective, find_overrides, launch_words, megatron_words
from pipelines.flagscale.config import FlagScaleConfig, load_config
from pipelines.flagscale.settings import ANYWAY, DENSE, EXPERTS, LAUNCH, MODEL, TRAINING, translate
from storage.errors import RecipeError
from tests.trainer.conftest import write_mixture
from trainer.settings import PRESETS, load_preset

EXPERIMENT = """\
defaults:
  - _self_
  - train: task.yaml

experiment:
  exp_name: small
  dataset_base_dir: /data/OpenSeek
  seed: 42
  save_steps: 600
  load: null
  exp_dir: /cluster/${experiment.exp_name}
  ckpt_format: torch
  task: {type: train, backend: megatron, entrypoint: flagscale/train/train_gpt.py}
  runner: {no_shared_fs: false, backend: torchrun, rdzv_backend: static, ssh_port: 22, nnodes: 1, nproc_per_node: 2,
    hostfile: null}
  cmds: {before_start: "ulimit -n 1048576"}
  envs: {VISIBLE_DEVICES: "0,1", DEVICE_MAX_CONNECTIONS: 1}
action: run
"""
TASK = """\
system:
  init_method_std: 6e-3
  moe_aux_loss_coeff: 0.0001
  no_shared_fs: ${experiment.runner.no_shared_fs}
  tensor_model_parallel_size: 1
  reset_position_ids: True
  finetune: false
  precision: {bf16: true, attention_softmax_in_fp32: true}
  logging: {log_interval: 1, wandb_project: "${experiment.exp_name}-x"}
  checkpoint: {save_interval: "${experiment.save_steps}", load: "${experiment.load}"}
model:
  num_layers: 6
  hidden_size: 1280
  num_attention_heads: 10
  seq_length: 4096
  max_position_embeddings: 4096
  norm_epsilon: 1e-6
  rotary_base: 1000000
  multi_latent_attention: true
  kv_lora_rank: 512
  qk_head_dim: 128
  qk_pos_emb_head_dim: 64
  v_head_dim: 128
  ffn_hidden_size: 7168
  moe_ffn_hidden_size: 896
  moe_shared_expert_intermediate_size: 1792
  num_experts: 64
  moe_aux_loss_coeff: 0.02
  moe_layer_freq: "[0]+[1]*5"
  moe_router_topk: 6
  moe_router_topk_scaling_factor: 2.446
  num_mtp_predictor: 1
  seed: ${experiment.seed}
  skip_iters_range: [25447, 25460]
  optimizer:
    weight_decay: 0.1
    lr_scheduler: {lr: 3.0e-3, lr_decay_style: WSD, lr_wsd_decay_style: cosine, lr_wsd_decay_samples: 2048}
data:
  data_path: [1.5, "${experiment.dataset_base_dir}/a_text_document", 2, b_text_document]
  split: 1
  tokenizer: {tokenizer_type: QwenTokenizerFS, vocab_size: 151851, make_vocab_size_divisible_by: 64}
"""
MEGATRON = """\
--init-method-std 0.006 --moe-aux-loss-coeff 0.02 --tensor-model-parallel-size 1 --reset-position-ids --bf16
--attention-softmax-in-fp32 --log-interval 1 --wandb-project small-x --tensorboard-dir /cluster/small/tensorboard
--wandb-save-dir /cluster/small/wandb --save-interval 600 --load /cluster/small/checkpoints
--save /cluster/small/checkpoints
--num-layers 6 --hidden-size 1280 --num-attention-heads 10 --seq-length 4096 --max-position-embeddings 4096
--norm-epsilon 1e-06 --rotary-base 1000000 --multi-latent-attention --kv-lora-rank 512 --qk-head-dim 128
--qk-pos-emb-head-dim 64 --v-head-dim 128 --ffn-hidden-size 7168 --moe-ffn-hidden-size 896
--moe-shared-expert-intermediate-size 1792 --num-experts 64 --moe-layer-freq [0]+[1]*5 --moe-router-topk 6
--moe-router-topk-scaling-factor 2.446 --num-mtp-predictor 1 --seed 42 --skip-iters-range 25447 25460
--weight-decay 0.1 --lr 0.003 --lr-decay-style WSD --lr-wsd-decay-style cosine --lr-wsd-decay-samples 2048
--data-path 1.5 /data/OpenSeek/a_text_document 2 b_text_document --split 1 --tokenizer-type QwenTokenizerFS
--vocab-size 151851 --make-vocab-size-divisible-by 64
"""
TORCHRUN = """\
torchrun --rdzv_backend static --nnodes 1 --nproc_per_node 2 --rdzv_id default --node_rank 0
--rdzv_endpoint localhost:29500 --log_dir /cluster/small/logs/details/host_0_localhost --redirects 3 --tee 3
flagscale/train/train_gpt.py
"""


def write_config(folder: Path, task: str = TASK, experiment: str = EXPERIMENT) -> Path:
    (folder / "train").mkdir(parents=True, exist_ok=True)
    (folder / "train/task.yaml").write_text(task)
    (folder / "config.yaml").write_text(experiment)
    return folder / "config.yaml"


@pytest.fixture
def config(tmp_path: Path) -> FlagScaleConfig:
    return load_config(write_config(tmp_path))


def test_megatrons_words_are_flagscales(config: FlagScaleConfig) -> None:
    """The words that FlagScale's `_get_args_megatron` and `_get_runner_cmd_train` make of this config, in order."""
    assert megatron_words(config) == MEGATRON.split()
    assert launch_words(config) == [*TORCHRUN.split(), *MEGATRON.split()]


def test_what_one_block_takes_from_another_is_named(tmp_path: Path) -> None:
    task = TASK.replace("  finetune: false\n", "  finetune: false\n  optimizer: {weight_decay: 0.5, adam_eps: 1e-9}\n")
    task = task.replace("  split: 1\n", "  split: 1\n  extra: {seq_length: 128, bf16: false}\n")
    told = [str(override) for override in find_overrides(load_config(write_config(tmp_path, task)))]
    replaced = "nothing: the mapping around it was replaced by a later block's"
    assert told == [
        "system.moe_aux_loss_coeff: 0.0001  is overridden by  model.moe_aux_loss_coeff: 0.02",
        "system.optimizer.weight_decay: 0.5  is overridden by  model.optimizer.weight_decay: 0.1",
        f"system.optimizer.adam_eps: 1e-09  is overridden by  {replaced}",
        "model.seq_length: 4096  is overridden by  data.extra.seq_length: 128",
        "data.extra.bf16: False  is overridden by  system.precision.bf16: True",
    ]


def test_openseeks_small_model_is_our_preset(config: FlagScaleConfig) -> None:
    """From OpenSeek's keys comes the shape of the preset that was written by hand from its config."""
    settings = translate(config)
    ours = yaml.safe_load((PRESETS / "openseek-small-v1.yaml").read_text())["model"]
    beside = {"balance_coefficient": 0.02, "tied_embeddings": True}
    assert {**ours, **beside} == {**ours, **settings.model}
    training = settings.training
    assert (training["schedule"], training["decay"], training["decay_samples"]) == ("wsd", "cosine", 2048)
    assert (training["skip_iterations"], training["precision"], training["seed"]) == ("25448-25460", "bf16", 42)


def test_our_settings_are_a_preset(config: FlagScaleConfig, tmp_path: Path) -> None:
    settings = translate(config)
    (tmp_path / "preset.yaml").write_text(yaml.safe_dump({"model": settings.model, "training": settings.training}))
    assert load_preset(str(tmp_path / "preset.yaml")).model_config(1).vocabulary_size == 151_872


def test_no_key_is_passed_over(tmp_path: Path) -> None:
    task = TASK.replace("  split: 1\n", "  split: 969,30,1\n  invented_key: 7\n  lr_decay_style: polynomial\n")
    parallel = "tensor_model_parallel_size: 8\n  context_parallel_size: 2\n  sequence_parallel: true"
    task = task.replace("tensor_model_parallel_size: 1", parallel)
    config = load_config(write_config(tmp_path, task), ["train.system.checkpoint.load=/old"])
    settings = translate(config)
    left = {leaf.name: why for leaf, why in settings.unhonoured}
    assert left["invented_key"] == "not known here" and left["context_parallel_size"] == "only 1 here"
    assert settings.training["tensor_parallel"] == 8 and settings.training["sequence_parallel"] is True
    assert left["lr_decay_style"] == "this value has no counterpart" and "--init-from" in left["load"]
    assert left["split"].startswith("only 1 or")
    known = {*TRAINING, *MODEL, *DENSE, *EXPERTS, *ANYWAY, *LAUNCH}
    assert {leaf.name for leaf in effective(config)} - known <= set(left)


def test_variables_environment_and_values_laid_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "/mnt")
    experiment = EXPERIMENT.replace("/cluster/$", "${oc.env:PLACE}/$")
    path = write_config(tmp_path, experiment=experiment)
    config = load_config(path, ["experiment.exp_name=other", "train.model.num_layers=12"])
    assert str(config.exp_dir) == "/mnt/other" and config.task["model"]["num_layers"] == 12
    for text, said in (
        ("experiment.seed=${experiment.nothing}", "has no value"),
        ("experiment.seed=${now:%Y}", "cannot be resolved"),
        ("experiment.seed=${experiment.seed}", "in a circle"),
        ("experiment.task.backend=vllm", "only `megatron` is known"),
    ):
        with pytest.raises(RecipeError, match=said):
            load_config(path, [text])
    with pytest.raises(RecipeError, match="not supported: {'override hydra/launcher': 'x'}"):
        write_config(tmp_path, experiment=EXPERIMENT.replace("- _self_", "- override hydra/launcher: x"))
        load_config(path)


def test_a_task_beside_its_experiment_is_found_and_said(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    (tmp_path / "train/task.yaml").rename(tmp_path / "task.yaml")
    assert load_config(path).notes == ("task.yaml stands beside the experiment's file; Hydra looks for it in `train/`",)


def test_dryrun_shows_all_and_starts_nothing(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    shown = CliRunner().invoke(cli, ["flagscale", "dryrun", str(path), "--set", f"experiment.exp_dir={tmp_path}/exp"])
    assert shown.exit_code == 0, shown.output
    assert "--moe-aux-loss-coeff 0.02" in shown.output and "overridden (system" in shown.output
    assert "kind: deepseek_v3" in shown.output and "not honoured:" in shown.output
    script = (tmp_path / "exp/logs/scripts/host_0_localhost_run.sh").read_text()
    assert script.startswith("#!/bin/bash\n\nulimit -n 1048576\n") and "export CUDA_VISIBLE_DEVICES=0,1\n" in script
    assert "trainer.parallel.launch --standalone --nproc-per-node 2 -m trainer train" in script
    assert not (tmp_path / "exp/mixture").exists()


DENSE_TASK = """\
system: {precision: {bf16: false}, checkpoint: {save_interval: 50}, reset_position_ids: true}
model: {num_layers: 2, hidden_size: 32, num_attention_heads: 4, seq_length: 32, max_position_embeddings: 64,
  ffn_hidden_size: 48, norm_epsilon: 1e-5, micro_batch_size: 2, global_batch_size: 4, train_iters: 100000, seed: 1,
  optimizer: {lr_scheduler: {lr: 1e-3, lr_decay_style: constant}}}
data: {data_path: [1, "${experiment.dataset_base_dir}/a-0000", 3, "${experiment.dataset_base_dir}/b-0000"], split: 1}
"""


def wait_until(words: list[str], said: str) -> str:
    output, deadline = "", time.monotonic() + 100
    while said not in output and time.monotonic() < deadline:
        output = CliRunner().invoke(cli, words).output
        time.sleep(0.2)
    return output


@pytest.mark.slow
def test_an_experiment_runs_is_looked_at_stopped_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_mixture(tmp_path / "made")
    experiment = EXPERIMENT.replace("/data/OpenSeek", str(tmp_path / "made/train")).replace(
        "/cluster/$", f"{tmp_path}/$"
    )
    experiment = experiment.replace("nproc_per_node: 2", "nproc_per_node: 1")
    path = write_config(tmp_path, DENSE_TASK, experiment)
    run = ["flagscale", "run", str(path), "--tokenizer", str(tmp_path / "made/tokenizer.json"), "--heldout", "200"]
    query, stop = (["flagscale", name, str(path)] for name in ("query", "stop"))
    assert CliRunner().invoke(cli, query).output == "COMPLETED_OR_IDLE\nno step was done yet\n"
    first = CliRunner().invoke(cli, run)
    assert first.exit_code == 0 and "started as process" in first.output, first.output
    blend = json.loads((tmp_path / "small/mixture/blend.json").read_text())
    assert [row["weight"] for row in blend["train"]] == [1, 3]
    assert "RUNNING as process" in wait_until(query, "step 1")
    again = CliRunner().invoke(cli, run)
    assert again.exit_code != 0 and "runs already" in str(again.exception)
    while not (tmp_path / "small/checkpoints/latest_checkpointed_iteration.txt").exists():
        time.sleep(0.1)
    pid = int((tmp_path / "small/logs/pids/host_0_localhost.pid").read_text())
    assert CliRunner().invoke(cli, stop).output == f"stopped process {pid}\n"
    assert "COMPLETED_OR_IDLE" in CliRunner().invoke(cli, query).output
    assert CliRunner().invoke(cli, [*run, "--set", "train.model.train_iters=100000"]).exit_code == 0
    output = tmp_path / "small/logs/host_0_localhost.output"
    deadline = time.monotonic() + 60
    while "resumed after step" not in output.read_text() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert "resumed after step" in output.read_text()
    assert "stopped process" in CliRunner().invoke(cli, stop).output
    assert CliRunner().invoke(cli, stop).output == "nothing runs here\n"
