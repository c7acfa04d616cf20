"""A checkpoint as a Hugging Face model: config and weights of transformers' own class, with the tokenizer beside them.

transformers' logits for it equal ours within 1e-4 (float32). The vocabulary keeps its padding. Large models are cut
into files of at most 5 GB with an index; each is written whole or not at all, the index last.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from storage.commit import atomic_path, write_atomically
from trainer.checkpoints.trained import Trained
from trainer.exchange.architectures import format_of
from trainer.exchange.deepseek_v3 import predictor_copies
from trainer.models.contract import LanguageModel
from trainer.models.deepseek_v3 import DeepSeekV3Config
from trainer.optimizer import model_tensors

FILE_BYTES = 5_000_000_000
INDEX_FILE = "model.safetensors.index.json"
DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ALWAYS_FLOAT32 = "e_score_correction_bias"


def export_model(trained: Trained, out: Path, *, dtype: str = "float32", file_bytes: int = FILE_BYTES) -> list[Path]:
    """Write `config.json`, `generation_config.json`, the weights and the tokenizer's files into `out`.

    Raises ModelError when no class of transformers computes what this model does.
    """
    end = trained.vocabulary.end_of_document
    known = format_of(trained.model.config)
    tokens = {"bos_token_id": end, "eos_token_id": end}
    config = {"architectures": [known.architecture], **known.write(trained.model.config), **tokens, "dtype": dtype}
    tokenizer = trained.tokenizer_file.read_bytes()
    end_token = next((row["content"] for row in json.loads(tokenizer)["added_tokens"] if row["id"] == end), None)
    files = {
        "config.json": _as_json(config),
        "generation_config.json": _as_json({**tokens, "pad_token_id": end}),
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": _as_json(
            {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end_token, "bos_token": end_token}
        ),
    }
    for name, data in files.items():
        write_atomically(out / name, data)
    return [*(out / name for name in files), *_write_weights(trained.model, out, DTYPES[dtype], file_bytes)]


def transformers_tensors(model: LanguageModel) -> dict[str, Tensor]:
    """Weights under transformers' names: views of ours where they have the same layout."""
    ours = {name: tensor.detach().cpu() for name, tensor in model_tensors(model).items()}
    theirs: dict[str, Tensor] = {}
    for link in format_of(model.config).links(model.config):
        theirs |= dict(zip(link.theirs, link.apart(ours[link.ours]), strict=True))
    if isinstance(model.config, DeepSeekV3Config):
        theirs |= {name: ours[original].clone() for name, original in predictor_copies(model.config).items()}
    return theirs


def _write_weights(model: LanguageModel, out: Path, dtype: torch.dtype, file_bytes: int) -> list[Path]:
    tensors = transformers_tensors(model)
    groups = list(_groups(tensors, dtype, file_bytes))
    names = [f"model-{number:05d}-of-{len(groups):05d}.safetensors" for number in range(1, len(groups) + 1)]
    names = names if len(groups) > 1 else ["model.safetensors"]
    for name, group in zip(names, groups, strict=True):
        cast = {key: tensors[key].to(_dtype_of(key, dtype)).contiguous() for key in group}
        with atomic_path(out / name) as temporary:
            save_file(cast, temporary, metadata={"format": "pt"})
            temporary.chmod(0o644)
    if len(groups) > 1:
        total = sum(_bytes(key, tensors[key], dtype) for key in tensors)
        places = {key: name for name, group in zip(names, groups, strict=True) for key in group}
        write_atomically(
            out / INDEX_FILE, _as_json({"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))})
        )
        names.append(INDEX_FILE)
    for stale in {*out.glob("model*.safetensors"), out / INDEX_FILE} - {out / name for name in names}:
        stale.unlink(missing_ok=True)
    return [out / name for name in names]


def _groups(tensors: Mapping[str, Tensor], dtype: torch.dtype, file_bytes: int) -> Iterator[list[str]]:
    """Names in their order, cut where a file would grow too large."""
    group: list[str] = []
    size = 0
    for name, tensor in tensors.items():
        own = _bytes(name, tensor, dtype)
        if group and size + own > file_bytes:
            yield group
            group, size = [], 0
        group.append(name)
        size += own
    yield group


def _bytes(name: str, tensor: Tensor, dtype: torch.dtype) -> int:
    return tensor.numel() * _dtype_of(name, dtype).itemsize


def _dtype_of(name: str, dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if name.endswith(ALWAYS_FLOAT32) else dtype


def _as_json(row: dict[str, Any]) -> bytes:
    return (json.dumps(row, indent=2) + "\n").encode()
