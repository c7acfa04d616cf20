"""Exported documents: those that were kept, each once, however the files are divided."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mixtures.policy import Policy
from mixtures.yaml_files import load_yaml
from pipelines.commands.export_documents import NO_VALUE, export_documents
from pipelines.run_folder import RunFolder
from sources.ingest import read
from sources.inputs import expand_inputs
from sources.reading import ReadConfig
from storage.errors import InputError, SqlError
from storage.schema import Document
from tests.mixtures.tiny_run import KEEP_ALL, Doc, Run, name_of

DOCS = [
    Doc("a", bucket=3), Doc("b", bucket=19), Doc("c", bucket=None), Doc("d", words=1, bucket=3),
    Doc("e", bucket=19, source="wiki/x"),
    Doc("f", bucket=3, author="Ada", published_at=datetime(2024, 5, 6, tzinfo=UTC)),
]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> tuple[RunFolder, str]:
    """Six documents in parts of four; the policy drops `d`."""
    made = Run(tmp_path / "run", DOCS, 4)
    (tmp_path / "policy.yaml").write_text(KEEP_ALL)
    policy = load_yaml(tmp_path / "policy.yaml", Policy)
    made.judge(policy)
    return RunFolder(made.root), policy.identity()


def exported(target: Path) -> dict[str, list[str]]:
    """Names of the documents in each folder."""
    found: dict[str, list[str]] = {}
    for path in sorted(target.rglob("*.parquet")):
        ids = pq.ParquetFile(path).read(["id"])["id"].to_pylist()
        found.setdefault(str(path.parent.relative_to(target)), []).extend(name_of(bytes.fromhex(one)) for one in ids)
    return found


def test_undivided(run: tuple[RunFolder, str], tmp_path: Path) -> None:
    counts = export_documents(*run, tmp_path / "out")
    assert exported(tmp_path / "out") == {".": ["a", "b", "c", "e", "f"]} and counts == {"web": 4, "wiki/x": 1}
    assert not list((tmp_path / "out").glob("*.json"))


def test_what_a_page_says_of_itself_is_exported_and_read_back(run: tuple[RunFolder, str], tmp_path: Path) -> None:
    export_documents(*run, tmp_path / "out")
    inputs = expand_inputs("again", [str(tmp_path / "out")], kind="parquet")
    found = [one for raw in inputs for one in read(raw, ReadConfig()) if isinstance(one, Document)]
    assert [(one.author, one.published_at) for one in found] == [(None, None)] * 4 + [("Ada", DOCS[5].published_at)]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (
            "quality.bucket",
            {"quality_bucket=19": ["b", "e"], "quality_bucket=3": ["a", "f"], f"quality_bucket={NO_VALUE}": ["c"]},
        ),
        ("source", {"source=web": ["a", "b", "c", "f"], "source=wiki%2Fx": ["e"]}),
        ("rules.num_words + 1", {"partition=11": ["a", "b", "c", "e", "f"]}),
    ],
)
def test_divided(run: tuple[RunFolder, str], tmp_path: Path, by: str, expected: dict[str, list[str]]) -> None:
    export_documents(*run, tmp_path / "out", by)
    assert exported(tmp_path / "out") == expected


def test_what_cannot_divide(run: tuple[RunFolder, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SqlError, match="quality.bucket"):
        export_documents(*run, tmp_path / "out", "quality.buckets")
    monkeypatch.setattr("pipelines.commands.export_documents.MAX_FOLDERS", 1)
    with pytest.raises(InputError, match="would make 3 folders"):
        export_documents(*run, tmp_path / "out", "quality.bucket")
