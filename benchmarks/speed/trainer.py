"""The trainer's tokens per second beside a GPT-2 loop in nanoGPT's manner and litgpt: as many parameters, one batch.

Every contender makes whole steps (batch, forward, backward, clipping, AdamW) in bfloat16 over float32 weights on one
thread, each in a process of its own as its own command starts it, and they take turns. Documents are not kept apart,
since neither peer can; ours with documents apart stands beside it. On a GPU (`--gpu`) the presets of published shapes
train on packed documents, and the share of the machine's own matrix rate that they reach is counted as PaLM counts it.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.speed._gpt_loop import GptLoop, Shape
from benchmarks.speed._litgpt_loop import LitGptLoop
from benchmarks.table import Row, publish
from storage.megatron import IndexedWriter
from trainer.compute import keep_freed_memory
from trainer.data.mixture import open_mixture
from trainer.parallel.world import World
from trainer.plans import make_plan
from trainer.settings import Preset, TrainingConfig, load_preset
from trainer.train import Outcome, Run

CORPUS_TOKENS = 2_000_000
MEAN_LOG_LENGTH = 5.0
"""Of documents in tokens: half of them are under 148, the mean is 245."""
END = 0
STEPS_A_TURN = 5
"""The first of them find the contender's weights gone from the cache."""
WARM_UP = 3
MATRIX = 4096
GPU_PRESETS = {"chuxin-1.6b": 4, "olmo2-1b": 4, "openseek-small-v1": 4}
"""Samples of 4,096 tokens that a GPU takes at once."""

Turn = Callable[[], list[float]]
"""Some steps of a contender; CPU seconds of each."""
Ids = npt.NDArray[np.uint16]


class Loop(Protocol):
    """A contender: one call is one step."""

    num_parameters: int

    def __call__(self) -> object: ...


@dataclass(frozen=True, kw_only=True)
class Size:
    """A shape and the feed-forward sizes with which LLaMA's kind has as many parameters as GPT-2's."""

    name: str
    shape: Shape
    ffn_size: int


SIZES = (
    Size(
        name="1.3 M parameters, T 256",
        shape=Shape(vocabulary=4096, hidden=128, layers=4, heads=2, length=256, batch=8),
        ffn_size=360,
    ),
    Size(
        name="9 M parameters, T 512",
        shape=Shape(vocabulary=8192, hidden=256, layers=9, heads=4, length=512, batch=4),
        ffn_size=704,
    ),
)


def main(arguments: list[str]) -> int:
    """Measure, print the table and write it to `benchmarks/results`."""
    options = argparse.ArgumentParser(prog="make bench-trainer", description=__doc__)
    options.add_argument("--seconds", type=float, default=60, help="of measuring, for each size  [60]")
    options.add_argument(
        "--gpu", action="store_true", help="measure the presets of published shapes on this GPU instead"
    )
    options.add_argument("--only", default="", help="the size whose name contains this  [both]")
    chosen = options.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if chosen.gpu:
            rows = gpu_rows(Path(folder), chosen.seconds)
        else:
            sizes = [size for size in SIZES if chosen.only in size.name]
            rows = [row for size in sizes for row in cpu_rows(size, Path(folder), chosen.seconds)]
    notes = [
        "tokens a second of whole steps, bfloat16 products and float32 weights, AdamW; the best of the turns of 5 "
        "steps that the contenders took one after the other (CPU seconds), since other work only ever adds to them",
        "peers: the GPT-2 loop compiled by torch.compile, litgpt's LLaMA by its own loop's means, compiled; ours as it "
        "is by default, and with --compile",
        f"heads of 64; {CORPUS_TOKENS:,} tokens in documents of lognormal length, half of them under 148 tokens",
    ]
    publish("trainer_gpu" if chosen.gpu else "trainer", rows, packages=("torch", "litgpt"), notes=notes)
    return 0


