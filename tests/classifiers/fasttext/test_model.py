"""A fastText model read by our own kernels: fastText's own labels on any text, and files that are no model."""

from __future__ import annotations

import gzip
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path

import fasttext
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers.fasttext.file import packaged_language_model, read_classifier
from classifiers.fasttext.model import FastTextClassifier
from classifiers.language.reading import LanguageReader
from classifiers.utf8 import utf8_buffers
from storage.errors import ModelError
from tests.classifiers.samples import HOSTILE, TEXTS

WORDS = (
    "mill river grain flour wheel water stone miller road town Mühle Fluß 磨坊 河邊 мельница река</s> 1867 -- a".split()
)
TRAININGS = {
    "softmax": {"loss": "softmax", "minn": 1, "maxn": 3},
    "word n-grams": {"loss": "softmax", "wordNgrams": 3},
    "hierarchical": {"loss": "hs", "minn": 2, "maxn": 4, "wordNgrams": 2},
    "one versus all": {"loss": "ova", "minn": 3, "maxn": 3, "dim": 7},
    "negative sampling": {"loss": "ns"},
    "words only": {"loss": "softmax", "bucket": 0},
    "quantised": {"loss": "hs", "minn": 2, "maxn": 3, "dim": 10, "quantise": {"qnorm": True}},
    "pruned": {"loss": "softmax", "minn": 2, "maxn": 3, "quantise": {"qnorm": True, "cutoff": 300, "retrain": False}},
    "output too": {"loss": "softmax", "minn": 2, "maxn": 3, "quantise": {"qout": True}},
}


def write_training(path: Path, labels: int = 300) -> None:
    draw = random.Random(7)
    lines = []
    for i in range(3000):
        label = (i if i < 2 * labels else int(draw.expovariate(0.02))) % labels
        words = [
            WORDS[(label * 5 + draw.randrange(6)) % len(WORDS)] + str(label % 9) * draw.randrange(2) for _ in range(9)
        ]
        lines.append(f"__label__{label} {' '.join(words)}\n")
    path.write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="module", params=TRAININGS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[FastTextClassifier, object]:
    """The same model, open in ours and in fastText."""
    folder = tmp_path_factory.mktemp("model")
    write_training(folder / "train.txt")
    options = {"dim": 8, "epoch": 3, "lr": 0.5, "thread": 1, "verbose": 0, "bucket": 5000, **TRAININGS[request.param]}
    quantise = options.pop("quantise", None)
    model = fasttext.train_supervised(str(folder / "train.txt"), **options)
    if quantise is not None:
        model.quantize(**quantise)
    model.save_model(str(folder / "model.bin"))
    return FastTextClassifier.open(folder / "model.bin"), fasttext.load_model(str(folder / "model.bin"))


def assert_same(both: tuple[FastTextClassifier, object], lines: list[str], best: int = 3) -> None:
    """The same probabilities, and the same labels where they are not as good as equal."""
    ours, theirs = both
    labels, scores = ours.predict(pa.array(lines), best=best + 1)
    found = zip(*theirs.predict(lines, k=best), strict=True)  # type: ignore[attr-defined]
    for row, (named, chances) in enumerate(found):
        np.testing.assert_allclose(scores[row, : len(chances)], np.minimum(chances, 1), atol=3e-4)
        gaps = np.abs(np.diff(scores[row], prepend=2.0))
        for place, label in enumerate(named):
            if min(gaps[place], gaps[place + 1]) > 1e-3:
                assert ours.labels[labels[row, place]] == label


def test_the_same_labels_as_fasttext(both: tuple[FastTextClassifier, object]) -> None:
    draw = random.Random(1)
    lines = [" ".join(draw.choices(WORDS, k=draw.randrange(1, 30))).replace("</s>", "") for _ in range(300)]
    odd = ["", "  ", "a", "__label__1 mill", "__label__none mill", "mill\tgrain\vflour\fwheel\rtown\0stone", "é" * 50]
    assert_same(both, [*lines, *odd, "mill" * 2000, "磨" * 300])


@pytest.fixture(scope="module")
def lid() -> tuple[FastTextClassifier, object]:
    path = packaged_language_model()
    return FastTextClassifier.open(path), fasttext.load_model(str(path))


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_any_text_gets_lid_176s_labels(lid: tuple[FastTextClassifier, object], texts: list[str]) -> None:
    assert_same(lid, [text.replace("\n", " ").replace("</s>", "") for text in texts])


