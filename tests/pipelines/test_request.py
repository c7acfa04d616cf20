"""What a request names: datasets with a source's name before them and options behind, and the files it depends on."""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.raw_inputs import inputs_of
from pipelines.request import RunRequest, local_files, quick_identity


def test_a_dataset_has_a_source_before_it_and_options_behind(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("{}")
    commit = "a" * 40
    named = (f"news={tmp_path}?split=test", f"{tmp_path}?subset=en", f"name?revision={commit}&split=dev")
    found = inputs_of(RunRequest(inputs={"dataset": named}))
    assert [(raw.source, raw.path, raw.subset, raw.split, raw.revision) for raw in found] == [
        ("news", str(tmp_path), None, "test", None),
        ("dataset", str(tmp_path), "en", None, None),
        ("dataset", "name", None, "dev", commit),
    ]


def test_a_finished_run_knows_that_a_dataset_with_options_changed(tmp_path: Path) -> None:
    request = RunRequest(inputs={"dataset": (f"news={tmp_path}?split=test",)})
    assert local_files(request) == [tmp_path]
    before = quick_identity(request, [])
    os.utime(tmp_path, (1, 1))
    assert quick_identity(request, []) != before
