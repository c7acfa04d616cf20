"""The formats that there are, found by a model of ours or by a `config.json` of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storage.errors import ModelError
from trainer.exchange.deepseek_v3 import DeepSeekV3Format
from trainer.exchange.formats import Format
from trainer.exchange.gpt_neo import GPTNeoFormat
from trainer.exchange.llama import LlamaFormat, Olmo2Format
from trainer.models.contract import ModelConfig

FORMATS: tuple[Format, ...] = (LlamaFormat(), Olmo2Format(), GPTNeoFormat(), DeepSeekV3Format())


def format_of(config: ModelConfig) -> Format:
    """The format that models of this shape are written in."""
    return next(known for known in FORMATS if known.fits(config))


def format_named(row: Mapping[str, Any], at: str) -> Format:
    """The format of a `config.json`. Raises ModelError for any other architecture, and for code that comes along."""
    names = row.get("architectures") or []
    if "auto_map" in row:
        raise ModelError(
            "this model comes with code of its own (`auto_map`), and nothing foreign is run",
            at=at,
            hint="if transformers' own class computes the same, delete `auto_map` from config.json",
        )
    for known in FORMATS:
        if [known.architecture] == list(names):
            return known
    told = ", ".join(known.architecture for known in FORMATS)
    raise ModelError(f"the architecture is {', '.join(names) or 'not told'}", at=at, hint=f"{told} can be had")
