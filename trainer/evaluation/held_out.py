"""Held-out text in bits per byte, source by source, with what a unigram model takes for the same tokens beside it.

Bits per byte = Σ nats of all tokens / ln 2 / UTF-8 bytes of the text: comparable between vocabularies, as loss is
not. Every held-out token counts once, end-of-document too, in rows packed as in training; a document that a row cuts
loses its context there, so the figure is slightly too high (never too low).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from storage.commit import write_atomically
from storage.megatron import IndexedReader
from trainer.compute import autocast, separate_documents
from trainer.data.batches import Batch, Int64s, make_batch
from trainer.data.mixture import TOKENIZER_FILE, Mixture
from trainer.models.contract import LanguageModel, Losses
from trainer.models.kinds import count_parameters
from trainer.parallel.world import World
from trainer.serving.generate import generate_text, open_tokenizer
from trainer.serving.sampling import Sampling
from trainer.settings import TrainingConfig

UNIGRAM_TOKENS = 20_000_000
TOKENS_AT_ONCE = 8192
"""Scored at once, whatever training took: the same checkpoint has the same score to the bit."""
COUNT_TOKENS_AT_ONCE = 1 << 22
PROMPT_WORDS = 8
PROMPTED_SOURCES = 3

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SourceScore:
    """`loss` in nats a token; bits per byte of the model and of the unigram model; tokens and UTF-8 bytes scored."""

    bits_per_byte: float
    loss: float
    unigram_bits_per_byte: float
    tokens: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    parameters: int
    sources: Mapping[str, SourceScore]
    samples: Sequence[Mapping[str, str]]

    @property
    def bits_per_byte(self) -> dict[str, float]:
        """The model's figure of every source."""
        return {name: score.bits_per_byte for name, score in self.sources.items()}

    def lines(self) -> list[str]:
        """The scores as a small table."""
        width = max([len("held-out source"), *map(len, self.sources)])
        rows = [f"{'held-out source':{width}}  bits/byte  unigram   nats/token     tokens"]
        for name, score in self.sources.items():
            rows.append(
                f"{name:{width}}  {score.bits_per_byte:9.4f}  {score.unigram_bits_per_byte:7.4f}  "
                f"{score.loss:11.4f}  {score.tokens:9,}"
            )
        return rows


def evaluate_model(
    model: LanguageModel, mixture: Mixture, config: TrainingConfig, world: World, *, prompts: tuple[str, ...] = ()
) -> Evaluation:
    """Score every held-out source and let the model write; the processes of `world` share the scoring."""
    unigram_nats = fit_unigram(mixture)
    sources = {}
    for name in mixture.heldout:
        readers = mixture.heldout_readers(name)
        counts = count_tokens(readers, mixture.vocabulary.size)
        if not counts.sum():
            continue
        nats = score_readers(model, readers, mixture.vocabulary.end_of_document, config, world)
        num_bytes = max(1, mixture.heldout[name].bytes)
        sources[name] = SourceScore(
            bits_per_byte=nats / math.log(2) / num_bytes,
            loss=nats / float(counts.sum()),
            unigram_bits_per_byte=float(counts @ unigram_nats) / math.log(2) / num_bytes,
            tokens=int(counts.sum()),
            bytes=num_bytes,
        )
    samples = write_samples(model, mixture, config, prompts) if world.is_first else []
    return Evaluation(parameters=count_parameters(model), sources=sources, samples=samples)


def score_sources(model: LanguageModel, mixture: Mixture, config: TrainingConfig, world: World) -> dict[str, float]:
    """Bits per byte of every held-out source, and nothing else."""
    end, scores = mixture.vocabulary.end_of_document, {}
    for name, heldout in mixture.heldout.items():
        nats = score_readers(model, mixture.heldout_readers(name), end, config, world)
        scores[name] = nats / math.log(2) / max(1, heldout.bytes)
    return scores


def write_evaluation(path: Path, evaluation: Evaluation, *, step: int, tokens: int) -> None:
    """`evaluation.json`, the file that the report reads."""
    row = {"format_version": 1, "step": step, "tokens": tokens, **asdict(evaluation)}
    write_atomically(path, (json.dumps(row, indent=2, ensure_ascii=False) + "\n").encode())


def score_readers(
    model: LanguageModel, readers: Sequence[IndexedReader], end_of_document: int, config: TrainingConfig, world: World
) -> float:
    """Σ nats over all tokens of the readers."""
    return score_documents(model, documents_of(readers), end_of_document, config, world)


def documents_of(readers: Sequence[IndexedReader]) -> Iterator[npt.NDArray[Any]]:
    """Every sequence of the readers, in order."""
    return (reader[number] for reader in readers for number in range(len(reader)))


