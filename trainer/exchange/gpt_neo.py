"""GPT-Neo models as transformers' GPTNeoForCausalLM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainer.exchange.formats import Fields, Link
from trainer.models.contract import ModelConfig
from trainer.models.gpt_neo import GPTNeoConfig


class GPTNeoFormat:
    architecture = "GPTNeoForCausalLM"

    def fits(self, config: ModelConfig) -> bool:
        return isinstance(config, GPTNeoConfig)

    def write(self, config: GPTNeoConfig) -> dict[str, Any]:
        layers = ["local" if window else "global" for window in config.windows]
        return {
            "model_type": "gpt_neo",
            "vocab_size": config.vocabulary_size,
            "hidden_size": config.hidden_size,
            "num_layers": config.num_layers,
            "num_heads": config.num_heads,
            "intermediate_size": config.ffn_size,
            "max_position_embeddings": config.max_positions,
            "attention_types": [[[layer], 1] for layer in layers],
            "attention_layers": layers,
            "window_size": config.window_size,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": config.norm_epsilon,
            "tie_word_embeddings": config.tied_embeddings,
            "initializer_range": config.init_std,
            "embed_dropout": 0.0,
            "resid_dropout": 0.0,
            "attention_dropout": 0.0,
        }

    def read(self, fields: Fields) -> dict[str, Any]:
        fields.refuse_unless("activation_function", "gelu_new", "gelu_pytorch_tanh")
        hidden = fields.take("hidden_size")
        types = fields.take("attention_types", [[["global", "local"], fields.take("num_layers") // 2]])
        layers = [layer for names, times in types for _ in range(times) for layer in names]
        pattern = "alternating" if "local" in layers else "global"
        expected = ["local" if pattern == "alternating" and number % 2 else "global" for number in range(len(layers))]
        if layers != expected:
            fields.faults.append(f"layers are {', '.join(layers)}; only global ones, or global and local in turn")
        return {
            "kind": "gpt_neo",
            "vocabulary_size": fields.take("vocab_size"),
            "hidden_size": hidden,
            "num_layers": fields.take("num_layers"),
            "num_heads": fields.take("num_heads"),
            "ffn_size": fields.take("intermediate_size", 4 * hidden),
            "max_positions": fields.take("max_position_embeddings", 2048),
            "attention": pattern,
            "window_size": fields.take("window_size", 256),
            "norm_epsilon": fields.take("layer_norm_epsilon", 1e-5),
            "tied_embeddings": fields.take("tie_word_embeddings", True),
            "init_std": fields.take("initializer_range", 0.02),
        }

    def links(self, config: GPTNeoConfig) -> Iterator[Link]:
        yield Link(ours="embedding.weight", theirs=("transformer.wte.weight",))
        yield Link(ours="positions.weight", theirs=("transformer.wpe.weight",))
        if not config.tied_embeddings:
            yield Link(ours="head.weight", theirs=("lm_head.weight",))
        yield from _both("norm", "transformer.ln_f")
        for number in range(config.num_layers):
            ours, theirs = f"blocks.{number}", f"transformer.h.{number}"
            attention = tuple(f"{theirs}.attn.attention.{name}_proj.weight" for name in "qkv")
            yield Link(ours=f"{ours}.attention.qkv.weight", theirs=attention, rows=(config.hidden_size,) * 3)
            yield from _both(f"{ours}.attention.out", f"{theirs}.attn.attention.out_proj")
            yield from _both(f"{ours}.attention_norm", f"{theirs}.ln_1")
            yield from _both(f"{ours}.ffn_norm", f"{theirs}.ln_2")
            yield from _both(f"{ours}.ffn.up", f"{theirs}.mlp.c_fc")
            yield from _both(f"{ours}.ffn.down", f"{theirs}.mlp.c_proj")


def _both(ours: str, theirs: str) -> Iterator[Link]:
    for part in ("weight", "bias"):
        yield Link(ours=f"{ours}.{part}", theirs=(f"{theirs}.{part}",))