def cpu_rows(size: Size, folder: Path, seconds: float) -> list[Row]:
    """Ours beside both peers, and with documents apart."""
    shape, tokens = size.shape, invent_tokens(size.shape.vocabulary)
    data = write_mixture(folder / f"{size.shape.hidden}", tokens, size.shape.vocabulary)
    contenders: dict[str, Callable[[], Loop]] = {
        "gpt": partial(GptLoop, shape, tokens, torch.device("cpu"), compile=True),
        "litgpt": partial(LitGptLoop, shape, size.ffn_size, tokens),
        "plain": partial(OurLoop, size, data, compile=False, apart=False),
        "compiled": partial(OurLoop, size, data, compile=True, apart=False),
        "apart": partial(OurLoop, size, data, compile=False, apart=True),
        "compiled apart": partial(OurLoop, size, data, compile=True, apart=True),
    }
    with ExitStack() as processes:
        turns = {name: processes.enter_context(in_own_process(make)) for name, make in contenders.items()}
        rates = take_turns(turns, shape.length * shape.batch, seconds)
    peers = {"GPT-2 loop, compiled": rates["gpt"], "litgpt, compiled": rates["litgpt"]}
    named = {
        "compiled": "--compile",
        "plain": "not compiled",
        "compiled apart": "--compile, documents apart",
        "apart": "not compiled, documents apart",
    }
    return [
        Row(what=f"{size.name}, {words}", figure=rates[key], unit="tokens/s", peer=peer, peer_figure=rate)
        for peer, rate in peers.items()
        for key, words in named.items()
    ]


@contextmanager
def in_own_process(make: Callable[[], Loop]) -> Iterator[Turn]:
    """A contender in a fresh process, ready: compiled and warm."""
    fresh = multiprocessing.get_context("spawn")
    here, there = fresh.Pipe()
    process = fresh.Process(target=make_steps, args=(make, there), daemon=True)
    process.start()
    here.recv()

    def turn() -> list[float]:
        here.send(STEPS_A_TURN)
        seconds: list[float] = here.recv()
        return seconds

    yield turn
    here.send(0)
    process.join()


def make_steps(make: Callable[[], Loop], orders: Connection) -> None:
    """Make as many steps as is asked for, until none are; tells their CPU seconds."""
    torch.set_num_threads(1)
    step, asked = make(), WARM_UP
    print(f"{type(step).__name__}: {step.num_parameters:,} parameters", flush=True)
    while asked:
        orders.send([_cpu_seconds(step) for _ in range(asked)])
        gc.collect()
        asked = orders.recv()


def take_turns(turns: Mapping[str, Turn], tokens_per_step: int, seconds: float) -> dict[str, float]:
    """Tokens a CPU second of each contender: the best of its turns, the median step of a turn."""
    best = dict.fromkeys(turns, 0.0)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, turn in turns.items():
            best[name] = max(best[name], tokens_per_step / statistics.median(turn()))
    return best


def _cpu_seconds(step: Loop) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


class OurLoop:
    """The trainer's own loop in a process made ready as `train` does it; one call is one step."""

    def __init__(self, size: Size, data: Path, *, compile: bool, apart: bool) -> None:
        keep_freed_memory()
        self.run = our_run(size, data, compile=compile, apart=apart)
        self.num_parameters = self.run.num_parameters

    def __call__(self) -> Outcome:
        return self.run.run_step()


def our_run(size: Size, data: Path, *, compile: bool, apart: bool) -> Run:
    """The trainer's own loop, ready to make steps."""
    shape = size.shape
    config = TrainingConfig(
        steps=10_000, sequence_length=shape.length, global_batch=shape.batch, micro_batch=shape.batch, threads=1,
        precision="bf16", device="cpu", compile=compile, reset_attention_mask=apart, reset_position_ids=apart,
    )  # fmt: skip
    model = {
        "hidden_size": shape.hidden, "num_layers": shape.layers, "num_heads": shape.heads, "num_kv_heads": shape.heads,
        "ffn_size": size.ffn_size, "max_positions": shape.length,
    }  # fmt: skip
    return open_run(data, Preset(name="benchmark", model=model, training=config), torch.device("cpu"))


