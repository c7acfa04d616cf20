"""The GPU's part of `bench-scoring`: models of random weights, texts made up, wall seconds.

Invariant: a rate is of whole calls, token ids in host memory or texts in, scores in host memory out; the least of three
turns after one that warms up. Nothing is imported that a machine with torch, transformers, pyarrow and numpy lacks.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.table import Row
from classifiers.encoders.classifier import ClassifierConfig, TextClassifier, open_classifier
from classifiers.encoders.tokens import TokenRows, pack_rows

TOKENS = 512
WORDS = 20_000
SAME_BUCKET_DOCUMENTS = 400
NUM_BUCKETS = 20
MINILM = {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
BASE = {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
DEBERTA = {
    **BASE, "relative_attention": True, "position_buckets": 256, "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False,
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any], int]] = {
    "MiniLM": ("bert", MINILM, 65_536),
    "DeBERTa-base size": ("deberta-v2", DEBERTA, 16_384),
}
"""Architecture, sizes, and documents measured."""


def measure_gpu() -> tuple[list[Row], list[str]]:
    """Rows of every model, or a note that there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        return [], ["no GPU here: the GPU's part was not measured"]
    rows = [row for name in MODELS for row in model_rows(name)]
    return rows, [f"GPU: {torch.cuda.get_device_name()}, {os.cpu_count()} cores beside it; torch {torch.__version__}"]


def model_rows(name: str) -> list[Row]:
    import torch

    kind, sizes, count = MODELS[name]
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder), kind, sizes)
        config = ClassifierConfig(max_tokens=TOKENS, threads=os.cpu_count() or 1)
        on_gpu = open_classifier(folder, config)
        on_cpu = open_classifier(folder, config, device=torch.device("cpu"))
    texts = made_up_texts(count)
    rows = on_gpu.tokenize(texts)
    seconds, cores = least_seconds(lambda: on_gpu.score_tokens(rows))
    from_text, text_cores = least_seconds(lambda: on_gpu.score(texts))
    of = f"GPU, {name}, {rows.lengths.mean():.0f} tokens a document"
    return [
        Row(what=f"{of}: from token ids to score, {cores:.1f} cores", figure=count / seconds, unit="documents/s"),
        Row(what=f"{of}: from text to score, {text_cores:.1f} cores", figure=count / from_text, unit="documents/s"),
        Row(what=f"{of}: same bucket as on the CPU", figure=same_bucket(on_gpu, on_cpu, rows), unit="share"),
    ]  # fmt: skip


def save_model(folder: Path, kind: str, sizes: dict[str, Any]) -> None:
    """A regression of random weights, its tokenizer one of whole words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(0)
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words()])}
    config = AutoConfig.for_model(
        kind, vocab_size=len(vocabulary), num_labels=1, max_position_embeddings=TOKENS, **sizes
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))


def words() -> list[str]:
    letters = np.random.default_rng(0).integers(97, 123, (WORDS, 9)).astype(np.uint8)
    return sorted({row[: 2 + i % 8].tobytes().decode() for i, row in enumerate(letters)})


def made_up_texts(count: int) -> pa.StringArray:
    """Texts of 512 tokens or somewhat fewer each; 256 different ones, in another order of words each time."""
    random, known = np.random.default_rng(1), np.array(words())
    some = [" ".join(known[random.zipf(1.2, TOKENS) % len(known)]) for _ in range(256)]
    return pa.array([f"{known[i % len(known)]} {some[i % 256]}" for i in range(count)])


def least_seconds(work: Callable[[], object], turns: int = 3) -> tuple[float, float]:
    """The least wall seconds after a turn to warm up, and how many cores were busy in that turn."""
    work()
    least, cores = float("inf"), 0.0
    for _ in range(turns):
        start, busy = time.perf_counter(), time.process_time()
        work()
        seconds = time.perf_counter() - start
        if seconds < least:
            least, cores = seconds, (time.process_time() - busy) / seconds
    return least, cores


def same_bucket(on_gpu: TextClassifier, on_cpu: TextClassifier, rows: TokenRows) -> float:
    """The share of documents that the CPU's own percentiles put into the same twentieth by either score.

    They are cut to lengths of their own, so that scores differ.
    """
    cut = [rows.ids[start : start + 16 + i] for i, start in enumerate(rows.offsets[:SAME_BUCKET_DOCUMENTS])]
    expected, found = on_cpu.score_tokens(pack_rows(cut)), on_gpu.score_tokens(pack_rows(cut))
    limits = np.quantile(expected, np.linspace(0, 1, NUM_BUCKETS + 1)[1:-1])
    return float((np.digitize(expected, limits) == np.digitize(found, limits)).mean())
