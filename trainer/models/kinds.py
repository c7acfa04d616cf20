"""Every kind of model by its name, as presets and checkpoints give it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from storage.errors import ModelError
from trainer.models.contract import LanguageModel, ModelConfig
from trainer.models.deepseek_v3 import DeepSeekV3, DeepSeekV3Config
from trainer.models.gpt_neo import GPTNeo, GPTNeoConfig
from trainer.models.llama import Llama, LlamaConfig

DEFAULT_KIND = "llama"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """`config` is the dataclass of its shape, `model` what is built of one."""

    config: type[ModelConfig]
    model: type[LanguageModel]


KINDS: Mapping[str, Kind] = {
    "llama": Kind(config=LlamaConfig, model=Llama),
    "gpt_neo": Kind(config=GPTNeoConfig, model=GPTNeo),
    "deepseek_v3": Kind(config=DeepSeekV3Config, model=DeepSeekV3),
}


def find_kind(name: object) -> Kind:
    """Raises ModelError for a kind that there is not."""
    if not isinstance(name, str) or name not in KINDS:
        raise ModelError(f"there is no kind of model called `{name}`", hint=f"give one of {', '.join(KINDS)}")
    return KINDS[name]


def read_config(row: Mapping[str, Any]) -> ModelConfig:
    """The shape that stands in `row`, as in a preset or a checkpoint; TypeError for keys that its kind has not."""
    return find_kind(row.get("kind", DEFAULT_KIND)).config(**row)


def build_model(config: ModelConfig) -> LanguageModel:
    """A model of this shape, its weights not yet initialized; on the meta device under `torch.device("meta")`."""
    return find_kind(config.kind).model(config)


def count_parameters(model: nn.Module) -> int:
    """Parameters, tied ones once; the model may lie on the meta device."""
    return sum(parameter.numel() for parameter in model.parameters())
