"""A dataset is what its manifest says: whole parts, the same bytes however the rows came, mismatches refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import manifests
from storage.commit import TEMPORARY_PREFIX, write_atomically
from storage.errors import DatasetError, ResourceError
from storage.manifests import Manifest, align, open_dataset, read_manifest, write_manifest
from storage.parts import ROWS_PER_GROUP, commit_table, find_part
from storage.schema import DOCUMENTS, Document, documents_table

SCHEMA = pa.schema([("number", pa.int64()), ("word", pa.string())])


def table(rows: int) -> pa.Table:
    return pa.table({"number": list(range(rows)), "word": [f"w{i % 7}" for i in range(rows)]}, schema=SCHEMA)


def publish(folder: Path, *parts: object, kind: str = "numbers") -> None:
    write_manifest(folder, Manifest(kind=kind, identity="0" * 32, stage={"name": "test"}, parts=parts))  # type: ignore[arg-type]


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 3000), max_size=6))
def test_bytes_do_not_depend_on_how_the_rows_were_cut(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    whole = table(3000)
    borders = [0, *sorted(cuts), 3000]
    pieces = [batch for a, b in zip(borders, borders[1:], strict=False) for batch in whole.slice(a, b - a).to_batches()]
    folder = tmp_path_factory.mktemp("parts")
    one = commit_table(folder, "a" * 32, whole, schema=SCHEMA)
    other = commit_table(folder, "b" * 32, pieces, schema=SCHEMA)
    assert one.sha256 == other.sha256 and other.rows == 3000


def test_a_committed_part_is_returned_unwritten(tmp_path: Path) -> None:
    first = commit_table(tmp_path, "a" * 32, table(5), schema=SCHEMA, facts={"dropped": 2})
    again = commit_table(tmp_path, "a" * 32, table(9), schema=SCHEMA)
    assert again == first and again.facts == {"dropped": 2}


def test_rows_come_back_in_order_through_the_manifest_alone(tmp_path: Path) -> None:
    part = commit_table(tmp_path, "a" * 32, table(2500), schema=SCHEMA)
    commit_table(tmp_path, "b" * 32, table(10), schema=SCHEMA)
    publish(tmp_path, part)
    dataset = open_dataset(tmp_path)
    assert [p.identity for p in dataset.parts] == ["a" * 32]
    assert dataset.read(part, ["number"])["number"].to_pylist() == list(range(2500))
    assert max(batch.num_rows for batch in dataset.batches(part, rows=100)) == 100


def test_one_row_is_read_from_its_row_group_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 2 * ROWS_PER_GROUP + 5
    part = commit_table(tmp_path, "a" * 32, table(rows), schema=SCHEMA)
    publish(tmp_path, part)
    dataset = open_dataset(tmp_path)
    read = []
    whole = pq.ParquetFile.read_row_group

    def noted(self: pq.ParquetFile, group: int, *rest: object) -> pa.Table:
        read.append(group)
        return whole(self, group, *rest)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", noted)
    for row in (0, ROWS_PER_GROUP - 1, ROWS_PER_GROUP, rows - 1):
        assert dataset.row(part, row) == {"number": row, "word": f"w{row % 7}"}
    assert dataset.row(part, 8, ["word"]) == {"word": "w1"}
    assert read == [0, 0, 1, 2, 0]
    with pytest.raises(IndexError):
        dataset.row(part, rows)


def test_a_long_list_of_parts_moves_to_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "PARTS_IN_JSON", 2)
    parts = [commit_table(tmp_path, letter * 32, table(3), schema=SCHEMA, facts={"n": 1}) for letter in "abc"]
    publish(tmp_path, *parts)
    assert read_manifest(tmp_path).parts == tuple(parts)
    assert (tmp_path / "manifest.json").stat().st_size < 1000


def test_an_altered_part_is_named(tmp_path: Path) -> None:
    part = commit_table(tmp_path, "a" * 32, table(5), schema=SCHEMA)
    publish(tmp_path, part)
    path = tmp_path / part.file
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(DatasetError, match="altered"):
        open_dataset(tmp_path).check()


@pytest.mark.parametrize(("content", "message"), [(b"{", "not JSON"), (b'{"format_version": 99}', "format_version 99")])
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path)


def test_attributes_of_other_bytes_are_refused_never_aligned(tmp_path: Path) -> None:
    document_part = commit_table(tmp_path / "d", "a" * 32, table(5), schema=SCHEMA)
    fitting = commit_table(tmp_path / "m", "b" * 32, table(5), schema=SCHEMA, of=document_part.sha256)
    other = commit_table(tmp_path / "m", "c" * 32, table(5), schema=SCHEMA, of="0" * 64)
    publish(tmp_path / "d", document_part)
    publish(tmp_path / "m", fitting)
    assert align(open_dataset(tmp_path / "d"), open_dataset(tmp_path / "m")) == [(document_part, fitting)]
    publish(tmp_path / "m", other)
    with pytest.raises(DatasetError, match="1 of 1 parts"):
        align(open_dataset(tmp_path / "d"), open_dataset(tmp_path / "m"))


KILLED_WRITER = """
import os, signal, sys
import pyarrow as pa
from pathlib import Path
from storage import commit, parts
target, step = Path(sys.argv[1]), int(sys.argv[2])
count = 0
def die_at(name):
    real = getattr(os, name)
    def call(*args, **kwargs):
        global count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    setattr(os, name, call)
die_at("fsync"); die_at("replace")
parts.commit_table(target, "a" * 32, pa.table({"n": list(range(3000))}), schema=pa.schema([("n", pa.int64())]))
print("finished")
"""


def test_killed_inside_any_step_of_a_commit_the_part_is_absent_or_whole(tmp_path: Path, project_root: Path) -> None:
    reference = commit_table(
        tmp_path / "ref", "a" * 32, pa.table({"n": list(range(3000))}), schema=pa.schema([("n", pa.int64())])
    )
    finished = False
    for step in range(1, 20):
        folder = tmp_path / str(step)
        process = subprocess.run(
            [sys.executable, "-c", KILLED_WRITER, str(folder), str(step)],
            cwd=project_root, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(project_root)},
        )  # fmt: skip
        assert process.returncode in (0, -signal.SIGKILL), process.stderr
        found = find_part(folder, "a" * 32)
        assert found is None or found.sha256 == reference.sha256
        again = commit_table(
            folder, "a" * 32, pa.table({"n": list(range(3000))}), schema=pa.schema([("n", pa.int64())])
        )
        assert (folder / again.file).read_bytes() == (tmp_path / "ref" / reference.file).read_bytes()
        if process.returncode == 0:
            finished = True
            break
    assert finished and step > 4


def test_a_failing_writer_leaves_nothing(tmp_path: Path) -> None:
    def fail(file: object) -> None:
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        write_atomically(tmp_path / "x", fail)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((TEMPORARY_PREFIX, "x"))]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_disk_is_said_plainly(tmp_path: Path) -> None:
    def fill(file: object) -> None:
        with open("/dev/full", "wb") as full:
            full.write(b"x" * 10_000)
            full.flush()

    with pytest.raises(ResourceError, match="the disk is full") as caught:
        write_atomically(tmp_path / "x", fill)
    assert "--out" in str(caught.value)


def test_hostile_text_becomes_valid_utf8() -> None:
    document = Document(b"\0" * 16, "a\ud800b\0", "\udfff", "web", None, "f", 0, 1, None, None, None)
    rows = documents_table([document])
    assert rows.schema == DOCUMENTS
    assert rows["text"][0].as_py() == "a\ufffdb\0"
    rows.validate(full=True)
