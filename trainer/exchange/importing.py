"""A Hugging Face model as a checkpoint: to evaluate, to generate with, or to train on from (`--init-from`).

Only safetensors and JSON are read: code that comes along is not run, pickled weights are not opened. Every tensor
must find its place and every place its tensor. Weights become float32, which costs twice bfloat16's space.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor

from storage.commit import write_atomically
from storage.errors import ModelError
from storage.identity import hash_file
from storage.megatron import token_dtype
from trainer.checkpoints.folders import save_checkpoint, saved_steps
from trainer.data.mixture import TOKENIZER_FILE, VOCABULARY_FILE
from trainer.exchange.architectures import format_named
from trainer.exchange.deepseek_v3 import predictor_copies
from trainer.exchange.export import INDEX_FILE
from trainer.exchange.formats import Fields, Format
from trainer.models.contract import LanguageModel, ModelConfig
from trainer.models.deepseek_v3 import DeepSeekV3Config
from trainer.models.kinds import build_model, read_config
from trainer.optimizer import model_tensors
from trainer.serving.generate import open_tokenizer
from trainer.settings import TrainingConfig

CONFIG_FILE = "config.json"
WITHOUT_PLACE = re.compile(r"rotary_emb\.inv_freq$|attn\.attention\.(bias|masked_bias)$")
"""Tables that older versions of transformers saved, and made anew."""
LONGEST_TRAINED = 4096


class ForeignWeights:
    """The tensors of a folder's safetensors files, by name; read when asked for. Close it by `with`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._files = folder, ExitStack()
        self._holder: dict[str, Any] = {}
        for path in _weight_files(folder):
            try:
                file = self._files.enter_context(safe_open(path, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise ModelError(f"{path.name} cannot be read: {error}", at=str(folder)) from error
            self._holder |= dict.fromkeys(file.keys(), file)

    def __enter__(self) -> ForeignWeights:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    @property
    def names(self) -> set[str]:
        return set(self._holder)

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._holder[name].get_tensor(name)
        return tensor


def import_model(folder: Path, out: Path, *, tokenizer: Path | None = None, end_of_document: str | None = None) -> Path:
    """Write the model in `folder` as a checkpoint of step 0 into `out`; returns the checkpoint's folder.

    Raises ModelError for what cannot be had, all of it at once.
    """
    if saved_steps(out):
        raise ModelError("there are checkpoints here already", at=str(out), hint="choose another folder with `--out`")
    row = _read_json(folder / CONFIG_FILE)
    with ForeignWeights(folder) as weights:
        known = format_named(row, str(folder / CONFIG_FILE))
        config = read_shape(known, row, weights.names, str(folder / CONFIG_FILE))
        model = build_model(config)
        fill(model, known, weights)
    vocabulary = _describe_tokenizer(folder, tokenizer or folder / TOKENIZER_FILE, row, config, end_of_document)
    write_atomically(out / TOKENIZER_FILE, (tokenizer or folder / TOKENIZER_FILE).read_bytes())
    write_atomically(out / VOCABULARY_FILE, (json.dumps(vocabulary, indent=2) + "\n").encode())
    precision = "fp32" if row.get("dtype", row.get("torch_dtype")) in (None, "float32") else "bf16"
    length = min(config.max_positions, LONGEST_TRAINED)
    training = TrainingConfig(steps=0, sequence_length=length, precision=precision)
    run = {
        "preset": folder.name,
        "model": asdict(config),
        "training": asdict(training),
        "mixture": "",
        "vocabulary": vocabulary["sha256"],
    }
    state = {"step": 0, "tokens": 0, "consumed_samples": 0, "run": run, "imported": known.architecture}
    return save_checkpoint(out, state, model=model_tensors(model), training={}, keep=2)


def read_shape(known: Format, row: Mapping[str, Any], names: Iterable[str], at: str) -> ModelConfig:
    """Our shape of a `config.json`. Raises ModelError that tells everything that cannot be had."""
    fields = Fields(row, frozenset(names))
    fields.refuse_unless("quantization_config", None)
    shape = known.read(fields)
    if not fields.faults:
        config = read_config(shape)
        fields.faults += [f"`{name}` {fault}" for name, fault in config.faults()]
    if fields.faults:
        told = "\n".join(f"    {fault}" for fault in fields.faults)
        raise ModelError(f"this {known.architecture} has what our models have not:\n{told}", at=at)
    return config


@torch.no_grad()
def fill(model: LanguageModel, known: Format, weights: ForeignWeights) -> None:
    """Copy every tensor to its place. Raises ModelError for those that are missing, left over or of another size."""
    own, links = model_tensors(model), list(known.links(model.config))
    wanted = {name for link in links for name in link.theirs}
    copies = _copies(model.config)
    over = {name for name in weights.names - wanted - set(copies) if not WITHOUT_PLACE.search(name)}
    faults = [f"{name} is missing" for name in sorted(wanted - weights.names)]
    faults += [f"{name} has no place" for name in sorted(over)]
    for link in links if not faults else []:
        try:
            own[link.ours].copy_(link.together([weights[name] for name in link.theirs], own[link.ours]))
        except ValueError as error:
            faults.append(str(error))
    for name in sorted(set(copies) & weights.names) if not faults else []:
        if not torch.equal(weights[name].to(own[copies[name]].dtype), own[copies[name]]):
            faults.append(f"{name} should be a copy of another tensor, and is not")
    if faults:
        told = "\n".join(f"    {fault}" for fault in faults[:10])
        more = f"\n    and {len(faults) - 10} more" if len(faults) > 10 else ""
        raise ModelError(f"the weights do not fit `{CONFIG_FILE}`:\n{told}{more}", at=str(weights.folder))


def _copies(config: ModelConfig) -> dict[str, str]:
    """Their tensors that repeat one of ours."""
    tied = {"lm_head.weight": "embedding.weight"} if config.tied_embeddings else {}
    return tied | (predictor_copies(config) if isinstance(config, DeepSeekV3Config) else {})


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX_FILE).is_file():
        names = set(_read_json(folder / INDEX_FILE).get("weight_map", {}).values())
        if any(Path(name).name != name for name in names):
            raise ModelError("the index names files outside of the folder", at=str(folder / INDEX_FILE))
        return [folder / name for name in sorted(names)]
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return files
    pickled = [path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in sorted(folder.glob(pattern))]
    if pickled:
        raise ModelError(
            f"the weights are pickled ({pickled[0]}), and nothing foreign is unpickled",
            at=str(folder),
            hint="get the model as safetensors",
        )
    raise ModelError("there are no weights here", at=str(folder), hint="give a folder with safetensors files")


def _describe_tokenizer(
    folder: Path, path: Path, row: Mapping[str, Any], config: ModelConfig, end_token: str | None
) -> dict[str, Any]:
    """`vocabulary.json` for the tokenizer that belongs to the model."""
    if not path.is_file():
        raise ModelError(
            f"there is no {path.name}",
            at=str(path.parent),
            hint="give `--tokenizer FILE`; `gristmill tokenizer convert` makes one of vocab.json and merges.txt",
        )
    tokenizer = open_tokenizer(path)
    size = tokenizer.get_vocab_size()
    if size > config.vocabulary_size:
        raise ModelError(f"the tokenizer has {size} entries, the model {config.vocabulary_size}", at=str(path))
    return {
        "format_version": 1,
        "size": size,
        "padded_size": config.vocabulary_size,
        "end_of_document": _end_of_document(folder, tokenizer, row, end_token),
        "dtype": token_dtype(size).name,
        "sha256": hash_file(path),
    }


def _end_of_document(folder: Path, tokenizer: Tokenizer, row: Mapping[str, Any], told: str | None) -> int:
    generation = folder / "generation_config.json"
    found = row.get("eos_token_id")
    if found is None and generation.is_file():
        found = _read_json(generation).get("eos_token_id")
    number = tokenizer.token_to_id(told) if told else (found[0] if isinstance(found, list) else found)
    if not isinstance(number, int) or not 0 <= number < tokenizer.get_vocab_size():
        raise ModelError(
            f"`{told}` is no entry of the tokenizer" if told else "no end-of-document token is told",
            at=str(folder),
            hint="give `--end-of-document TOKEN`",
        )
    return number


def _read_json(path: Path) -> dict[str, Any]:
    try:
        row = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"no readable {path.name}", at=str(path.parent), hint="give a Hugging Face model") from error
    if not isinstance(row, dict):
        raise ModelError(f"{path.name} is not an object", at=str(path.parent))
    return row
