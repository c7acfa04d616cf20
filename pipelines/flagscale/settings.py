"""Our settings for an experiment of FlagScale: a preset of the trainer, and every key that it does not honour.

A key is honoured (it becomes a field), done anyway (our trainer does what its value asks for, always), of the launch
(where and by how many processes), or it stands in `Settings.unhonoured` with the reason. There is no fifth kind: a key
that nobody here has heard of is not honoured.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.flagscale.arguments import Leaf, effective
from pipelines.flagscale.config import FlagScaleConfig
from storage.errors import RecipeError

TRAINING: Mapping[str, str] = {
    "seq_length": "sequence_length", "micro_batch_size": "micro_batch", "global_batch_size": "global_batch",
    "train_samples": "train_samples", "train_iters": "steps", "seed": "seed", "weight_decay": "weight_decay",
    "adam_beta1": "beta1", "adam_beta2": "beta2", "adam_eps": "epsilon", "clip_grad": "clip", "lr": "learning_rate",
    "min_lr": "min_learning_rate", "lr_warmup_samples": "warmup_samples", "lr_warmup_iters": "warmup_steps",
    "lr_warmup_fraction": "warmup_fraction", "lr_wsd_decay_samples": "decay_samples",
    "lr_wsd_decay_iters": "decay_steps", "lr_decay_style": "schedule", "lr_wsd_decay_style": "decay",
    "reset_position_ids": "reset_position_ids", "reset_attention_mask": "reset_attention_mask",
    "eod_mask_loss": "eod_mask_loss", "save_interval": "save_every", "log_interval": "log_every",
    "hidden_dropout": "dropout", "bf16": "precision", "recompute_granularity": "recompute",
    "skip_iters_range": "skip_iterations", "tensor_model_parallel_size": "tensor_parallel",
    "sequence_parallel": "sequence_parallel", "pipeline_model_parallel_size": "pipeline_parallel",
    "expert_model_parallel_size": "expert_parallel", "async_save": "async_save",
}  # fmt: skip
MODEL: Mapping[str, str] = {
    "hidden_size": "hidden_size", "num_layers": "num_layers", "num_attention_heads": "num_heads",
    "max_position_embeddings": "max_positions", "norm_epsilon": "norm_epsilon", "layernorm_epsilon": "norm_epsilon",
    "rotary_base": "rope_base", "init_method_std": "init_std", "ffn_hidden_size": "ffn_size",
    "untie_embeddings_and_output_weights": "tied_embeddings",
}  # fmt: skip
DENSE: Mapping[str, str] = {"num_query_groups": "num_kv_heads"}
EXPERTS: Mapping[str, str] = {
    "q_lora_rank": "q_latent_size", "kv_lora_rank": "kv_latent_size", "qk_head_dim": "qk_size",
    "qk_pos_emb_head_dim": "qk_rope_size", "v_head_dim": "v_size", "qk_layernorm": "latent_norms",
    "moe_ffn_hidden_size": "expert_ffn_size", "moe_shared_expert_intermediate_size": "shared_ffn_size",
    "num_experts": "num_experts", "moe_router_topk": "experts_per_token", "moe_router_num_groups": "num_groups",
    "moe_router_group_topk": "groups_per_token", "moe_router_topk_scaling_factor": "routed_scaling",
    "moe_router_bias_update_rate": "bias_update_rate", "moe_aux_loss_coeff": "balance_coefficient",
    "moe_layer_freq": "num_dense_layers", "num_mtp_predictor": "num_predictors", "mtp_num_layers": "num_predictors",
    "mtp_loss_coeff": "prediction_coefficient", "mtp_loss_scaling_factor": "prediction_coefficient",
}  # fmt: skip
ANYWAY: Mapping[str, tuple[Any, ...]] = {
    "swiglu": (True,), "normalization": ("RMSNorm",), "use_rotary_position_embeddings": (True,),
    "position_embedding_type": ("rope",), "disable_bias_linear": (True,), "no_position_embedding": (True,),
    "attention_softmax_in_fp32": (True,), "accumulate_allreduce_grads_in_fp32": (True,), "attention_dropout": (0.0,),
    "eval_iters": (0,), "split": (1, "1", "100,0,0"), "moe_router_dtype": ("fp32",), "finetune": (False,),
    "moe_router_score_function": ("sigmoid",), "moe_router_enable_expert_bias": (True,),
    "moe_router_load_balancing_type": ("seq_aux_loss",), "multi_latent_attention": (True,),
    "group_query_attention": (True, False), "context_parallel_size": (1,), "fp16": (False,),
    "qk_layernorm": (False,),
}  # fmt: skip
"""What our trainer does whether it is asked or not, or does not do, by the values that ask for no more than that."""
LAUNCH = (
    "load",
    "data_path", "tokenizer_path", "vocab_size", "make_vocab_size_divisible_by", "save", "tensorboard_dir",
    "wandb_save_dir", "log_dir", "scripts_dir", "pids_dir", "details_dir", "tokenizer_type", "no_shared_fs",
)  # fmt: skip
"""What the launch and the mixture are made of."""
WHY: Mapping[str, str] = {
    "num_query_groups": "multi-latent attention has none",
    "transformer_impl": "our layers are PyTorch's own", "no_rope_fusion": "our layers are PyTorch's own",
    "moe_grouped_gemm": "our experts choose their own kernels", "moe_token_dispatcher_type": "one way to send tokens",
    "ckpt_format": "our checkpoints are safetensors", "num_workers": "samples are read where they are needed",
    "no_mmap_bin_files": "shards are always mapped", "recompute_method": "each block is kept by what enters it",
    "recompute_num_layers": "each block is kept by what enters it", "use_distributed_optimizer": "it stays whole",
    "overlap_grad_reduce": "PyTorch overlaps as it sees fit", "overlap_param_gather": "PyTorch overlaps as it sees fit",
}  # fmt: skip
PRECISIONS = {True: "bf16", False: "fp32"}
STYLES = {"cosine": "cosine", "linear": "linear", "constant": "constant", "WSD": "wsd", "wsd": "wsd"}
DECAYS = {"linear": "linear", "cosine": "cosine", "exponential": "exponential", "minus_sqrt": "minus_sqrt"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A preset's two sections, and the keys that it does not honour, each with the reason."""

    model: dict[str, Any]
    training: dict[str, Any]
    unhonoured: list[tuple[Leaf, str]] = field(default_factory=list)


