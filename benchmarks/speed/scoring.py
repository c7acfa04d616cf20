"""Documents scored a second by encoders and by fastText, beside transformers, sentence-transformers and C++ fastText.

Invariant: ours and each peer read the same documents in this process, turn about, and give the same kind of result.
On the CPU: one thread, CPU seconds, the least of several turns; peers get batches sorted by length, their best setting.
On a GPU (`--gpu`: nothing but torch, transformers, pyarrow and numpy is needed): wall seconds, random weights, texts
made up. The best of three turns counts.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.corpora import FOLDER, RealText, read_documents
from benchmarks.scoring_on_gpu import measure_gpu
from benchmarks.table import Row, least_cpu_seconds, publish
from classifiers.encoders.encoder import Encoder, EncoderConfig
from classifiers.encoders.models import DEFAULT_MODEL, find_model
from classifiers.encoders.tokens import TextTokenizer

MAX_TOKENS = 256
CHARACTERS = 2000
BATCH = 32
"""Documents of a peer's batch. Of 1, 4, 8, 16 and 32 it was the fastest: 31.7 documents a second, alone 29.4."""
ON_CPU = "CPU, MiniLM, 256 tokens, one core"
Floats = npt.NDArray[np.float32]


def long_documents(folder: Path, count: int) -> list[RealText]:
    documents = [document for document in read_documents(folder) if len(document.text) >= CHARACTERS]
    return random.Random(0).sample(documents, min(count, len(documents)))


class TransformersBatches:
    """What a user of transformers writes: sorted by length, padded, means over the mask, unit length."""

    def __init__(self, dtype: str) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        folder = find_model(DEFAULT_MODEL).folder
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()

    def __call__(self, texts: list[str]) -> Floats:
        import torch

        vectors = np.empty((len(texts), self._model.config.hidden_size), np.float32)
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        with torch.inference_mode():
            for start in range(0, len(order), BATCH):
                rows = order[start : start + BATCH]
                inputs = self._tokenizer(
                    [texts[i] for i in rows], padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
                )
                states = self._model(**inputs).last_hidden_state.float()
                mask = inputs["attention_mask"][..., None]
                means = (states * mask).sum(1) / mask.sum(1)
                vectors[rows] = torch.nn.functional.normalize(means, dim=1).numpy()
        return vectors


def sentence_transformers_batches() -> Callable[[list[str]], Floats]:
    from sentence_transformers import SentenceTransformer

    model: Any = SentenceTransformer(str(find_model(DEFAULT_MODEL).folder), device="cpu")
    model.max_seq_length = MAX_TOKENS
    return lambda texts: np.asarray(model.encode(texts, batch_size=BATCH, show_progress_bar=False), np.float32)


def fit_probe(documents: list[RealText], vectors: Floats) -> Callable[[Floats], npt.NDArray[np.float64]]:
    """A quality head over vectors, as stored in half precision: encyclopedia against all other text."""
    from classifiers.quality.head import HeadConfig, fit_head
    from classifiers.quality.labels import LabelMeaning
    from classifiers.quality.training import LabelledRows
    from storage.identity import content_hash

    hashes = pa.array([content_hash(document.text.encode()) for document in documents], pa.binary(16))
    rows = LabelledRows(
        doc_ids=hashes,
        groups=hashes,
        vectors=vectors.astype(np.float16),
        labels=np.array([float(document.file.startswith("encyclopedia")) for document in documents]),
        languages=[None] * len(documents),
        meaning=LabelMeaning(name="encyclopedia", positive="an article", negative="other text", origin="its file"),
    )
    head = fit_head(rows, HeadConfig(), encoder=DEFAULT_MODEL)
    return lambda vectors: head.score(vectors.astype(np.float16), np.full(len(vectors), -1, np.int8))


