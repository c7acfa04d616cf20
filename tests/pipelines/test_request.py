"""What a request names: datasets with a source's name before them and options behind, and the files it depends on."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from pipelines.named_files import local_files, quick_identity
from pipelines.raw_inputs import inputs_of
from pipelines.request import RunRequest
from sources.inputs import identity_of


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


def test_a_source_has_columns_and_a_licence_of_its_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text("{}")
    request = RunRequest(
        inputs={"jsonl": (f"forum={tmp_path}/a.jsonl", f"{tmp_path}/b.jsonl")},
        columns={"text": "body", "forum:text": "post", "forum:url": "meta.link"},
        license={"forum": "CC0-1.0"},
    )
    forum, other = inputs_of(request)
    assert (forum.columns, forum.licence) == ((("text", "post"), ("url", "meta.link")), "CC0-1.0")
    assert (other.columns, other.licence) == ((("text", "body"),), None)
    changed = inputs_of(dataclasses.replace(request, columns={"text": "body"}))
    same = [identity_of(before) == identity_of(now) for before, now in zip([forum, other], changed, strict=True)]
    assert same == [False, True]
