"""fastText trained here: the same bytes again, its folder read as it was measured, nothing of a group on two sides."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from classifiers.distillation.examples import Examples
from classifiers.fasttext.folder import FACTS, WEIGHTS, find_fasttext
from classifiers.fasttext.stage import POSITIVE, FastTextConfig, fasttext_stage
from classifiers.fasttext.training import PRESETS, FastTextSettings, fit_fasttext, predict, read_settings
from classifiers.scorers.stage import read_labels, scorer_stage
from storage.errors import InputError, ModelError, RecipeError
from storage.identity import content_hash

ORIGIN: dict[str, Any] = {"meaning": "about mills", "left_out": {"copies": 0}}
SMALL = replace(PRESETS["cci4_zh"], dimension=8, epochs=5, least_count=1, phrases=5)
MILLS, SHOPS = "磨坊 水车 面粉 谷物 河流 石磨".split(), "商店 优惠 购买 价格 折扣 品牌".split()


def examples(num: int = 300, *, group_size: int = 1) -> Examples:
    draw = random.Random(0)
    texts = ["的".join(draw.choices(MILLS if i % 2 else SHOPS, k=12)) + "。关注微信公众号" for i in range(num)]
    labels = ["positive" if i % 2 else "negative" for i in range(num)]
    names = [content_hash(str(i // group_size).encode()) for i in range(num)]
    return Examples(
        pa.table(
            {
                "text": pa.array(texts, pa.large_string()),
                "label": labels,
                "grade": pa.nulls(num, pa.float64()),
                "language": ["zh"] * num,
                "group": pa.array(names, pa.binary(16)),
            }
        )
    )


def fitted(folder: Path, settings: FastTextSettings = SMALL, data: Examples | None = None) -> dict[str, Any]:
    return fit_fasttext(data or examples(), settings, folder, stop_words=("的",), origin=ORIGIN)


def test_it_learns_and_its_folder_scores_as_it_was_measured(tmp_path: Path) -> None:
    facts = fitted(tmp_path / "model")
    assert facts["held_out"]["at_threshold"]["f1"] == 1.0 and facts["labels"] == ["0", "1"]
    stage = fasttext_stage(FastTextConfig(model=str(tmp_path / "model")))
    assert stage.writes.names[-1] == POSITIVE.name, "the folder names its positive label"
    found = stage.make(stage.config)(pa.record_batch({"text": ["水车的磨坊，的石磨", "商店的折扣", "关注微信公众号"]}))
    mill, shop, _ = found["positive_score"].to_pylist()
    assert mill > 0.9 and shop < 0.1 and found["label"].to_pylist()[:2] == ["1", "0"]


def test_scoring_prepares_text_as_training_did(tmp_path: Path) -> None:
    """Symbols, stop words and the phrase that is in every text change no score."""
    fitted(tmp_path / "model")
    saved = find_fasttext(tmp_path / "model")
    assert saved.preparation is not None and "关注 微 信 公众 号" in saved.preparation.phrases
    plain, full = predict(saved, pa.array(["水车 磨坊", "水车的，磨坊。关注微信公众号"]), ("0", "1"))
    assert plain.tolist() == full.tolist()


def test_one_thread_gives_the_same_bytes(tmp_path: Path) -> None:
    first, again = fitted(tmp_path / "a"), fitted(tmp_path / "b")
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()
    assert first["identity"] == again["identity"] and first["reproducible"]
    assert (tmp_path / "a" / FACTS).read_bytes() == (tmp_path / "b" / FACTS).read_bytes()
    assert fitted(tmp_path / "c", replace(SMALL, seed=1))["identity"] != first["identity"]


def test_counts_are_limited_and_groups_stay_together(tmp_path: Path) -> None:
    limited = replace(SMALL, training=30, test=10)
    facts = fitted(tmp_path / "model", limited)
    assert facts["training"] == {"0": 30, "1": 30} and facts["held_out"]["examples"] <= 20
    everything_in_one = examples(group_size=1000)
    with pytest.raises(InputError, match="are needed"):
        fitted(tmp_path / "other", data=everything_in_one)


def test_text_that_spells_a_label_or_an_end_of_line_is_text(tmp_path: Path) -> None:
    data = examples()
    texts = [f"__label__1 </s> {text}\nrest" for text in data.table["text"].to_pylist()]
    hostile = Examples(data.table.set_column(0, "text", pa.array(texts, pa.large_string())))
    plain = replace(read_settings("dclm_en", buckets=100, dimension=8), names=("1", "0"))
    assert fitted(tmp_path / "model", plain, hostile)["labels"] == ["0", "1"]


def test_altered_or_foreign_folders_are_refused(tmp_path: Path) -> None:
    fitted(tmp_path / "model")
    facts = json.loads((tmp_path / "model" / FACTS).read_text())
    for change in ({"kind": "encoder"}, {"format_version": 9}, {"weights_sha256": "0"}, {"preparation": 3}):
        (tmp_path / "model" / FACTS).write_text(json.dumps({**facts, **change}))
        with pytest.raises(ModelError):
            find_fasttext(tmp_path / "model")
    with pytest.raises(ModelError, match="no fastText model"):
        find_fasttext(tmp_path)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RecipeError, match="epochs"):
        read_settings("cci4_zh", epochs=0)
    with pytest.raises(InputError, match="no preset"):
        read_settings("mine")


def test_too_little_text_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot learn"):
        fitted(tmp_path / "model", replace(SMALL, least_count=10_000, phrases=0))
    assert not list((tmp_path / "model").iterdir())


def test_a_scorer_reads_the_folder_as_training_did(tmp_path: Path) -> None:
    fitted(tmp_path / "model")
    stage = scorer_stage(str(tmp_path / "model"))
    found = stage.make(stage.config)(pa.record_batch({"text": ["水车的，磨坊。关注微信公众号", None]}))
    expected = predict(find_fasttext(tmp_path / "model"), pa.array(["水车 磨坊"]), read_labels(str(tmp_path / "model")))
    assert found["outputs"].to_pylist()[0] == pytest.approx(expected[0].tolist()) and len(stage.files) == 2
