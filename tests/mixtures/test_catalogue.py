"""The catalogue: row for row the documents, narrow, and never aligned with measurements of other bytes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from mixtures.catalogue import catalogue_part, write_catalogue_part
from mixtures.ensemble import evaluate_expression
from mixtures.names import names_of
from storage.errors import DatasetError
from storage.identity import fingerprint
from storage.manifests import Manifest, open_dataset, write_manifest
from storage.parts import commit_table
from tests.mixtures.tiny_run import Doc, Run, name_of

MakeRun = Callable[..., Run]
DOCS = [Doc("a", text="é"), Doc("b", host=None, words=None), Doc("c", bucket=None), Doc("d", source="wiki")]


def test_rows_are_those_of_the_documents_without_text_and_lists(make_run: MakeRun) -> None:
    run = make_run(DOCS)
    table = pa.concat_tables([run.catalogue.read(part) for part in run.catalogue.parts])
    assert [name_of(row) for row in table["doc_id"].to_pylist()] == ["a", "b", "c", "d"]
    assert table["text_bytes"].to_pylist() == [2, 9, 9, 9]
    assert "text" not in table.schema.names
    assert [field.name for field in table.schema.field("rules").type] == ["num_words", "num_bytes", "ratio"]
    assert table["url_facts"].to_pylist()[:2] == [{"host": "example.org"}, {"host": None}]
    assert table["quality"].to_pylist()[2] is None
    assert [part.of for part in run.catalogue.parts] == [part.sha256 for part in run.documents.parts]


def test_names_are_bound_to_columns_and_stages_to_datasets(make_run: MakeRun) -> None:
    run = make_run(DOCS)
    names = names_of(run.catalogue.schema(run.catalogue.parts[0]))
    assert names.columns["url"] == ("url",)
    assert names.columns["url.host"] == ("url_facts", "host")
    assert {"source", "text_bytes", "language.label", "quality.bucket"} <= set(names.columns)
    assert not {"doc_id", "content_hash", "rules.spans"} & set(names.columns)
    assert run.catalogue.manifest.facts["bindings"]["rules"] == run.attributes[0].manifest.identity


def test_what_a_page_says_of_itself_can_be_asked_for(make_run: MakeRun) -> None:
    written = [datetime(2019, 1, 2, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC), None]
    run = make_run([Doc("abc"[i], author="Ada" if i else None, published_at=at) for i, at in enumerate(written)])
    table = pa.concat_tables([run.catalogue.read(part) for part in run.catalogue.parts])
    asked = ("author = 'Ada'", "year(published_at) >= 2024")
    found = [evaluate_expression(table, text, None, at="x").to_pylist() for text in asked]
    assert found == [[None, True, True], [False, True, None]]


def test_in_memory_and_on_disk_are_the_same_rows(make_run: MakeRun) -> None:
    run = make_run(DOCS)
    part = run.documents.parts[0]
    assert catalogue_part(run.documents, part, run.attributes).equals(run.catalogue.read(run.catalogue.parts[0]))


def test_measurements_of_other_bytes_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    run, other = make_run(DOCS), make_run([*DOCS[:3], Doc("x")], root=tmp_path / "other")
    with pytest.raises(DatasetError, match="1 of 2 parts"):
        write_catalogue_part(tmp_path / "c", run.documents, run.documents.parts[0], other.attributes)


def test_rows_in_another_order_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(DOCS, part_rows=10)
    measure, folder, part = run.attributes[0], tmp_path / "turned", run.documents.parts[0]
    table = measure.read(measure.parts[0]).take([1, 0, 2, 3])
    turned = commit_table(folder, fingerprint("turned"), table, schema=table.schema, of=part.sha256)
    write_manifest(folder, Manifest(kind="measure", identity="0", stage={}, parts=(turned,)))
    with pytest.raises(DatasetError, match="in their order"):
        write_catalogue_part(tmp_path / "c", run.documents, part, [open_dataset(folder)])


def test_a_stage_measured_twice_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(DOCS)
    with pytest.raises(DatasetError, match="language, rules, url was measured in two datasets"):
        write_catalogue_part(tmp_path / "c", run.documents, run.documents.parts[0], run.attributes[:1] * 2)
