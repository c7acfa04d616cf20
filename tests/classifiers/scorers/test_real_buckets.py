"""Buckets on real text: more than 10,000 passages of English articles and Chinese web pages, by a fastText scorer that
was trained on other such passages."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import fasttext
import numpy as np
import pyarrow as pa
import pytest

from classifiers.quality.buckets import NUM_BUCKETS, fit_buckets, share_buckets
from classifiers.scorers.stage import outputs_of, read_labels, scorer_stage
from classifiers.scorers.told import Telling, ranked_values

LEAST_DOCUMENTS, TRAINED_ON = 10_000, 1500
FILES = ("encyclopedia/en-articles.jsonl.gz", "text/zh-web.jsonl.gz")


def passages(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield from (text for text in json.loads(line)["text"].split("\n") if len(text) > 80)


def train(path: Path, good: list[str], bad: list[str]) -> str:
    """Character n-grams, so that the model knows something of every text."""
    lines = [f"__label__{label} {text}\n" for label, texts in (("hq", good), ("cc", bad)) for text in texts]
    path.with_suffix(".txt").write_text("".join(lines), encoding="utf-8")
    options = {"dim": 8, "epoch": 1, "lr": 0.02, "minn": 1, "maxn": 2, "bucket": 20_000, "thread": 1, "verbose": 0}
    fasttext.train_supervised(str(path.with_suffix(".txt")), **options).save_model(str(path))
    return str(path)


@pytest.fixture(scope="module")
def scored(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """Values and bytes of every passage."""
    articles, web = (list(passages(shared_data / name)) for name in FILES)
    texts = articles[TRAINED_ON:] + web[TRAINED_ON:]
    model = train(tmp_path_factory.mktemp("model") / "hq.bin", articles[:TRAINED_ON], web[:TRAINED_ON])
    stage = scorer_stage(model)
    found = stage.make(stage.config)(pa.record_batch({"text": pa.array(texts)}))
    labels = read_labels(model)
    values = ranked_values(outputs_of(found.column(0)), labels, Telling(positive=("hq",)))
    return values, np.array([len(text.encode()) for text in texts])


def test_each_bucket_has_a_twentieth_of_the_bytes(scored: tuple[np.ndarray, np.ndarray]) -> None:
    values, sizes = scored
    assert len(values) >= LEAST_DOCUMENTS
    shares = share_buckets(values, sizes, fit_buckets(values, sizes))
    assert max(abs(share - 0.05) for share in shares) < 0.005


def test_thresholds_of_one_half_hold_for_the_other(scored: tuple[np.ndarray, np.ndarray]) -> None:
    values, sizes = scored
    drawn = np.random.default_rng(1).random(len(values)) < 0.5
    shares = share_buckets(values[~drawn], sizes[~drawn], fit_buckets(values[drawn], sizes[drawn]))
    assert max(abs(share - 0.05) for share in shares) < 0.01


def test_a_scorer_of_whole_numbers_fills_few_buckets_and_the_rest_are_empty(
    scored: tuple[np.ndarray, np.ndarray],
) -> None:
    """Six different scores are at most six buckets: ties share one, the higher the score the higher the bucket."""
    values, sizes = scored
    rounded = np.rint(5 * values / values.max())
    shares = np.array(share_buckets(rounded, sizes, fit_buckets(rounded, sizes)))
    assert (shares > 0).sum() <= len(np.unique(rounded)) and (shares == 0).sum() >= NUM_BUCKETS - 6
    assert shares.sum() == pytest.approx(1)