def open_run(data: Path, preset: Preset, device: torch.device) -> Run:
    mixture, world = open_mixture(data), World(rank=0, size=1, device=device)
    return Run(mixture, make_plan(mixture, preset, world), data / "out", world, lambda _: None)


def gpu_rows(folder: Path, seconds: float) -> list[Row]:
    """Share of the measured matrix rate of each preset, documents apart, 4,096 tokens a sample."""
    device, rows = torch.device("cuda"), []
    peak = matrix_rate(device)
    for name, batch in GPU_PRESETS.items():
        told = {"global_batch": batch, "micro_batch": batch, "device": "cuda", "precision": "bf16", "compile": True}
        preset = load_preset(name, {**told, "steps": 10_000, "sequence_length": 4096})
        vocabulary = int(preset.model["vocabulary_size"])
        data = write_mixture(folder / name, invent_tokens(min(vocabulary, 60_000)), min(vocabulary, 60_000))
        run = open_run(data, preset, device)
        rate = gpu_rate(run, batch * 4096, seconds)
        used = rate * run.plan.model.flops_per_token(4096)
        rows += [
            Row(what=f"{name}, 4,096 tokens, bf16", figure=used, unit="FLOP/s", peer="matrix rate", peer_figure=peak),
            Row(what=f"{name}, 4,096 tokens, bf16", figure=rate, unit="tokens/s"),
        ]
        del run
        gc.collect()
        torch.cuda.empty_cache()
    return rows


def gpu_rate(run: Run, tokens: int, seconds: float) -> float:
    """Tokens a second: the median step after those that compile."""
    for _ in range(5):
        run.run_step()
    taken, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run.run_step()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return tokens / statistics.median(taken)


def matrix_rate(device: torch.device) -> float:
    """FLOP/s of bfloat16 products of 4,096 × 4,096 matrices, the best of some."""
    left, right = (torch.randn(MATRIX, MATRIX, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(10):
            left @ right
        torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - start) / 10)
    return 2 * MATRIX**3 / best


def invent_tokens(vocabulary: int) -> Ids:
    """Ids as frequent as words are (Zipf), documents of lognormal length ending with `END`."""
    random = np.random.default_rng(1)
    shares = 1 / np.arange(1, vocabulary)
    ids = 1 + random.choice(vocabulary - 1, CORPUS_TOKENS, p=shares / shares.sum())
    lengths = 2 + random.lognormal(MEAN_LOG_LENGTH, 1, CORPUS_TOKENS // 100).astype(np.int64)
    ends = np.cumsum(lengths) - 1
    ids[ends[ends < CORPUS_TOKENS]] = END
    ids[-1] = END
    return ids.astype(np.uint16)


def write_mixture(folder: Path, tokens: Ids, vocabulary: int) -> Path:
    """A mixture folder of one shard."""
    (folder / "train").mkdir(parents=True)
    with IndexedWriter(folder / "train/a", np.uint16) as writer:
        for document in np.split(tokens, np.flatnonzero(tokens == END) + 1):
            if len(document):
                writer.add(document)
    facts: dict[str, dict[str, Any]] = {
        "blend": {"train": [{"weight": 1, "prefix": "train/a", "source": "a"}], "heldout": {}, "mixture": "0" * 32},
        "vocabulary": {
            "size": vocabulary, "padded_size": vocabulary, "end_of_document": END, "dtype": "uint16",
            "sha256": hashlib.sha256(b"{}").hexdigest(),
        },
    }  # fmt: skip
    for name, row in facts.items():
        (folder / f"{name}.json").write_text(json.dumps({"format_version": 1, **row}))
    (folder / "tokenizer.json").write_text("{}")
    return folder
