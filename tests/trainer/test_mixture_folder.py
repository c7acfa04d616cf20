"""A mixture that cannot be trained on is refused before the first step, with everything that is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.errors import DatasetError
from trainer.data.mixture import open_mixture


def edit_blend(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    blend = json.loads((folder / "blend.json").read_text())
    change(blend)
    (folder / "blend.json").write_text(json.dumps(blend))


def test_every_fault_of_a_mixture_is_told_at_once(fresh_mixture: Path) -> None:
    edit_blend(fresh_mixture, lambda blend: blend["train"][0].update(weight=0))
    (fresh_mixture / "train/b-0000.idx").unlink()
    (fresh_mixture / "heldout/a-0000.bin").unlink()
    with (fresh_mixture / "tokenizer.json").open("a") as file:
        file.write(" ")
    with pytest.raises(DatasetError) as caught:
        open_mixture(fresh_mixture)
    for part in ("weights must be above 0", "b-0000.idx", "a-0000.bin", "`tokenizer.json` is not the one"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda blend: blend.update(train=[]), "the blend is empty"),
        (lambda blend: blend.update(format_version=2), "format_version 2"),
        (lambda blend: blend["train"][0].pop("prefix"), "not a blend: KeyError"),
        (lambda blend: blend.pop("heldout"), "not a blend: KeyError"),
    ],
)
def test_blends_that_cannot_be_trained_on(fresh_mixture: Path, change: Any, message: str) -> None:
    edit_blend(fresh_mixture, change)
    with pytest.raises(DatasetError, match=message):
        open_mixture(fresh_mixture)


def test_shards_of_another_dtype_are_refused(fresh_mixture: Path) -> None:
    row = json.loads((fresh_mixture / "vocabulary.json").read_text())
    (fresh_mixture / "vocabulary.json").write_text(json.dumps({**row, "dtype": "int32"}))
    with pytest.raises(DatasetError, match="the shard holds uint16 ids, `vocabulary.json` says int32"):
        _ = open_mixture(fresh_mixture).readers


def test_a_folder_without_a_blend_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="`blend.json` is missing") as caught:
        open_mixture(tmp_path)
    assert "--data" in str(caught.value)
