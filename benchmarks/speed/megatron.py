"""Our samples beside megatron-core's: the same tokens in the same order for every kind of shard, and what indices cost.

From a finished run come its mixture (indices into the token store, with repeats), that mixture exported, packed, and
adopted as somebody else's shards. Invariant: every sample of every case is compared, token for token, with what
megatron-core's own builder, `BlendedDataset`, `GPTDataset` and `IndexedDataset` give for the same folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.table import Row, least_cpu_seconds, publish
from mixtures.adopt import Adoption, adopt_blend
from mixtures.blends import BlendEntry
from mixtures.packed import pack_mixture
from mixtures.packing import expected_cuts, pack_documents
from pipelines.commands.export_shards import export_shards
from pipelines.run_folder import RunFolder, require_step
from storage.megatron import IndexedReader
from tokenizer.encode import Encoder
from tokenizer.vocabulary import read_vocabulary, write_vocabulary
from trainer.data.batches import TrainingSamples
from trainer.data.indices import build_blend, build_sample_indices, normalize_weights
from trainer.data.mixture import Mixture, open_mixture

PACKED_LENGTH = 1024
PASSES = (0.3, 1.0, 2.6)
LENGTHS = (128, 1024)
SEEDS = (1234, 7)
TIMED_DOCUMENTS, TIMED_LENGTH, TIMED_SAMPLES = 1_000_000, 2048, 1_000_000
TURNS = 3
PEER = "megatron-core 0.16.1"


@dataclass(frozen=True)
class Case:
    """One blend to read: a mixture, its weights, and how much of it in which form."""

    mixture: Mixture
    weights: tuple[float, ...]
    seed: int
    length: int
    samples: int


def main(arguments: list[str]) -> int:
    """Compare, measure, print the table and write it to `benchmarks/results`."""
    options = argparse.ArgumentParser(prog="make bench-megatron", description=__doc__)
    options.add_argument("--run", type=Path, default=Path("runs/default"), help="a finished run  [runs/default]")
    chosen = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, one_process():
        rows = [*equality_rows(chosen.run.absolute(), Path(folder)), *speed_rows(), *packing_rows(Path(folder))]
    notes = [
        f"every sample of {len(SEEDS)} seeds, {len(LENGTHS)} sequence lengths, {len(PASSES)} numbers of passes and 2 "
        "blends (the mixture's weights, and equal ones) is compared token for token",
        "CPU seconds of one process; megatron's walk and blend are compiled C++, ours NumPy and Python",
    ]
    publish("megatron", rows, packages=("megatron-core", "torch", "numpy"), notes=notes)
    return 0


@contextmanager
def one_process() -> Iterator[None]:
    """A process group of this process alone, without which megatron's builder does not build; its warnings silenced."""
    import torch.distributed

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
        try:
            yield
        finally:
            torch.distributed.destroy_process_group()
            logging.disable(logging.NOTSET)


def equality_rows(run: Path, folder: Path) -> Iterator[Row]:
    """How many sequences and samples are equal, by kind of shard."""
    for kind, mixture in mixtures_of(run, folder).items():
        read = [equal_sequences(reader) for reader in mixture.readers]
        yield _row(f"sequences read, {kind}", read)
        yield _row(f"samples of the blend, {kind}", [equal_samples(case) for case in _cases(mixture)])


def _row(what: str, counted: Sequence[tuple[int, int]]) -> Row:
    equal, of = (sum(column) for column in zip(*counted, strict=True))
    return Row(what=what, figure=equal, unit="equal", peer=PEER, peer_figure=of)


def mixtures_of(run: Path, folder: Path) -> dict[str, Mixture]:
    """The run's mixture and the three that are made of it, by what they are."""
    own = RunFolder(run).mixture(str(require_step(RunFolder(run), "mix").result["mixture"]))
    with redirect_stdout(open(os.devnull, "w")):
        export_shards(RunFolder(run), folder / "exported")
    pack_mixture(folder / "packed", own, PACKED_LENGTH)
    adopt_exported(folder / "exported", folder / "adopted")
    return {
        "indices into the store": open_mixture(own),
        "exported": open_mixture(folder / "exported"),
        "packed": open_mixture(folder / "packed"),
        "adopted": open_mixture(folder / "adopted"),
    }


def adopt_exported(exported: Path, target: Path) -> None:
    tokenizer = read_vocabulary(exported)
    entries = json.loads((exported / "blend.json").read_bytes())["train"]
    facts = {name: getattr(tokenizer.vocabulary, name) for name in ("size", "end_of_document", "dtype")}
    decode = Encoder(tokenizer, fast=False).decode
    adoption = Adoption(target=target, heldout=1000, vocabulary=facts, decode=decode)
    adopt_blend([BlendEntry(str(exported / entry["prefix"]), entry["weight"]) for entry in entries], adoption)
    write_vocabulary(target, tokenizer)