def encoder_rows(options: argparse.Namespace) -> list[Row]:
    documents = long_documents(options.data, options.documents)
    few = documents[: options.documents // 4]
    exact = Encoder(EncoderConfig(dtype="float32"))
    expected = exact.embed(pa.array([document.text for document in documents])).vectors
    score = fit_probe(documents, expected)
    ours, peer = Encoder(EncoderConfig()), TransformersBatches("bfloat16")
    texts = [document.text for document in few]
    seconds, theirs, slow = (float("inf"),) * 3
    sentences = sentence_transformers_batches()
    for _ in range(options.turns):
        seconds = min(seconds, least_cpu_seconds(lambda: score(ours.embed(pa.array(texts)).vectors), turns=1)[0])
        theirs = min(theirs, least_cpu_seconds(lambda: peer(texts), turns=1)[0])
        slow = min(slow, least_cpu_seconds(lambda: sentences(texts), turns=1)[0])
    rate, what = len(texts) / seconds, f"{ON_CPU}: documents from text to score"
    found = [ours.embed(pa.array([document.text for document in documents])).vectors, peer([d.text for d in documents])]
    apart = [np.abs(score(vectors) - score(expected)).max() for vectors in found]
    return [
        Row(what=what, figure=rate, unit="documents/s", peer="transformers, bfloat16", peer_figure=len(texts) / theirs),
        Row(what=what, figure=rate, unit="documents/s", peer="sentence-transformers", peer_figure=len(texts) / slow),
        Row(what=f"{ON_CPU}: largest difference of a score to float32, {len(documents)} documents",
            figure=float(apart[0]), unit="of 1", peer="transformers, bfloat16", peer_figure=float(apart[1])),
        tokenizing_row(texts, options.turns),
    ]  # fmt: skip


def tokenizing_row(texts: list[str], turns: int) -> Row:
    """Both give the same ids; the peer gets whole texts, as its users do."""
    from tokenizers import Tokenizer

    files = find_model(DEFAULT_MODEL)
    ours, peer = TextTokenizer(files, MAX_TOKENS), Tokenizer.from_file(str(files.folder / "tokenizer.json"))
    peer.no_padding()
    peer.enable_truncation(MAX_TOKENS)
    peer.encode_special_tokens = True
    column = pa.array(texts)
    seconds, rows = least_cpu_seconds(lambda: ours(column), turns=turns)
    theirs, encoded = least_cpu_seconds(lambda: peer.encode_batch_fast(texts), turns=turns)
    same = np.mean([rows.take([i]).ids.tolist() == encoding.ids for i, encoding in enumerate(encoded)])
    return Row(what=f"tokenization alone, 256 tokens, {same:.2%} of rows the same", figure=len(texts) / seconds,
               unit="documents/s", peer="tokenizers", peer_figure=len(texts) / theirs)  # fmt: skip


def fasttext_rows(options: argparse.Namespace) -> list[Row]:
    """A model with DCLM's settings (100 dimensions, bigrams), trained here: encyclopedia against all other text."""
    import fasttext

    from classifiers.fasttext.model import FastTextClassifier

    documents = read_documents(options.data)
    lines = [" ".join(document.text.split()) for document in documents]
    texts = [line for line in lines if len(line) >= CHARACTERS]
    with tempfile.TemporaryDirectory() as folder:
        train, path = Path(folder) / "train.txt", Path(folder) / "model.bin"
        labels = ["hq" if document.file.startswith("encyclopedia") else "cc" for document in documents]
        train.write_text("".join(f"__label__{label} {line}\n" for label, line in zip(labels, lines, strict=True)))
        trained = fasttext.train_supervised(
            str(train), dim=100, wordNgrams=2, epoch=2, bucket=200_000, thread=1, verbose=0
        )
        trained.save_model(str(path))
        peer, ours = fasttext.load_model(str(path)), FastTextClassifier.open(path)
        column = pa.array(texts)
        ours.predict(column.slice(0, 10))
        seconds, (places, scores) = least_cpu_seconds(lambda: ours.predict(column), turns=options.turns)
        theirs, answers = least_cpu_seconds(lambda: peer.predict(texts), turns=options.turns)
    same = np.mean([ours.labels[place] == answer[0] for place, answer in zip(places[:, 0], answers[0], strict=True)])
    apart = max(abs(float(a) - float(b[0])) for a, b in zip(scores[:, 0], answers[1], strict=True))
    return [
        Row(what=f"fastText scoring, DCLM's settings, {same:.2%} of labels the same, scores within {apart:.1e}",
            figure=len(texts) / seconds, unit="documents/s", peer="fastText, C++", peer_figure=len(texts) / theirs)
    ]  # fmt: skip


def main(arguments: list[str]) -> int:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(prog="make bench-scoring", description=__doc__)
    parser.add_argument("--data", type=Path, default=FOLDER, help="the folder of real documents")
    parser.add_argument("--documents", type=int, default=1000, help="documents whose scores are compared")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--gpu", action="store_true", help="the GPU's part alone")
    options = parser.parse_args(arguments)
    rows: list[Row] = [] if options.gpu else [*encoder_rows(options), *fasttext_rows(options)]
    measured, notes = measure_gpu()
    name = "scoring_gpu" if options.gpu else "scoring"
    packages = ("torch", "transformers", "tokenizers", "sentence-transformers", "fasttext-community")
    publish(name, [*rows, *measured], packages=packages, notes=[*notes, *([] if options.gpu else NOTES)])
    return 0


NOTES = (
    f"documents of {CHARACTERS} characters and more from all files, a quarter of those compared are timed; one thread",
    f"peers read batches of {BATCH} sorted by length; sentence-transformers in float32, its default",
    "scores are those of a logistic head over vectors kept in half precision, as the quality stage keeps them",
)