@torch.no_grad()
def score_documents(
    model: LanguageModel,
    documents: Iterable[npt.NDArray[Any]],
    end_of_document: int,
    config: TrainingConfig,
    world: World,
) -> float:
    """Σ nats over all tokens of the documents (1-D arrays of ids), shared by the processes of `world`."""
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=world.device)
    for number, batch in enumerate(packed_batches(documents, end_of_document, config)):
        if number % world.size != world.rank:
            continue
        own = batch.to(world.device)
        with autocast(world.device, config):
            apart = separate_documents(own, config)
            losses: Losses = model(own.tokens, own.positions, apart, own.labels, own.weights)
        total += losses.nats
    return float(world.sum(total))


def packed_batches(
    documents: Iterable[npt.NDArray[Any]], end_of_document: int, config: TrainingConfig
) -> Iterator[Batch]:
    """All tokens in order as rows of the training length, each a label once; the last row is filled up, weightless."""
    waiting: list[tuple[Int64s, int]] = []
    for row in _packed_rows(documents, end_of_document, config.sequence_length):
        waiting.append(row)
        if len(waiting) == max(1, TOKENS_AT_ONCE // config.sequence_length):
            yield _weighted_batch(waiting, end_of_document, config)
            waiting = []
    if waiting:
        yield _weighted_batch(waiting, end_of_document, config)


def _packed_rows(
    documents: Iterable[npt.NDArray[Any]], end_of_document: int, length: int
) -> Iterator[tuple[Int64s, int]]:
    """Rows of length + 1 ids, the last of one the first of the next, and how many of a row's labels are text."""
    held = np.array([end_of_document], dtype=np.int64)
    for document in documents:
        held = np.concatenate([held, document], dtype=np.int64)
        while len(held) > length:
            yield held[: length + 1], length
            held = held[length:]
    if len(held) > 1:
        filled = np.full(length + 1, end_of_document, dtype=np.int64)
        filled[: len(held)] = held
        yield filled, len(held) - 1


def _weighted_batch(rows: Sequence[tuple[Int64s, int]], end_of_document: int, config: TrainingConfig) -> Batch:
    batch = make_batch([tokens for tokens, _ in rows], end_of_document, config)
    counts = torch.tensor([count for _, count in rows]).unsqueeze(1)
    return replace(batch, weights=(torch.arange(config.sequence_length) < counts).float())


def fit_unigram(mixture: Mixture) -> Floats:
    """Nats of each token id under the blend's own frequencies, one added to each count; from at most 20 M tokens."""
    shares = np.array([shard.weight for shard in mixture.train])
    counts = [count_tokens([reader], mixture.vocabulary.size) for reader in mixture.readers]
    total = sum(float(count.sum()) for count in counts)
    blended = sum(
        share * total * count / count.sum()
        for share, count in zip(shares / shares.sum(), counts, strict=True)
        if count.sum()
    )
    smoothed: Floats = blended + np.ones(mixture.vocabulary.size)
    nats: Floats = -np.log(smoothed / smoothed.sum())
    return nats


def count_tokens(readers: Sequence[IndexedReader], size: int) -> Floats:
    """How often each id occurs; large readers are counted on evenly spaced sequences."""
    counts = np.zeros(size)
    for reader in readers:
        stride = -(-reader.num_tokens // UNIGRAM_TOKENS) or 1
        waiting: list[npt.NDArray[Any]] = []
        for sequence in range(0, len(reader), stride):
            waiting.append(reader[sequence])
            if sum(map(len, waiting)) > COUNT_TOKENS_AT_ONCE:
                counts += np.bincount(np.concatenate(waiting), minlength=size)[:size]
                waiting = []
        if waiting:
            counts += np.bincount(np.concatenate(waiting), minlength=size)[:size]
    return counts


def write_samples(
    model: LanguageModel, mixture: Mixture, config: TrainingConfig, prompts: tuple[str, ...]
) -> list[dict[str, str]]:
    """What the model writes: after `prompts`, or from nothing and after the first words of held-out texts."""
    tokenizer = open_tokenizer(mixture.folder / TOKENIZER_FILE)
    if not prompts:
        firsts = [reader[0] for name in mixture.heldout for reader in mixture.heldout_readers(name)[:1] if len(reader)]
        prompts = ("", *(tokenizer.decode(first[:PROMPT_WORDS].tolist()) for first in firsts[:PROMPTED_SOURCES]))
    sampling = Sampling(seed=config.seed)
    return [
        {"prompt": prompt, "text": generate_text(model, tokenizer, prompt, mixture.vocabulary, config, sampling)}
        for prompt in prompts
    ]
