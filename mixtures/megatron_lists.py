"""Blend lists of a mixture folder, as Megatron-LM and FlagScale read them; the shards stay where they are.

Weights are the tokens that each shard gives, so Megatron's normalisation gives back the plan's shares exactly. Repeats
stand in the indices: `train_tokens / sequence_length` samples are one pass, and one pass is the whole training.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from mixtures.folder import MixtureFolder
from storage.errors import InputError

BASE_VARIABLE = "${experiment.dataset_base_dir}"
"""OpenSeek's lists name their folder so; the experiment's file gives it a value."""
FLAGSCALE_PADDING = 64
"""OpenSeek's `make_vocab_size_divisible_by`."""


def data_path(mixture: MixtureFolder, base: str) -> list[str]:
    """The words of `--data-path`: weight, prefix, weight, prefix, … Raises InputError for a base with blanks."""
    _refuse_blanks(base)
    return [word for shard in mixture.train for word in (_weight(shard.weight), _at(base, shard.prefix))]


def per_split(mixture: MixtureFolder, base: str) -> dict[str, list[str] | None]:
    """The object of `--per-split-data-args-path`: held-out shards are `valid`, by their sizes; there is no `test`."""
    held = [_at(base, prefix) for prefixes in mixture.heldout.values() for prefix in prefixes]
    return {"train": data_path(mixture, base), "valid": held or None, "test": None}


def flagscale_data(mixture: MixtureFolder, tokenizer_path: str) -> dict[str, Any]:
    """The task file's `data` block; what stands under its `data_path` counts from the experiment's folder."""
    words = [
        entry
        for shard in mixture.train
        for entry in (_number(shard.weight), str(PurePosixPath(BASE_VARIABLE) / shard.prefix))
    ]
    tokenizer = {
        "tokenizer_type": "HFTokenizerFS",
        "tokenizer_path": tokenizer_path,
        "vocab_size": mixture.vocabulary_size,
        "make_vocab_size_divisible_by": FLAGSCALE_PADDING,
    }
    return {"data": {"data_path": words, "split": 1, "no_mmap_bin_files": True, "tokenizer": tokenizer}}


def flagscale_experiment(mixture: MixtureFolder, base: str) -> dict[str, Any]:
    """The experiment file's part that the data needs: where the shards lie, and the seed."""
    _refuse_blanks(base)
    seed = {} if mixture.seed is None else {"seed": mixture.seed % 2**31}
    return {"experiment": {"dataset_base_dir": base, **seed}}


def _at(base: str, prefix: str) -> str:
    return f"{base.rstrip('/')}/{prefix}"


def _number(weight: float) -> float | int:
    return int(weight) if weight.is_integer() else weight


def _weight(weight: float) -> str:
    return str(_number(weight))


def _refuse_blanks(base: str) -> None:
    if base.split() != [base]:
        raise InputError(
            f"`{base}` has blanks, and Megatron's lists are divided by blanks",
            hint="move the folder, or name the place where it will lie: `--base /data/mixture`",
        )
