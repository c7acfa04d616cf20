"""DeepSeek-V3 type models as transformers' DeepseekV3ForCausalLM, predictors as the layers after the last one.

DeepSeek lays the two numbers of each rotation side by side, we (as LLaMA) half a head apart: rows of the rotary
products are laid out anew on the way. Predictors stand where DeepSeek's own checkpoints have them, in layer
`num_hidden_layers` and on, each with the embedding and the head that it shares; transformers' model leaves them
aside, and vLLM takes them for speculative decoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from storage.errors import ModelError
from trainer.exchange.formats import Fields, Link, rope_fields
from trainer.exchange.llama import feed_forward
from trainer.models.contract import ModelConfig
from trainer.models.deepseek_v3 import DeepSeekV3Config


class DeepSeekV3Format:
    architecture = "DeepseekV3ForCausalLM"

    def fits(self, config: ModelConfig) -> bool:
        return isinstance(config, DeepSeekV3Config)

    def write(self, config: DeepSeekV3Config) -> dict[str, Any]:
        _refuse_what_has_no_name(config)
        return {
            "model_type": "deepseek_v3",
            "vocab_size": config.vocabulary_size,
            "hidden_size": config.hidden_size,
            "num_hidden_layers": config.num_layers,
            "num_attention_heads": config.num_heads,
            "num_key_value_heads": config.num_heads,
            "q_lora_rank": config.q_latent_size,
            "kv_lora_rank": config.kv_latent_size,
            "qk_nope_head_dim": config.qk_size,
            "qk_rope_head_dim": config.qk_rope_size,
            "v_head_dim": config.v_size,
            "intermediate_size": config.ffn_size,
            "moe_intermediate_size": config.expert_ffn_size,
            "n_shared_experts": config.shared_ffn_size // config.expert_ffn_size,
            "n_routed_experts": config.num_experts,
            "num_experts_per_tok": config.experts_per_token,
            "n_group": config.num_groups,
            "topk_group": config.groups_per_token,
            "topk_method": "noaux_tc",
            "scoring_func": "sigmoid",
            "norm_topk_prob": config.normalized_weights,
            "routed_scaling_factor": config.routed_scaling,
            "first_k_dense_replace": config.num_dense_layers,
            "moe_layer_freq": 1,
            "num_nextn_predict_layers": config.num_predictors,
            "max_position_embeddings": config.max_positions,
            **rope_fields(config.rope_base),
            "rope_interleave": True,
            "rms_norm_eps": config.norm_epsilon,
            "tie_word_embeddings": config.tied_embeddings,
            "initializer_range": config.init_std,
            "hidden_act": "silu",
            "attention_bias": False,
        }

    def read(self, fields: Fields) -> dict[str, Any]:
        fields.refuse_unless("hidden_act", "silu")
        fields.refuse_unless("attention_bias", False, None)
        fields.refuse_unless("topk_method", "noaux_tc")
        fields.refuse_unless("scoring_func", "sigmoid")
        fields.refuse_unless("moe_layer_freq", 1)
        fields.refuse_unless("rope_interleave", True)
        expert, heads = fields.take("moe_intermediate_size"), fields.take("num_attention_heads")
        fields.refuse_unless("num_key_value_heads", heads, None)
        return {
            "kind": "deepseek_v3",
            "vocabulary_size": fields.take("vocab_size"),
            "hidden_size": fields.take("hidden_size"),
            "num_layers": fields.take("num_hidden_layers"),
            "num_heads": heads,
            "q_latent_size": fields.row.get("q_lora_rank"),
            "kv_latent_size": fields.take("kv_lora_rank"),
            "qk_size": fields.take("qk_nope_head_dim"),
            "qk_rope_size": fields.take("qk_rope_head_dim"),
            "v_size": fields.take("v_head_dim"),
            "ffn_size": fields.take("intermediate_size"),
            "expert_ffn_size": expert,
            "shared_ffn_size": fields.take("n_shared_experts", 0) * expert,
            "num_experts": fields.take("n_routed_experts"),
            "experts_per_token": fields.take("num_experts_per_tok"),
            "num_groups": fields.take("n_group", 1),
            "groups_per_token": fields.take("topk_group", 1),
            "normalized_weights": fields.take("norm_topk_prob", True),
            "routed_scaling": float(fields.take("routed_scaling_factor", 1.0)),
            "num_dense_layers": fields.take("first_k_dense_replace", 0),
            "num_predictors": _count_predictors(fields),
            "max_positions": fields.take("max_position_embeddings"),
            "rope_base": fields.rope_base(),
            "norm_epsilon": fields.take("rms_norm_eps", 1e-6),
            "tied_embeddings": fields.take("tie_word_embeddings", False),
            "init_std": fields.take("initializer_range", 0.02),
        }

    def links(self, config: DeepSeekV3Config) -> Iterator[Link]:
        yield Link(ours="embedding.weight", theirs=("model.embed_tokens.weight",))
        yield Link(ours="norm.weight", theirs=("model.norm.weight",))
        if not config.tied_embeddings:
            yield Link(ours="head.weight", theirs=("lm_head.weight",))
        for number in range(config.num_layers):
            yield from _block(config, f"blocks.{number}", f"model.layers.{number}", number < config.num_dense_layers)
        for number in range(config.num_predictors):
            ours, theirs = f"predictors.{number}", f"model.layers.{config.num_layers + number}"
            yield from _block(config, f"{ours}.block", theirs, config.num_dense_layers == config.num_layers)
            yield Link(ours=f"{ours}.token_norm.weight", theirs=(f"{theirs}.enorm.weight",))
            yield Link(ours=f"{ours}.state_norm.weight", theirs=(f"{theirs}.hnorm.weight",))
            yield Link(ours=f"{ours}.join.weight", theirs=(f"{theirs}.eh_proj.weight",))
            yield Link(ours=f"{ours}.norm.weight", theirs=(f"{theirs}.shared_head.norm.weight",))


def _count_predictors(fields: Fields) -> int:
    """transformers writes their number, and leaves them out where its own model was saved."""
    first = f"model.layers.{fields.take('num_hidden_layers')}."
    there = any(name.startswith(first) for name in fields.names)
    return int(fields.take("num_nextn_predict_layers", 0)) if there else 0


def predictor_copies(config: DeepSeekV3Config) -> dict[str, str]:
    """Their names of the shared tensors that each predictor has a copy of, and ours of the original."""
    head = "embedding.weight" if config.tied_embeddings else "head.weight"
    copies = {}
    for number in range(config.num_layers, config.num_layers + config.num_predictors):
        copies[f"model.layers.{number}.embed_tokens.weight"] = "embedding.weight"
        copies[f"model.layers.{number}.shared_head.head.weight"] = head
    return copies


def _block(config: DeepSeekV3Config, ours: str, theirs: str, dense: bool) -> Iterator[Link]:
    for own, name in (("attention_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")):
        yield Link(ours=f"{ours}.{own}.weight", theirs=(f"{theirs}.{name}.weight",))
    yield from _attention(config, f"{ours}.attention", f"{theirs}.self_attn")
    if dense:
        yield from feed_forward(f"{ours}.ffn", f"{theirs}.mlp", config.ffn_size)
    else:
        yield from _experts(config, f"{ours}.ffn", f"{theirs}.mlp")


def _attention(config: DeepSeekV3Config, ours: str, theirs: str) -> Iterator[Link]:
    turned_queries = rotary_order(config.num_heads, config.qk_size, config.qk_rope_size)
    turned_key = rotary_order(1, config.kv_latent_size, config.qk_rope_size)
    name = "q_b_proj" if config.q_latent_size else "q_proj"
    if config.q_latent_size:
        yield Link(ours=f"{ours}.q_down.weight", theirs=(f"{theirs}.q_a_proj.weight",))
        yield Link(ours=f"{ours}.q_norm.weight", theirs=(f"{theirs}.q_a_layernorm.weight",))
    yield Link(ours=f"{ours}.q.weight", theirs=(f"{theirs}.{name}.weight",), order=turned_queries)
    yield Link(ours=f"{ours}.kv_down.weight", theirs=(f"{theirs}.kv_a_proj_with_mqa.weight",), order=turned_key)
    yield Link(ours=f"{ours}.kv_norm.weight", theirs=(f"{theirs}.kv_a_layernorm.weight",))
    yield Link(ours=f"{ours}.kv.weight", theirs=(f"{theirs}.kv_b_proj.weight",))
    yield Link(ours=f"{ours}.out.weight", theirs=(f"{theirs}.o_proj.weight",))


def _experts(config: DeepSeekV3Config, ours: str, theirs: str) -> Iterator[Link]:
    count, size = config.num_experts, config.expert_ffn_size
    experts = [f"{theirs}.experts.{number}" for number in range(count)]
    pairs = tuple(f"{expert}.{name}_proj.weight" for expert in experts for name in ("gate", "up"))
    downs = tuple(f"{expert}.down_proj.weight" for expert in experts)
    yield Link(ours=f"{ours}.router.weight", theirs=(f"{theirs}.gate.weight",))
    yield Link(ours=f"{ours}.router.bias_E", theirs=(f"{theirs}.gate.e_score_correction_bias",))
    yield Link(ours=f"{ours}.experts.gate_up", theirs=pairs, rows=(size,) * 2 * count)
    yield Link(ours=f"{ours}.experts.down", theirs=downs, rows=(config.hidden_size,) * count)
    if config.shared_ffn_size:
        yield from feed_forward(f"{ours}.shared", f"{theirs}.shared_experts", config.shared_ffn_size)


def rotary_order(heads: int, plain: int, turned: int) -> Tensor:
    """Our rows in DeepSeek's order: in each head `plain` rows as they are, then the pairs of `turned` side by side."""
    pairs = torch.arange(turned).view(2, -1).T.flatten() + plain
    head = torch.cat([torch.arange(plain), pairs])
    return (torch.arange(heads).unsqueeze(1) * (plain + turned) + head).flatten()


def _refuse_what_has_no_name(config: DeepSeekV3Config) -> None:
    faults = []
    if not config.latent_norms:
        faults.append("latents without norms")
    if not config.shared_ffn_size or config.shared_ffn_size % config.expert_ffn_size:
        faults.append(
            f"shared experts of {config.shared_ffn_size}, no multiple of an expert's {config.expert_ffn_size}"
        )
    if faults:
        raise ModelError(
            f"DeepseekV3ForCausalLM has no {', no '.join(faults)}", hint="train another shape to export it"
        )
