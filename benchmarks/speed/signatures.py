"""Signatures on a GPU: normalised texts in host memory to band keys in host memory, with 260 hashes (20 bands of 13).

The texts are made here of random words, in English and Chinese proportions, with the sizes of real documents; neither
numba nor any other package beside torch and pyarrow is needed, so that it runs on a bare GPU machine. Where numba is,
the same texts are signed by the CPU's kernel and compared bit for bit.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.table import Row, least_cpu_seconds, publish
from pipelines.dedup.characters import character_tables
from pipelines.dedup.columns import string_buffers
from pipelines.dedup.device import sign_texts_on
from pipelines.dedup.hashing import permutations

BANDS, ROWS, SHINGLE = 20, 13, 5
TURNS = 5
Signed = tuple[Any, Any]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="make bench-signatures", description=__doc__)
    parser.add_argument("--documents", type=int, default=16_384, help="texts in a batch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu:0")
    asked = parser.parse_args(arguments)
    texts = make_texts(asked.documents, seed=1)
    offsets, data = string_buffers(texts)
    drawn = permutations(1, BANDS * ROWS)
    notes = [f"{asked.documents:,} texts of {len(data) / asked.documents:,.0f} bytes, {BANDS * ROWS} hashes"]
    seconds, found = _least_wall(lambda: sign_texts_on(asked.device, offsets, data, True, SHINGLE, *drawn, BANDS))
    name = torch.cuda.get_device_name() if asked.device == "cuda" else "torch on the CPU, for comparison only"
    kernel = None
    if importlib.util.find_spec("numba"):
        kernel, expected = _sign_by_kernel(offsets, data, *drawn)
        same = all(np.array_equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))
        notes.append(f"bit for bit as the CPU's kernel: {'yes' if same else 'NO'}")
    peer = "our kernel, one core" if kernel else None
    row = Row(what=name, figure=asked.documents / seconds, unit="texts/s", peer=peer, peer_figure=kernel)
    publish("signatures", [row], packages=("torch", "numpy", "pyarrow"), notes=notes)
    return 0


def _sign_by_kernel(offsets: Any, data: Any, multipliers: Any, addends: Any) -> tuple[float, Signed]:
    """(texts a core-second, what it returned)."""
    from pipelines.dedup.kernels import sign_texts

    tables = character_tables()
    least, found = least_cpu_seconds(
        lambda: sign_texts(offsets, data, True, SHINGLE, tables.kinds, tables.lower, multipliers, addends, BANDS),
        turns=TURNS,
    )
    return (len(offsets) - 1) / least, found


def _least_wall(work: Callable[[], Signed]) -> tuple[float, Signed]:
    """(least seconds by the clock, result): a GPU's work is not the CPU's time. The result is on the host, so whole."""
    result, least = work(), float("inf")
    for _ in range(TURNS):
        start = time.perf_counter()
        result = work()
        least = min(least, time.perf_counter() - start)
    return least, result


def make_texts(count: int, seed: int) -> pa.Array:
    """Texts of 2.6 KB on average, a tenth Chinese, words by Zipf's law; normalised as they are."""
    draw = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    english = ["".join(draw.choice(letters, draw.integers(2, 10))) for _ in range(20_000)]
    chinese = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)]
    return pa.array([_text(draw, chinese if i % 10 == 0 else english) for i in range(count)])


def _text(draw: np.random.Generator, words: list[str]) -> str:
    length = int(draw.integers(250, 550)) * (2 if len(words[0]) == 1 else 1)
    ranks = np.minimum(draw.zipf(1.3, length), len(words)) - 1
    return ("" if len(words[0]) == 1 else " ").join(words[rank] for rank in ranks)