def _cases(mixture: Mixture) -> Iterator[Case]:
    weights = tuple(shard.weight for shard in mixture.train)
    equal = tuple(1.0 for _ in weights)
    for seed, length, passes, blend in itertools.product(SEEDS, LENGTHS, PASSES, (weights, equal)):
        samples = max(1, int(passes * mixture.train_tokens) // length)
        yield Case(mixture, blend, seed, length, samples)


def equal_sequences(reader: IndexedReader) -> tuple[int, int]:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    theirs = IndexedDataset(str(reader.prefix))
    equal = sum(np.array_equal(theirs[i], reader[i]) for i in range(len(reader)))
    return equal, max(len(theirs), len(reader))


def equal_samples(case: Case) -> tuple[int, int]:
    mixture = case.mixture
    train = tuple(replace(shard, weight=weight) for shard, weight in zip(mixture.train, case.weights, strict=True))
    ours = TrainingSamples(
        replace(mixture, train=train), sequence_length=case.length, num_samples=case.samples, seed=case.seed
    )
    theirs = megatron_blend(case)
    equal = sum(np.array_equal(_tokens_of(theirs[i]), ours[i]) for i in range(case.samples))
    return equal, case.samples


def _tokens_of(sample: Any) -> npt.NDArray[np.int64]:
    """The sequence and the last label: what ours has as one array."""
    return np.append(sample["tokens"].numpy(), sample["labels"].numpy()[-1])


def megatron_blend(case: Case) -> Any:
    """What megatron-core's builder makes of the case's prefixes and weights."""
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

    vocabulary = case.mixture.vocabulary
    with tempfile.TemporaryDirectory() as cache:
        config = GPTDatasetConfig(
            random_seed=case.seed,
            sequence_length=case.length,
            blend=([str(shard.prefix) for shard in case.mixture.train], list(case.weights)),
            split="1",
            path_to_cache=cache,
            tokenizer=SimpleNamespace(
                vocab_size=vocabulary.size, eod=vocabulary.end_of_document, pad=-1, unique_identifiers={"class": "none"}
            ),
            reset_position_ids=False,
            reset_attention_mask=False,
            eod_mask_loss=False,
            create_attention_mask=False,
        )
        return BlendedMegatronDatasetBuilder(GPTDataset, [case.samples, 0, 0], lambda: True, config).build()[0]


def speed_rows() -> Iterator[Row]:
    """CPU seconds of the sample index and of the blend, ours and megatron's."""
    lengths = drawn_lengths()
    samples = int(lengths.sum(dtype=np.int64)) // TIMED_LENGTH
    for passes in (1, 4):
        asked = passes * samples - 1
        build = partial(build_sample_indices, lengths, sequence_length=TIMED_LENGTH, num_samples=asked, seed=1)
        ours, _ = least_cpu_seconds(build, turns=TURNS)
        theirs, _ = least_cpu_seconds(partial(_their_indices, lengths, asked), turns=TURNS)
        what = f"indices of {TIMED_DOCUMENTS:,} documents, {asked:,} samples of {TIMED_LENGTH:,} tokens"
        yield Row(what=what, figure=ours, unit="CPU seconds", peer=PEER, peer_figure=theirs)
    yield from _blend_rows()


def drawn_lengths() -> npt.NDArray[np.int32]:
    """Documents as long as those of the web: log-normal, 800 tokens on average."""
    drawn = np.random.default_rng(1).lognormal(6.1, 1.1, TIMED_DOCUMENTS)
    return np.clip(drawn, 2, 100_000).astype(np.int32)


def packing_rows(folder: Path) -> Iterator[Row]:
    """What packing saves on the run's mixture and on many drawn documents, and what it takes."""
    report = json.loads((folder / "packed" / "blend.json").read_bytes())["packing"]
    of_run = f"of the run's {report['documents']:,} documents at {PACKED_LENGTH:,} tokens"
    yield Row(
        what=f"documents cut, packed, {of_run}",
        figure=report["cut"],
        unit="documents",
        peer="concatenated",
        peer_figure=report["cut_unpacked"],
    )
    yield Row(what=f"padding {of_run}", figure=100 * report["padding"] / report["tokens"], unit="% of the tokens")
    lengths = drawn_lengths().astype(np.int64)
    seconds, packed = least_cpu_seconds(partial(pack_documents, lengths, TIMED_LENGTH), turns=TURNS)
    drawn = f"of {TIMED_DOCUMENTS:,} drawn documents at {TIMED_LENGTH:,} tokens"
    cut, concatenated = packed.cut_documents, expected_cuts(lengths, TIMED_LENGTH)
    yield Row(
        what=f"documents cut, packed, {drawn}",
        figure=cut,
        unit="documents",
        peer="concatenated",
        peer_figure=concatenated,
    )
    yield Row(what=f"padding {drawn}", figure=100 * packed.padding / int(lengths.sum()), unit="% of the tokens")
    yield Row(what=f"packing {drawn}", figure=seconds, unit="CPU seconds")


def _their_indices(lengths: npt.NDArray[np.int32], samples: int) -> None:
    """The steps of `GPTDataset._build_document_sample_shuffle_indices`, with its own functions."""
    from megatron.core.datasets import gpt_dataset, helpers

    per_epoch, epochs = int(lengths.sum(dtype=np.int64)), 1
    while epochs * per_epoch < samples * TIMED_LENGTH + 1:
        epochs += 1
    random = np.random.RandomState(1)
    documents = gpt_dataset._build_document_index(np.arange(len(lengths), dtype=np.int32), epochs, random, False)
    index = helpers.build_sample_idx(lengths, documents, TIMED_LENGTH, epochs, per_epoch, True, 1)
    gpt_dataset._build_shuffle_index(len(index) - 1, len(index) - 1, random)


def _blend_rows() -> Iterator[Row]:
    from megatron.core.datasets import helpers_cpp

    for datasets in (4, 84):
        weights = normalize_weights(np.linspace(0.1, 9, datasets).tolist())
        ours, _ = least_cpu_seconds(partial(build_blend, weights, TIMED_SAMPLES), turns=TURNS)
        arrays = np.zeros(TIMED_SAMPLES, np.int16), np.zeros(TIMED_SAMPLES, np.int64)
        build = partial(helpers_cpp.build_blending_indices, *arrays, weights, len(weights), TIMED_SAMPLES, False)
        theirs, _ = least_cpu_seconds(build, turns=TURNS)
        what = f"blend of {datasets} datasets, {TIMED_SAMPLES:,} samples"
        yield Row(what=what, figure=ours, unit="CPU seconds", peer=PEER, peer_figure=theirs)
