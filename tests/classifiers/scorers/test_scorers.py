"""Scorers: every classifier's outputs row for row, what is told of them, and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers.encoders.calibration import Calibration
from classifiers.encoders.classifier import ClassifierConfig, open_classifier
from classifiers.encoders.models import find_model
from classifiers.encoders.tokens import TextTokenizer
from classifiers.fasttext.folder import save_facts
from classifiers.fasttext.preparation import Preparation
from classifiers.quality.buckets import NUM_BUCKETS, assign_buckets, fit_buckets, share_buckets
from classifiers.scorers.stage import measure_together, outputs_of, read_calibration_of, read_labels, scorer_stage
from classifiers.scorers.told import Telling, check_telling, tell, told_type
from pipelines.scorers import parse_scorer
from storage.errors import InputError, ModelError
from storage.stage import Stage
from tests.classifiers.scorers.conftest import write_classifier, write_fasttext

DOMAINS = {0: "Sports", 1: "Science", 2: "Adult"}
TEXTS = ["the river and the mill", None, "", " \n\u3000 ", "buy cheap now " * 200, "中文的文字", "click here"]
EMPTY, KEPT_OUT = [2, 3], [1]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "edu": str(write_classifier(folder / "edu")),
        "domain": str(write_classifier(folder / "domain", DOMAINS, seed=2)),
        "dclm": str(write_fasttext(folder / "dclm.bin")),
    }


def run(stage: Stage, texts: list[str | None]) -> pa.RecordBatch:
    found = stage.make(stage.config)(pa.record_batch({"text": pa.array(texts, pa.string())}))
    assert found.schema.equals(stage.writes)
    found.validate(full=True)
    return found


@pytest.mark.parametrize("name", ["edu", "domain", "dclm"])
def test_outputs_are_the_models_and_empty_texts_have_none(models: dict[str, str], name: str) -> None:
    outputs = outputs_of(run(scorer_stage(models[name]), TEXTS).column(0))
    assert np.flatnonzero(np.isnan(outputs).all(axis=1)).tolist() == sorted(EMPTY + KEPT_OUT)
    there = [text for i, text in enumerate(TEXTS) if i not in EMPTY + KEPT_OUT]
    if name == "dclm":
        theirs = fasttext.load_model(models[name])
        expected = np.array([[dict(zip(*theirs.predict(text, k=2), strict=True)).get(f"__label__{label}", 0)
                              for label in read_labels(models[name])] for text in there])  # fmt: skip
        np.testing.assert_allclose(outputs[~np.isnan(outputs[:, 0])], expected, atol=1e-4)
    else:
        expected = open_classifier(models[name]).score(pa.array(there)).reshape(len(there), -1)
        np.testing.assert_array_equal(outputs[~np.isnan(outputs[:, 0])], expected)


@pytest.mark.parametrize("name", ["edu", "domain", "dclm"])
def test_it_does_not_matter_how_texts_are_cut(models: dict[str, str], name: str) -> None:
    stage = scorer_stage(models[name])
    whole = outputs_of(run(stage, TEXTS).column(0))
    pieces = [outputs_of(run(stage, TEXTS[i : i + 2]).column(0)) for i in range(0, len(TEXTS), 2)]
    np.testing.assert_array_equal(whole, np.concatenate(pieces))
    sliced = run(stage, TEXTS).slice(3, 3).column(0)
    np.testing.assert_array_equal(whole[3:6], outputs_of(sliced))


def test_together_is_what_each_says_alone_and_one_tokenizer_reads_once(
    models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [scorer_stage(model) for model in models.values()]
    scorers = [stage.make(stage.config) for stage in stages]
    read: list[int] = []
    tokenize = TextTokenizer.__call__
    monkeypatch.setattr(TextTokenizer, "__call__", lambda self, texts: read.append(len(texts)) or tokenize(self, texts))
    batch = pa.record_batch({"text": pa.array(TEXTS, pa.string())})
    found = measure_together(scorers, [batch] * 3)
    assert sum(read) == len(TEXTS) - len(EMPTY + KEPT_OUT), "edu and domain share their tokens"
    for scorer, columns in zip(scorers, found, strict=True):
        np.testing.assert_array_equal(outputs_of(columns.column(0)), outputs_of(scorer(batch).column(0)))
    fewer = pa.record_batch({"text": pa.array([None, *TEXTS[1:]], pa.string())})
    apart = measure_together(scorers, [batch, fewer, fewer])
    assert np.isnan(outputs_of(apart[1].column(0))[0]).all()
    np.testing.assert_array_equal(outputs_of(apart[1].column(0))[1:], outputs_of(found[1].column(0))[1:])


def test_kept_out_is_null_and_empty_is_not(models: dict[str, str]) -> None:
    assert run(scorer_stage(models["edu"]), TEXTS).column(0).is_valid().to_pylist() == [
        i not in KEPT_OUT for i in range(7)
    ]


def test_labels_are_known_without_the_weights(models: dict[str, str]) -> None:
    assert read_labels(models["edu"]) == ()
    assert read_labels(models["domain"]) == tuple(DOMAINS.values())
    assert set(read_labels(models["dclm"])) == {"hq", "cc"}


def test_the_identity_is_of_the_model_and_what_it_reads(models: dict[str, str], tmp_path: Path) -> None:
    stage = scorer_stage(models["edu"])
    copy = write_classifier(tmp_path / "copy")
    assert scorer_stage(str(copy)).identity() == stage.identity()
    assert scorer_stage(models["edu"], ClassifierConfig(batch_tokens=99, threads=2)).identity() == stage.identity()
    assert scorer_stage(models["edu"], ClassifierConfig(max_tokens=20)).identity() != stage.identity()
    assert scorer_stage(str(write_classifier(tmp_path / "other", seed=5))).identity() != stage.identity()


VALUES = np.array([[-1.0], [np.nan], [2.5], [9.0]], np.float32)
CLASSES = np.array([[0.2, 0.7, 0.1], [np.nan] * 3, [0, 0, 0]], np.float32)
NAMES = tuple(DOMAINS.values())


def test_a_value_is_scaled_and_clipped_and_its_bucket_is_not() -> None:
    thresholds = fit_buckets(VALUES[:, 0], [1, 1, 1, 1])
    for telling in (Telling(), Telling(scale=2, clip=(0, 5))):
        found = tell(VALUES, (), telling, thresholds)
        assert found.type == told_type((), telling)
        assert found.field("bucket").to_pylist() == [assign_buckets([v], thresholds)[0] if v == v else None
                                                     for v in VALUES[:, 0]]  # fmt: skip
    assert found.field("value").to_pylist() == [0, None, 5, 5]
    assert tell(VALUES, (), Telling()).field("bucket").null_count == 4


def test_classes_are_told_by_the_most_probable_or_by_those_that_count() -> None:
    found = tell(CLASSES, NAMES, Telling(probabilities=True))
    assert found.type == told_type(NAMES, Telling(probabilities=True))
    assert found.field("label").to_pylist() == ["Science", None, None]
    assert found.field("score").to_pylist() == pytest.approx([0.7, None, 0])
    assert found.field("probabilities")[0].as_py() == pytest.approx({"Sports": 0.2, "Science": 0.7, "Adult": 0.1})
    summed = tell(CLASSES, NAMES, Telling(positive=("Sports", "Science"), scale=5))
    assert summed.field("value").to_pylist() == pytest.approx([4.5, None, 0])
    assert told_type(NAMES, Telling()).names == ["label", "score"]


@pytest.mark.parametrize(
    ("labels", "told", "said"),
    [
        ((), {"positive": ("hq",)}, "gives one number"),
        (NAMES, {"positive": ("hq",)}, "no class `hq`.*Sports, Science, Adult"),
        (NAMES, {"scale": 5.0}, "`scale` and `clip` are of a value"),
        (NAMES, {"clip": (0.0, 5.0)}, "positive=Adult"),
        ((), {"probabilities": True}, "told of classes"),
    ],
)
def test_a_telling_that_does_not_fit_the_model(labels: tuple[str, ...], told: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"(?s){said}"):
        check_telling(labels, Telling(**told))


@pytest.mark.parametrize("wrong", [{"scale": 0.0}, {"scale": -1.0}, {"scale": float("nan")}, {"clip": (5.0, 0.0)}])
def test_a_telling_that_fits_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Telling(**wrong)


def test_what_is_no_classifier_is_refused_before_anything_runs(tmp_path: Path, models: dict[str, str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.bin").write_text("not a model")
    pickled = write_classifier(tmp_path / "pickled")
    (pickled / "model.safetensors").unlink()
    (pickled / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    damaged = write_classifier(tmp_path / "damaged")
    config = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps({**config, "architectures": None}))
    (damaged / "model.safetensors").write_bytes(b"\0" * 50)
    for model, said in {
        str(tmp_path / "none"): "no such model folder",
        str(tmp_path / "empty"): "config.json",
        str(tmp_path / "none.bin"): "no fastText model",
        str(tmp_path / "text.bin"): "fastText",
        str(pickled): "pickles",
        str(damaged): "cannot be read",
        str(find_model().folder): "an encoder without a classifier",
    }.items():
        with pytest.raises(ModelError, match=said):
            scorer_stage(model)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_shares_of_buckets_are_twentieths_but_for_ties(data: st.DataObject) -> None:
    """Of any scores and lengths: no threshold's share is off by more than the bytes of one score's documents."""
    levels = data.draw(st.integers(1, 400))
    scores = np.array(data.draw(st.lists(st.integers(0, levels), min_size=1, max_size=300)), np.float64)
    sizes = np.array(data.draw(st.lists(st.integers(1, 5000), min_size=len(scores), max_size=len(scores))))
    shares = share_buckets(scores, sizes, fit_buckets(scores, sizes))
    largest = max(sizes[scores == score].sum() for score in np.unique(scores)) / sizes.sum()
    assert sum(shares) == pytest.approx(1) and len(shares) == NUM_BUCKETS
    reached = np.cumsum(shares)
    # A document on a threshold is above it, so what lies below is less than k/20, by at most the bytes on it.
    for k in range(1, NUM_BUCKETS):
        assert k / NUM_BUCKETS - largest - 1e-9 <= reached[k - 1] <= k / NUM_BUCKETS + 1e-9


def test_a_distilled_encoders_calibration_is_told_and_moves_no_bucket(tmp_path: Path) -> None:
    """An isotonic calibration has steps, on which values tie; buckets come from what the model says."""
    folder = write_classifier(tmp_path / "distilled")
    plain = run(scorer_stage(str(folder)), TEXTS)
    points = [[-9.0, 0.0], [9.0, 0.0]]
    calibration = {"kind": "isotonic", "points": points, "temperature": 1.0}
    (folder / "gristmill.json").write_text(json.dumps({"format_version": 1, "calibration": calibration}))
    outputs = outputs_of(run(scorer_stage(str(folder)), TEXTS).column(0))
    np.testing.assert_array_equal(outputs, outputs_of(plain.column(0)))
    known = outputs[~np.isnan(outputs[:, 0]), 0]
    thresholds = fit_buckets(known, np.ones(len(known)))
    found = tell(outputs, (), Telling(), thresholds, read_calibration_of(str(folder)))
    assert set(found.field("value").to_pylist()) == {0.0, None}
    assert found.field("bucket").to_pylist() == tell(outputs, (), Telling(), thresholds).field("bucket").to_pylist()
    assert len(set(found.field("bucket").drop_null().to_pylist())) == len(known)


def test_a_temperature_is_told_of_classes(models: dict[str, str]) -> None:
    calibration = Calibration(kind="temperature", temperature=2.0)
    outputs = outputs_of(run(scorer_stage(models["domain"]), TEXTS).column(0))
    plain, cooled = (tell(outputs, NAMES, Telling(), None, how) for how in (Calibration(), calibration))
    assert plain.field("label").equals(cooled.field("label"))
    surer, less = (np.asarray(found.field("score").drop_null()) for found in (plain, cooled))
    assert len(surer) == 4 and (less < surer).all()


def test_a_fasttext_folder_prepares_its_texts_and_knows_its_class(tmp_path: Path, models: dict[str, str]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(models["dclm"], folder / "model.bin")
    save_facts(folder, preparation=Preparation(stop_words=("mill",)), positive="hq", facts={})
    assert read_labels(str(folder)) == read_labels(models["dclm"])
    assert parse_scorer(f"dclm={folder}").telling.positive == ("hq",)
    assert parse_scorer(f"dclm={folder}:positive=cc").telling.positive == ("cc",)
    texts: list[str | None] = ["the mill by the river", "buy cheap"]
    plain = outputs_of(run(scorer_stage(models["dclm"]), ["the by the river", "buy cheap"]).column(0))
    prepared = outputs_of(run(scorer_stage(str(folder)), texts).column(0))
    np.testing.assert_allclose(prepared, plain, atol=1e-6)
    assert scorer_stage(str(folder)).identity() != scorer_stage(models["dclm"]).identity()
    (folder / "model.bin").write_bytes(b"other")
    (folder / "gristmill.json").touch()
    with pytest.raises(ModelError):
        scorer_stage(str(folder))
