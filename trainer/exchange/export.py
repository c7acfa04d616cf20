"""A checkpoint as a Hugging Face model: LlamaForCausalLM's config and weights, with the tokenizer beside them.

transformers' logits for it equal ours within 1e-4 (float32). The vocabulary keeps its padding.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from storage.commit import write_atomically
from storage.errors import ModelError
from trainer.checkpoints.trained import Trained
from trainer.models.llama import Llama, LlamaConfig


def export_model(trained: Trained, out: Path) -> list[Path]:
    """Write `config.json`, `generation_config.json`, `model.safetensors` and the tokenizer's files into `out`."""
    if not isinstance(trained.model, Llama):
        raise ModelError(f"a model of kind {trained.model.config.kind} cannot be exported yet")
    end = trained.vocabulary.end_of_document
    tokenizer = trained.tokenizer_file.read_bytes()
    end_token = next((row["content"] for row in json.loads(tokenizer)["added_tokens"] if row["id"] == end), None)
    files = {
        "config.json": _as_json(llama_config(trained.model.config, end)),
        "generation_config.json": _as_json({"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}),
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": _as_json(
            {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end_token, "bos_token": end_token}
        ),
        "model.safetensors": save(llama_tensors(trained.model), metadata={"format": "pt"}),
    }
    for name, data in files.items():
        write_atomically(out / name, data)
    return [out / name for name in files]


def llama_config(config: LlamaConfig, end_of_document: int) -> dict[str, Any]:
    """`config.json` of LlamaForCausalLM."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_size,
        "intermediate_size": config.ffn_size,
        "max_position_embeddings": config.max_positions,
        "rope_theta": config.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tied_embeddings,
        "initializer_range": config.init_std,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": end_of_document,
        "eos_token_id": end_of_document,
        "dtype": "float32",
    }


def llama_tensors(model: Llama) -> dict[str, Tensor]:
    """Weights under transformers' names; fused products taken apart."""
    config = model.config
    tensors = {"model.embed_tokens.weight": model.embedding.weight, "model.norm.weight": model.norm.weight}
    if not config.tied_embeddings:
        tensors["lm_head.weight"] = model.head.weight
    for number, block in enumerate(model.blocks):
        own = dict(block.named_parameters())
        heads, kv_heads = config.num_heads * config.head_size, config.num_kv_heads * config.head_size
        q, k, v = torch.split(own["attention.qkv.weight"], [heads, kv_heads, kv_heads])
        gate, up = own["ffn.gate_up.weight"].chunk(2)
        parts = {
            "input_layernorm": own["attention_norm.weight"],
            "self_attn.q_proj": q,
            "self_attn.k_proj": k,
            "self_attn.v_proj": v,
            "self_attn.o_proj": own["attention.out.weight"],
            "post_attention_layernorm": own["ffn_norm.weight"],
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": own["ffn.down.weight"],
        }
        tensors |= {f"model.layers.{number}.{name}.weight": tensor for name, tensor in parts.items()}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _as_json(row: dict[str, Any]) -> bytes:
    return (json.dumps({k: v for k, v in row.items() if v is not None}, indent=2) + "\n").encode()
