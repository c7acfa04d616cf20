"""LLaMA-type models as transformers' LlamaForCausalLM, and with OLMo 2's norms as its Olmo2ForCausalLM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from storage.errors import ModelError
from trainer.exchange.formats import Fields, Link, rope_fields
from trainer.models.contract import ModelConfig
from trainer.models.llama import LlamaConfig


class LlamaFormat:
    architecture = "LlamaForCausalLM"
    model_type = "llama"
    norms = {"input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm"}

    def fits(self, config: ModelConfig) -> bool:
        return isinstance(config, LlamaConfig) and not (config.qk_norm or config.norm_after)

    def write(self, config: LlamaConfig) -> dict[str, Any]:
        return {
            "model_type": self.model_type,
            "vocab_size": config.vocabulary_size,
            "hidden_size": config.hidden_size,
            "num_hidden_layers": config.num_layers,
            "num_attention_heads": config.num_heads,
            "num_key_value_heads": config.num_kv_heads,
            "head_dim": config.head_size,
            "intermediate_size": config.ffn_size,
            "max_position_embeddings": config.max_positions,
            **rope_fields(config.rope_base),
            "rms_norm_eps": config.norm_epsilon,
            "tie_word_embeddings": config.tied_embeddings,
            "initializer_range": config.init_std,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
        }

    def read(self, fields: Fields) -> dict[str, Any]:
        fields.refuse_unless("hidden_act", "silu")
        for name in ("attention_bias", "mlp_bias"):
            fields.refuse_unless(name, False, None)
        heads, hidden = fields.take("num_attention_heads"), fields.take("hidden_size")
        fields.refuse_unless("head_dim", None, hidden // heads)
        return {
            "kind": "llama",
            "vocabulary_size": fields.take("vocab_size"),
            "hidden_size": hidden,
            "num_layers": fields.take("num_hidden_layers"),
            "num_heads": heads,
            "num_kv_heads": fields.take("num_key_value_heads", heads),
            "ffn_size": fields.take("intermediate_size"),
            "max_positions": fields.take("max_position_embeddings", 2048),
            "rope_base": fields.rope_base(),
            "norm_epsilon": fields.take("rms_norm_eps", 1e-6),
            "tied_embeddings": fields.take("tie_word_embeddings", False),
            "init_std": fields.take("initializer_range", 0.02),
        }

    def links(self, config: LlamaConfig) -> Iterator[Link]:
        yield Link(ours="embedding.weight", theirs=("model.embed_tokens.weight",))
        yield Link(ours="norm.weight", theirs=("model.norm.weight",))
        if not config.tied_embeddings:
            yield Link(ours="head.weight", theirs=("lm_head.weight",))
        queries, keys = config.num_heads * config.head_size, config.num_kv_heads * config.head_size
        for number in range(config.num_layers):
            ours, theirs = f"blocks.{number}", f"model.layers.{number}"
            attention = tuple(f"{theirs}.self_attn.{name}_proj.weight" for name in "qkv")
            yield Link(ours=f"{ours}.attention.qkv.weight", theirs=attention, rows=(queries, keys, keys))
            yield Link(ours=f"{ours}.attention.out.weight", theirs=(f"{theirs}.self_attn.o_proj.weight",))
            yield from feed_forward(f"{ours}.ffn", f"{theirs}.mlp", config.ffn_size)
            for name, own in self.norms.items():
                yield Link(ours=f"{ours}.{own}.weight", theirs=(f"{theirs}.{name}.weight",))


class Olmo2Format(LlamaFormat):
    architecture = "Olmo2ForCausalLM"
    model_type = "olmo2"
    norms = {
        "post_attention_layernorm": "attention_norm",
        "post_feedforward_layernorm": "ffn_norm",
        "self_attn.q_norm": "attention.q_norm",
        "self_attn.k_norm": "attention.k_norm",
    }

    def fits(self, config: ModelConfig) -> bool:
        return isinstance(config, LlamaConfig) and (config.qk_norm or config.norm_after)

    def write(self, config: LlamaConfig) -> dict[str, Any]:
        if not (config.qk_norm and config.norm_after):
            raise ModelError(
                f"no class of transformers has qk_norm {config.qk_norm} with norm_after {config.norm_after}",
                hint="OLMo 2 has both, LLaMA neither",
            )
        row = super().write(config)
        del row["head_dim"], row["mlp_bias"]
        return row

    def read(self, fields: Fields) -> dict[str, Any]:
        return {**super().read(fields), "qk_norm": True, "norm_after": True}


def feed_forward(ours: str, theirs: str, ffn_size: int) -> Iterator[Link]:
    """SwiGLU's three products, of which two are one here."""
    pair = (f"{theirs}.gate_proj.weight", f"{theirs}.up_proj.weight")
    yield Link(ours=f"{ours}.gate_up.weight", theirs=pair, rows=(ffn_size, ffn_size))
    yield Link(ours=f"{ours}.down.weight", theirs=(f"{theirs}.down_proj.weight",))