def translate(config: FlagScaleConfig) -> Settings:
    """Our settings for the values that count. Raises RecipeError for a model that no kind of ours is."""
    values = {leaf.name: leaf.value for leaf in effective(config)}
    experts = bool(values.get("num_experts"))
    names = {**MODEL, **(EXPERTS if experts else DENSE)}
    settings = Settings(model={"kind": "deepseek_v3" if experts else "llama"}, training={})
    if experts and not values.get("multi_latent_attention"):
        raise RecipeError("experts without multi-latent attention: no kind of model here", at=str(config.path))
    for leaf in effective(config):
        _settle(leaf, names, settings)
    _complete(values, settings, experts=experts)
    if told := (config.task["system"].get("checkpoint") or {}).get("load"):
        leaf = Leaf(place=("system", "checkpoint", "load"), value=told)
        settings.unhonoured.append((leaf, "a run resumes what is in its own folder; `--init-from` starts from another"))
    return settings


def _settle(leaf: Leaf, names: Mapping[str, str], settings: Settings) -> None:
    """Put one value where it belongs."""
    section, ours = (settings.training, TRAINING) if leaf.name in TRAINING else (settings.model, names)
    if leaf.name in ours:
        try:
            section[ours[leaf.name]] = CONVERTED.get(leaf.name, lambda value: value)(leaf.value)
        except (KeyError, ValueError, TypeError):
            settings.unhonoured.append((leaf, "this value has no counterpart"))
    elif leaf.name in ANYWAY:
        if leaf.value not in ANYWAY[leaf.name] and not (
            leaf.name == "load" and str(leaf.value).endswith("checkpoints")
        ):
            settings.unhonoured.append((leaf, f"only {' or '.join(str(value) for value in ANYWAY[leaf.name])} here"))
    elif leaf.name not in LAUNCH:
        settings.unhonoured.append((leaf, WHY.get(leaf.name, "not known here")))


def _complete(values: Mapping[str, Any], settings: Settings, *, experts: bool) -> None:
    """What several keys say together, and what Megatron does where nothing is said."""
    model, training = settings.model, settings.training
    model.setdefault("tied_embeddings", True)
    if not experts and (not values.get("group_query_attention") or "num_kv_heads" not in model):
        model["num_kv_heads"] = model.get("num_heads")
    if "vocab_size" in values:
        multiple = int(values.get("make_vocab_size_divisible_by", 128))
        model["vocabulary_size"] = -(-int(values["vocab_size"]) // multiple) * multiple
    training.setdefault("schedule", "linear")
    if training.get("tensor_parallel", 1) == 1:
        training.pop("sequence_parallel", None)  # Megatron switches it off, too
    if not {"warmup_samples", "warmup_steps", "warmup_fraction"} & set(training):
        training["warmup_fraction"] = 0.0


def _dense_layers(written: object) -> int:
    """`"[0]+[1]*5"`: how many layers without experts come before those with them."""
    found = re.fullmatch(r"\[0\](?:\*(\d+))?\s*\+\s*\[1\](?:\*\d+)?", str(written).strip())
    if found:
        return int(found[1] or 1)
    if str(written) in ("1", "[1]"):
        return 0
    raise ValueError(written)


def _ranges(value: Any) -> str:
    """Megatron's list of borders, in pairs, as ours are told: [10, 20, 30, 40] is `11-20,31-40`."""
    pairs = list(zip(value[::2], value[1::2], strict=True))
    return ",".join(f"{int(first) + 1}-{int(last)}" for first, last in pairs)


CONVERTED: Mapping[str, Callable[[Any], Any]] = {
    "bf16": PRECISIONS.__getitem__,
    "lr_decay_style": STYLES.__getitem__,
    "lr_wsd_decay_style": DECAYS.__getitem__,
    "recompute_granularity": lambda value: {"full": True, None: False}[value],
    "untie_embeddings_and_output_weights": lambda value: not value,
    "moe_layer_freq": _dense_layers,
    "skip_iters_range": _ranges,
    "num_mtp_predictor": lambda value: int(value or 0),
}