def test_real_text_gets_lid_176s_labels(lid: tuple[FastTextClassifier, object], shared_data: Path) -> None:
    lines = []
    for name in ("language/sib200-sample", "text/zh-web", "text/c4-sample"):
        with gzip.open(shared_data / f"{name}.jsonl.gz", "rt", encoding="utf-8") as rows:
            lines += [json.loads(row)["text"].replace("\n", " ") for i, row in enumerate(rows) if i % 5 == 0]
    assert_same(lid, lines, best=2)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*WORDS, "磨" * 20, "\n", "x" * 30, "é"]), max_size=60), st.integers(1, 9))
def test_windows_that_adjoin_add_up_to_the_whole(
    lid: tuple[FastTextClassifier, object], words: list[str], n: int
) -> None:
    """A text cut at any bytes into windows has the score of the text that is not cut."""
    text = pa.array([" ".join(words)])
    labels, scores = lid[0].predict(text)
    reading = LanguageReader(lid[0], windows=n, window_bytes=16, whole=True).read(*utf8_buffers(text))
    if reading.labels[0] >= 0:
        np.testing.assert_allclose(reading.scores, np.minimum(scores[:, 0], 1), atol=1e-5)


def test_invalid_utf8_and_hostile_text_are_read(lid: tuple[FastTextClassifier, object]) -> None:
    broken = [b"\xff\xfe", b"\x80" * 10_000, b"abc \xe4\xb8", b"\xc3", b"\xe4\xb8 \xad"]
    labels, scores = lid[0].predict(pa.array(broken, pa.binary()).view(pa.string()))
    assert ((labels >= 0) & (scores > 0)).all()
    assert (lid[0].predict(pa.array(HOSTILE))[0] >= 0).all()


def test_what_was_read_before_changes_nothing(lid: tuple[FastTextClassifier, object]) -> None:
    texts = [" ".join(f"w{i * j}" for j in range(200)) for i in range(200)]
    fresh = FastTextClassifier.open(packaged_language_model())
    warm = lid[0].predict(pa.array(texts[::-1]))[1][::-1]
    assert (fresh.predict(pa.array(texts))[1] == warm).all()


@pytest.fixture(scope="module")
def own_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small unquantised model."""
    folder = tmp_path_factory.mktemp("own")
    write_training(folder / "train.txt", labels=5)
    model = fasttext.train_supervised(
        str(folder / "train.txt"), dim=4, minn=1, maxn=2, bucket=1000, epoch=1, thread=1, verbose=0
    )
    model.save_model(str(folder / "own.bin"))
    return folder / "own.bin"


def test_known_models_are_whole(own_model: Path) -> None:
    assert set(read_classifier(own_model).labels) == set(fasttext.load_model(str(own_model)).labels)
    assert len(read_classifier(packaged_language_model()).labels) == 176


def cut_short(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def with_number(place: int, layout: str, value: int) -> Callable[[bytes], bytes]:
    size = struct.calcsize(layout)
    return lambda data: data[:place] + struct.pack(layout, value) + data[place + size :]


DAMAGES = {
    "empty": lambda data: b"",
    "text": lambda data: b"just some text, no model at all " * 100,
    "signature only": lambda data: data[:8],
    "cut short": cut_short,
    "one byte short": lambda data: data[:-1],
    "one byte long": lambda data: data + b"\0",
    "newer version": with_number(4, "<i", 99),
    "huge dimension": with_number(8, "<i", 2**31 - 1),
    "negative bucket": with_number(8 + 8 * 4, "<i", -5),
    "no buckets": with_number(8 + 8 * 4, "<i", 0),
    "word vectors": with_number(8 + 7 * 4, "<i", 1),
    "huge dictionary": with_number(64, "<i", 2**31 - 1),
    "negative words": with_number(68, "<i", -1),
    "more labels": with_number(72, "<i", 1000),
    "huge pruned index": with_number(84, "<q", 2**60),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["quantised", "plain"])
def test_a_damaged_model_is_refused(kind: str, damage: str, own_model: Path, tmp_path: Path) -> None:
    whole = (packaged_language_model() if kind == "quantised" else own_model).read_bytes()
    path = tmp_path / "model.bin"
    path.write_bytes(DAMAGES[damage](whole))
    with pytest.raises(ModelError) as refused:
        read_classifier(path)
    assert str(path) in str(refused.value) and "hint:" in str(refused.value)


def test_a_model_cut_anywhere_is_refused(own_model: Path, tmp_path: Path) -> None:
    whole = own_model.read_bytes()
    path = tmp_path / "model.bin"
    for size in np.linspace(0, len(whole) - 1, 200).astype(int):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError):
            read_classifier(path)
