"""The smallest shapes of the kinds that a preset must name; `make_preset`'s own is LLaMA's."""

from __future__ import annotations

from typing import Any

DEEPSEEK: dict[str, Any] = {
    "kind": "deepseek_v3", "vocabulary_size": 385, "hidden_size": 32, "num_layers": 4, "num_heads": 4,
    "max_positions": 64, "kv_latent_size": 16, "qk_size": 8, "qk_rope_size": 4, "v_size": 8, "ffn_size": 48,
    "num_dense_layers": 1, "expert_ffn_size": 16, "shared_ffn_size": 16, "num_experts": 8, "experts_per_token": 2,
    "num_predictors": 1, "balance_coefficient": 0.01,
}  # fmt: skip
GPT_NEO: dict[str, Any] = {
    "kind": "gpt_neo", "vocabulary_size": 385, "hidden_size": 32, "num_layers": 4, "num_heads": 4, "max_positions": 64,
    "ffn_size": 48, "window_size": 8,
}  # fmt: skip
