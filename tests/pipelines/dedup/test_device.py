"""Signatures in torch against the kernels, bit for bit, on the CPU: what runs on a GPU is the same arithmetic."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup import device
from pipelines.dedup.characters import character_tables
from pipelines.dedup.device import sign_texts_on
from pipelines.dedup.hashing import permutations
from pipelines.dedup.kernels import sign_texts
from pipelines.dedup.parameters import DedupConfig
from pipelines.dedup.search.candidates import sign_part
from pipelines.dedup.search.run import Task
from pipelines.dedup.signatures import normalise
from tests.pipelines.dedup.dedup_corpora import corpus
from tests.pipelines.dedup.searching import one_by_one, published, search

ODD = "aZ09 .\n\u00ad\u0301\u0327é漢字かไท\u0e31က\u200d\U0001f600\U0001d49c\u1112"
Signed = tuple[list[int], list[list[int]]]


def on_both(
    offsets: np.ndarray, data: np.ndarray, *, by_word: bool = True, size: int = 5, count: int = 12, bands: int = 3
) -> tuple[Signed, Signed]:
    tables, drawn = character_tables(), permutations(1, count)
    kernel = sign_texts(offsets, data, by_word, size, tables.kinds, tables.lower, *drawn, bands)
    torched = sign_texts_on("cpu", offsets, data, by_word, size, *drawn, bands)
    return tuple((counts.tolist(), keys.tolist()) for counts, keys in (kernel, torched))  # type: ignore[return-value]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(st.text(max_size=60), st.text(st.sampled_from(ODD), max_size=60)), max_size=6),
    st.integers(1, 6),
    st.booleans(),
)
def test_any_texts_are_signed_as_the_kernels_sign_them(texts: list[str], size: int, by_word: bool) -> None:
    kernel, torched = on_both(*normalise(pa.array(texts, pa.string())), by_word=by_word, size=size)
    assert torched == kernel


@pytest.mark.parametrize("by_word", [True, False])
def test_every_code_point_is_read_and_cut_alike(by_word: bool) -> None:
    codes = [code for code in range(1, sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    texts = ["a".join(chr(code) for code in codes[i : i + 64]) for i in range(0, len(codes), 64)]
    kernel, torched = on_both(*normalise(pa.array(texts)), by_word=by_word, size=2, count=2, bands=2)
    assert torched == kernel


def test_long_words_many_sizes_and_repeats_are_signed_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(1)
    texts = ["", " ", "x" * 4096, "x" * 4097, "word " * 3000, "a b c d", "漢" * 2000]
    texts += [" ".join(str(draw.randrange(500)) for _ in range(draw.randrange(400))) for _ in range(200)]
    monkeypatch.setattr(device, "TILE", 1000)
    monkeypatch.setattr(device, "BATCH_BYTES", 5000)
    for size in (1, 5, 64):
        kernel, torched = on_both(*normalise(pa.array(texts)), size=size, count=250, bands=25)
        assert torched == kernel


def test_broken_utf8_and_a_full_device_go_to_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = np.frombuffer(b"caf\xc3|\xe6\xbc|a\xffb c", np.uint8)
    offsets = np.array([0, 5, 8, len(broken)])
    assert on_both(offsets, broken)[0] == on_both(offsets, broken)[1]

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(device, "_tokens", full)
    kernel, torched = on_both(*normalise(pa.array(["one two three"] * 3)))
    assert torched == kernel


def test_a_search_that_signs_on_a_device_finds_the_same(tmp_path: Path) -> None:
    parts = [corpus([" ".join(f"{word}{i}" for i in range(80)) + f" {n}" for n in range(9)]) for word in ("mill", "磨")]

    def on_device(task: Task, arguments: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        more = {"device": "cpu:0"} if task is sign_part else {}
        return one_by_one(task, [{**each, **more} for each in arguments])

    search(tmp_path / "cpu", parts, DedupConfig())
    search(tmp_path / "device", parts, DedupConfig(), on_device)
    files = sorted(path.relative_to(tmp_path / "cpu") for path in (tmp_path / "cpu").rglob("*") if path.is_file())
    assert published(tmp_path / "cpu", "pairs").num_rows > 0
    for name in files:
        assert (tmp_path / "device" / name).read_bytes() == (tmp_path / "cpu" / name).read_bytes()
