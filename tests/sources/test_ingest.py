"""Batches: parts cut by the input alone, every record accounted for, the text in its normal form."""

from __future__ import annotations

import dataclasses
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.ingest import Batch, IngestConfig, config_from_json, ingest, ingest_identity
from sources.reading import RawInput, ReadConfig, parse_time
from sources.text import normalise_line, normalise_text
from storage.errors import InputError
from storage.schema import DOCUMENTS, FAILURES
from tests.sources.captures import dump, page, write


def lines(count: int, size: int = 100) -> bytes:
    return b"".join(json.dumps({"text": f"{n:0{size}}"}).encode() + b"\n" for n in range(count))


def run(raw: RawInput, **options: object) -> list[Batch]:
    return list(ingest(raw, IngestConfig(**options)))  # type: ignore[arg-type]


def test_parts_close_when_their_text_is_enough(tmp_path: Path) -> None:
    batches = run(write(tmp_path, "a.jsonl", lines(10), "jsonl"), part_bytes=250)
    assert [batch.ordinal for batch in batches] == [0, 1, 2, 3]
    assert [batch.documents.num_rows for batch in batches] == [3, 3, 3, 1]
    assert all(batch.documents.schema == DOCUMENTS and batch.failures.schema == FAILURES for batch in batches)


def test_documents_do_not_depend_on_part_size(tmp_path: Path) -> None:
    raw = write(tmp_path, "a.jsonl", lines(60, 100_000), "jsonl")
    whole, cut = run(raw), run(raw, part_bytes=300_000)
    assert len(whole) == 1 and len(cut) == 20
    assert whole[0].documents.to_pylist() == [row for batch in cut for row in batch.documents.to_pylist()]


def test_an_input_without_documents_still_has_a_batch(tmp_path: Path) -> None:
    [batch] = run(write(tmp_path, "d.xml", dump([page(1, "#REDIRECT [[x]]")]), "mediawiki"))
    assert (batch.documents.num_rows, batch.failures.num_rows, batch.skipped) == (0, 0, {"redirect": 1})


def test_every_record_is_accounted_for(tmp_path: Path) -> None:
    data = lines(3) + b"{bad\n" + lines(2).replace(b"0", b" ").replace(b"1", b" ") + b'{"text": "x", "id": 1}\n' * 2
    [batch] = run(write(tmp_path, "a.jsonl", data, "jsonl"))
    assert batch.records_seen == 8
    assert batch.documents.num_rows == 4 and batch.skipped == {"empty_text": 2}
    assert batch.failures["reason"].to_pylist() == ["bad_json", "repeated_id"]


def test_config_survives_json_and_has_an_identity() -> None:
    config = IngestConfig(namespaces=(0, 4), part_bytes=5)
    again = config_from_json(json.loads(json.dumps(dataclasses.asdict(config))))
    assert again == config
    assert ingest_identity("jsonl", again) == ingest_identity("jsonl", config)
    assert ingest_identity("jsonl", config) != ingest_identity("jsonl", dataclasses.replace(config, namespaces=(0,)))
    assert ingest_identity("jsonl", config) != ingest_identity("warc", config)


def test_parts_of_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="a part of 0 bytes"):
        IngestConfig(part_bytes=0)


@pytest.mark.parametrize("size", [0, -1, 2 << 30])
def test_pages_larger_than_can_be_counted_are_refused(size: int) -> None:
    with pytest.raises(InputError, match=f"pages of {size} bytes cannot be read"):
        ReadConfig(max_page_bytes=size)


def test_a_file_that_went_away_is_named(tmp_path: Path) -> None:
    raw = write(tmp_path, "a.jsonl", b"{}", "jsonl")
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(InputError, match="cannot open `a.jsonl` of source `s`"):
        run(raw)


@given(st.text(st.characters(), max_size=80))
def test_the_normal_form_is_stable_and_valid(text: str) -> None:
    once = normalise_text(text)
    assert normalise_text(once) == once
    assert once.encode().decode() == once and unicodedata.is_normalized("NFC", once)
    assert not set(once) & set("\x00\x0b\x0c\r\x7f\x85\u2028\ufeff")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("a\r\nb\rc\x85d\u2028e", "a\nb\nc\nd\ne"), ("\ufeff e\u0301\x00 ", "é"),
        ("\ud83d\ude00 \ud83d", "\U0001f600 \ufffd"),
        ("x²  y\t\n\n\n z", "x²  y\t\n\n\n z"), ("ﬁ 한\u1100\u1161", "ﬁ 한가"),
    ],
)  # fmt: skip
def test_the_normal_form(text: str, normal: str) -> None:
    assert normalise_text(text) == normal


def test_titles_are_one_line() -> None:
    assert normalise_line(" a\n b\x00 ") == "a b" and normalise_line(" \n") is None and normalise_line(None) is None


@pytest.mark.parametrize(
    ("value", "iso"),
    [
        ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05+00:00"), ("20240102030405", "2024-01-02T03:04:05+00:00"),
        ("2024-01-02", "2024-01-02T00:00:00+00:00"), (1704164645, "2024-01-02T03:04:05+00:00"),
        (1704164645000, "2024-01-02T03:04:05+00:00"), ("2024-01-02T05:04:05+02:00", "2024-01-02T03:04:05+00:00"),
    ],
)  # fmt: skip
def test_times(value: object, iso: str) -> None:
    found = parse_time(value)
    assert found is not None and found.isoformat() == iso


@pytest.mark.parametrize(
    "value", ["yesterday", "", None, True, 1e300, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", [], {}]
)
def test_what_is_no_time(value: object) -> None:
    assert parse_time(value) is None
