"""`gristmill export --format megatron|flagscale|olmo-core`: a mixture in the words of another trainer.

Megatron-LM and FlagScale get lists that point to the mixture's shards, which stay where they are; OLMo-core, which
reads raw ids and repeats by ratio, gets token files too. The tokenizer lies beside the lists as transformers loads it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from mixtures.folder import MixtureFolder, read_mixture_folder
from mixtures.megatron_lists import data_path, flagscale_data, flagscale_experiment, per_split
from mixtures.olmo_core import dataset_config, heldout_config, source_list, write_token_files
from mixtures.select import TOKENIZER
from storage.commit import write_atomically
from storage.errors import ModelError

CARD = "README.md"
TOKENIZER_FOLDER = "tokenizer"

MEGATRON_CARD = """# A mixture for Megatron-LM

    --data-args-path {target}/data_path.txt --split 100,0,0
    --tokenizer-type HuggingFaceTokenizer --tokenizer-model {target}/tokenizer
    --seq-length {length} --train-samples {samples}

or, with the held-out texts as validation data, in place of the first line:

    --per-split-data-args-path {target}/per_split.json

Weights are tokens, repeats stand in the indices: one pass over {tokens:,} tokens is the whole training.
"""
FLAGSCALE_CARD = """# A mixture for FlagScale and OpenSeek

`data.yaml` is the `data` block of the task's file (`train/….yaml`); the entries of `experiment.yaml` belong under
`experiment` in the experiment's file. `dataset_base_dir` says where the shards lie; change it when they move. Weights
are tokens, repeats stand in the indices: one pass over {tokens:,} tokens is the whole training
(`train_samples: {samples}` with `seq_length: {length}`).
"""
OLMO_CARD = """# A mixture for OLMo-core

`train/` and `heldout/` hold token ids without a header, {dtype}, each document once and ended by id {end}.

    from olmo_core.data import NumpyFSLDatasetConfig, NumpyPaddedFSLDatasetConfig
    dataset = NumpyFSLDatasetConfig.from_yaml("{target}/dataset.yaml").build()
    heldout = NumpyPaddedFSLDatasetConfig.from_yaml("{target}/heldout.yaml").build()

`sources.yaml` is the list of sources alone (`SourceMixtureList.from_yaml`). `global_batch_size` in `dataset.yaml` only
rounds the mixture up to whole batches; it is one sequence, so that nothing is added. `max_repetition_ratio` is what the
plan repeats a source by; OLMo-core begins each file anew, and the documents that the plan gives once more stand first.
"""


def export_lists(mixture: Path, target: Path, form: str, base: str | None) -> None:
    """Write the lists of the mixture folder `mixture` to `target`; `base` is what their paths begin with."""
    opened = read_mixture_folder(mixture)
    _write_tokenizer(opened, target / TOKENIZER_FOLDER)
    _WRITERS[form](opened, target, base)
    click.echo(f"{opened.train_tokens:,} tokens of {len(opened.shares())} sources; the lists are in {target}")


def _megatron(mixture: MixtureFolder, target: Path, base: str | None) -> None:
    where = base or str(mixture.folder)
    words = data_path(mixture, where)
    lines = [f"{weight} {prefix}" for weight, prefix in zip(words[::2], words[1::2], strict=True)]
    write_atomically(target / "data_path.txt", ("\n".join(lines) + "\n").encode())
    write_atomically(target / "per_split.json", _json(per_split(mixture, where)))
    write_atomically(target / CARD, MEGATRON_CARD.format(target=target.resolve(), **_pass(mixture)).encode())


def _flagscale(mixture: MixtureFolder, target: Path, base: str | None) -> None:
    tokenizer = str(target.resolve() / TOKENIZER_FOLDER)
    write_atomically(target / "data.yaml", _yaml(flagscale_data(mixture, tokenizer)))
    experiment = flagscale_experiment(mixture, base or str(mixture.folder))
    write_atomically(target / "experiment.yaml", _yaml(experiment))
    write_atomically(target / CARD, FLAGSCALE_CARD.format(**_pass(mixture)).encode())


def _olmo_core(mixture: MixtureFolder, target: Path, base: str | None) -> None:
    where, tokenizer = base or str(target.resolve()), str(target.resolve() / TOKENIZER_FOLDER)
    train, held = write_token_files(target, mixture)
    dataset = dataset_config(mixture, train, where, tokenizer)
    write_atomically(target / "sources.yaml", _yaml(source_list(mixture, train, where)))
    write_atomically(target / "heldout.yaml", _yaml(heldout_config(mixture, held, where, tokenizer)))
    write_atomically(target / "dataset.yaml", _yaml(dataset))
    told = {"dtype": dataset["dtype"], "end": mixture.end_of_document, "target": target.resolve()}
    write_atomically(target / CARD, OLMO_CARD.format(**told).encode())


_WRITERS: Mapping[str, Callable[[MixtureFolder, Path, str | None], None]] = {
    "megatron": _megatron,
    "flagscale": _flagscale,
    "olmo-core": _olmo_core,
}
LISTS = tuple(_WRITERS)


def _pass(mixture: MixtureFolder) -> dict[str, Any]:
    length = mixture.sequence_length or 4096
    return {"tokens": mixture.train_tokens, "length": length, "samples": mixture.train_tokens // length}


def _write_tokenizer(mixture: MixtureFolder, folder: Path) -> None:
    """`tokenizer.json` with the little file that lets transformers' AutoTokenizer open it."""
    data = (mixture.folder / TOKENIZER).read_bytes()
    write_atomically(folder / TOKENIZER, data)
    write_atomically(folder / "tokenizer_config.json", tokenizer_config(data, mixture.end_of_document))


def tokenizer_config(data: bytes, end_of_document: int) -> bytes:
    """`tokenizer_config.json` for these bytes of a `tokenizer.json`. Raises ModelError when it lacks the id."""
    added = json.loads(data).get("added_tokens") or []
    ends = [row["content"] for row in added if row["id"] == end_of_document]
    if not ends:
        raise ModelError(f"the tokenizer has no special token with id {end_of_document}, the end of a document")
    return _json({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": ends[0], "bos_token": ends[0]})


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _yaml(value: Any) -> bytes:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=10_000)
    return text.encode()
