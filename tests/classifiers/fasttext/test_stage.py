"""Any fastText classifier as a stage: its own labels, one label's score for every text, and errors that say why."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from classifiers.fasttext.file import packaged_language_model
from classifiers.fasttext.stage import LABELLED, POSITIVE, FastTextConfig, fasttext_stage
from storage.errors import InputError, ModelError
from tests.classifiers.samples import HOSTILE

MODEL = str(packaged_language_model())
TEXTS = ["The mill stands by the river.\nIt is old.", "Die Mühle steht am Fluss.", ""]


def test_the_models_labels_and_one_labels_score() -> None:
    stage = fasttext_stage(FastTextConfig(model=MODEL, name="which", positive="de"))
    found = stage.make(stage.config)(pa.record_batch({"text": TEXTS}))
    assert found.schema.equals(LABELLED.append(POSITIVE)) and stage.name == "which"
    assert found["label"].to_pylist()[:2] == ["en", "de"]
    english, german, nothing = found["positive_score"].to_pylist()
    assert german == found["score"][1].as_py() > 0.9 and english < 0.1 and nothing < 0.5


def test_without_a_positive_label_there_is_no_column_for_it() -> None:
    """Nulls would let a rule on it pass for want of a measurement."""
    stage = fasttext_stage(FastTextConfig(model=MODEL))
    assert stage.make(stage.config)(pa.record_batch({"text": TEXTS})).schema.equals(LABELLED)
    assert stage.writes.equals(LABELLED)


def test_any_text_cut_anywhere() -> None:
    stage = fasttext_stage(FastTextConfig(model=MODEL))
    function, batch = stage.make(stage.config), pa.record_batch({"text": [*HOSTILE, *TEXTS]})
    pieces = [function(batch.slice(0, 5)), function(batch.slice(5))]
    assert pa.Table.from_batches(pieces) == pa.Table.from_batches([function(batch)])


def test_the_path_does_not_count_but_the_content_does(tmp_path: Path) -> None:
    copy = tmp_path / "model.ftz"
    copy.write_bytes(Path(MODEL).read_bytes())
    plain = fasttext_stage(FastTextConfig(model=MODEL))
    assert fasttext_stage(FastTextConfig(model=str(copy))).identity() == plain.identity()
    assert fasttext_stage(FastTextConfig(model=MODEL, positive="en")).identity() != plain.identity()


def test_what_is_no_model_or_no_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no fastText model"):
        fasttext_stage(FastTextConfig(model=str(tmp_path / "none.bin")))
    with pytest.raises(InputError, match="no label `hq`"):
        fasttext_stage(FastTextConfig(model=MODEL, positive="hq"))
    (tmp_path / "bad.bin").write_bytes(b"nothing")
    with pytest.raises(ModelError):
        fasttext_stage(FastTextConfig(model=str(tmp_path / "bad.bin")))
