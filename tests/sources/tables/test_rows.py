"""JSONL, Parquet and Hugging Face datasets to documents."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from sources.reading import RawInput, ReadConfig, Reading
from sources.tables.huggingface import read_huggingface
from sources.tables.jsonl import read_jsonl
from sources.tables.parquet import read_parquet
from storage.errors import InputError
from storage.identity import offset_doc_id, record_doc_id
from storage.schema import Document, Failure, encode
from tests.sources.captures import documents, failures, reasons, texts, write

ROWS = [
    {"text": f"Row {n} — 磨", "title": f"T{n}", "url": f"https://e.org/{n}", "date": "2024-01-02", "id": n}
    for n in range(9)
]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


Pairs = Sequence[tuple[str, str]]


def read_lines(
    folder: Path, data: bytes, columns: Pairs = (), licence: str | None = None, **options: object
) -> list[Reading]:
    raw = write(folder, "a.jsonl", data, "jsonl", columns=columns, licence=licence)
    return list(read_jsonl(raw, ReadConfig(**options)))  # type: ignore[arg-type]


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.ZstdCompressor().compress])
def test_lines_become_documents(tmp_path: Path, compress) -> None:  # type: ignore[no-untyped-def]
    found = documents(read_lines(tmp_path, compress(LINES), licence="CC0"))
    assert [one.text for one in found] == [row["text"] for row in ROWS]
    assert (found[3].title, found[3].url, found[3].licence) == ("T3", "https://e.org/3", "CC0")
    assert found[3].collected_at == datetime(2024, 1, 2, tzinfo=UTC)
    assert found[3].doc_id == record_doc_id("s", record_id="3")
    assert json.loads(LINES[found[3].offset :][: found[3].length]) == ROWS[3]  # type: ignore[misc]


def test_columns_by_name_and_nested(tmp_path: Path) -> None:
    row = {"content": "words", "meta": {"url": "https://e.org", "license": "MIT"}, "a.b": "dotted"}
    columns = [("text", "content"), ("url", "meta.url"), ("licence", "meta.license"), ("title", "a.b")]
    [document] = documents(read_lines(tmp_path, json.dumps(row).encode(), columns=columns))
    assert (document.text, document.url, document.licence, document.title) == (
        "words",
        "https://e.org",
        "MIT",
        "dotted",
    )


def test_a_licence_is_taken_in_both_spellings_and_from_lists(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "license": "GPL-3.0"},
        {"text": "b", "licence": ["MIT", "GPL-3.0"]},
        {"text": "c", "license": ""},
    ]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    found = documents(read_lines(tmp_path, data, licence="CC0-1.0"))
    assert [one.licence for one in found] == ["GPL-3.0", "MIT AND GPL-3.0", "CC0-1.0"]
    [named, *_] = documents(read_lines(tmp_path, data, columns=[("licence", "terms")], licence="CC0-1.0"))
    assert named.licence == "CC0-1.0"
    pq.write_table(pa.Table.from_pylist(rows[:1]), tmp_path / "a.parquet")
    raw = RawInput(source="s", kind="parquet", path=str(tmp_path / "a.parquet"), name="a.parquet", size=1)
    assert [one.licence for one in documents(read_parquet(raw, ReadConfig()))] == ["GPL-3.0"]


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(InputError, match="no such document field: `body`"):
        RawInput(source="s", kind="jsonl", path="a", name="a", size=1, columns=(("body", "text"),))


def test_rows_without_an_id_are_known_by_place(tmp_path: Path) -> None:
    [first, second] = documents(read_lines(tmp_path, b'{"text": "a"}\n{"text": "a"}\n'))
    assert first.doc_id == offset_doc_id("s", file="a.jsonl", offset=0)
    assert second.doc_id == offset_doc_id("s", file="a.jsonl", offset=14)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{broken", "bad_json"), (b"[1, 2]", "not_an_object"), (b'{"body": "x"}', "no_text"),
        (b'{"text": 5}', "text_is_no_string"), (b'{"text": null}', "no_text"),
        (b'{"text": "' + b"x" * 3000 + b'"}', "page_too_large"),
        (b"[" * 13_000, "bad_json"),
        (b'{"a": "' + b"x" * 30_000 + b'"}', "page_too_large"), (b"\x00\xff\xfe", "bad_json"),
    ],
    ids=["broken", "array", "other column", "number", "null", "large text", "deep", "long line", "binary"],
)  # fmt: skip
def test_a_bad_line_costs_itself(tmp_path: Path, line: bytes, reason: str) -> None:
    readings = read_lines(tmp_path, LINES + line + b"\n" + LINES.replace(b'"id": ', b'"id": 1'), max_page_bytes=2000)
    assert len(texts(readings)) == 18
    [failure] = failures(readings)
    assert failure.reason == reason and failure.offset == len(LINES)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("rows", [1, 9, 4000])
def test_an_array_is_read_like_lines(tmp_path: Path, indent: int | None, rows: int) -> None:
    wanted = [{**ROWS[n % 9], "text": f'磨 [{{,]}} " {n}', "id": n} for n in range(rows)]
    data = json.dumps(wanted, indent=indent, ensure_ascii=False).encode() + b"\n"
    found = documents(read_lines(tmp_path, gzip.compress(data, mtime=0)))
    assert [one.text for one in found] == [row["text"] for row in wanted]
    last = found[-1]
    assert json.loads(data[last.offset :][: last.length]) == wanted[-1]  # type: ignore[misc]


def test_an_array_that_breaks_off_keeps_what_is_whole(tmp_path: Path) -> None:
    data = json.dumps(ROWS).encode()
    readings = read_lines(tmp_path, data[: data.index(b"Row 7")])
    assert len(texts(readings)) == 7 and reasons(readings) == ["bad_json"]
    readings = read_lines(tmp_path, b'[{"text": "a"}, {"text": "' + b"x" * 90_000 + b'"}]', max_page_bytes=10_000)
    assert texts(readings) == ["a"] and reasons(readings) == ["page_too_large"]


def test_a_number_of_5000_digits_costs_its_element(tmp_path: Path) -> None:
    readings = read_lines(tmp_path, b'[{"text": "a"}, {"text": "b", "n": ' + b"9" * 5000 + b'}, {"text": "c"}]')
    assert texts(readings) == ["a", "c"] and reasons(readings) == ["bad_json"]


def test_odd_strings_are_mended(tmp_path: Path) -> None:
    data = b'{"text": "half \\ud83d pair"}\n{"text": "bad \xff byte"}\n'
    data += b'{"text": "a\\u0000b\\r\\nc", "n": NaN}\n{"text": " \\n"}'
    readings = read_lines(tmp_path, b"\xef\xbb\xbf" + data)
    assert texts(readings) == ["half \ufffd pair", "bad \ufffd byte", "ab\nc"]
    assert all(encode(text).decode() == text for text in texts(readings))


def test_cut_gzip_keeps_the_lines_before(tmp_path: Path) -> None:
    readings = read_lines(tmp_path, gzip.compress(LINES * 50)[:-60])
    assert texts(readings)[:9] == [row["text"] for row in ROWS]
    assert reasons(readings)[-1] == "truncated_compression"


def table() -> pa.Table:
    return pa.Table.from_pylist([{**row, "unused": "x" * 100} for row in ROWS])


def test_parquet_rows_become_documents(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "a.parquet", row_group_size=4)
    raw = RawInput(source="s", kind="parquet", path=str(tmp_path / "a.parquet"), name="a.parquet", size=1)
    found = documents(read_parquet(raw, ReadConfig()))
    assert [one.text for one in found] == [row["text"] for row in ROWS]
    assert found[5].page == "5" and found[5].collected_at == datetime(2024, 1, 2, tzinfo=UTC)


def test_parquet_without_the_text_column_is_the_users_to_mend(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "a.parquet")
    raw = RawInput(source="s", kind="parquet", path=str(tmp_path / "a.parquet"), name="a.parquet", size=1)
    with pytest.raises(InputError, match="no column `content`; it has `text`, `title`"):
        list(read_parquet(replace(raw, columns=(("text", "content"),)), ReadConfig()))


def test_a_damaged_row_group_costs_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table(), path, row_group_size=3, compression="zstd", use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    readings = list(read_parquet(write(tmp_path, "b.parquet", bytes(data), "parquet"), ReadConfig()))
    assert texts(readings) == [ROWS[n]["text"] for n in (0, 1, 2, 6, 7, 8)]
    [failure] = failures(readings)
    assert failure.reason == "unreadable_row_group" and failure.detail.startswith("rows 3 to 5:")


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_parquet_without_a_footer_is_one_failure(tmp_path: Path, keep: int) -> None:
    pq.write_table(table(), tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()[:keep]
    readings = list(read_parquet(write(tmp_path, "b.parquet", data, "parquet"), ReadConfig()))
    assert reasons(readings) == ["unreadable_parquet"] and len(readings) == 1


class TestHuggingFace:
    def read(
        self, path: Path | str, *, subset: str | None = None, split: str | None = None, columns: Pairs = ()
    ) -> list[Reading]:
        raw = RawInput(source="s", kind="huggingface", path=str(path), name="d", size=0, subset=subset, split=split)
        return list(read_huggingface(replace(raw, columns=tuple(columns)), ReadConfig()))

    def test_saved_datasets(self, tmp_path: Path) -> None:
        import datasets

        rows = datasets.Dataset.from_list(ROWS)
        rows.save_to_disk(str(tmp_path / "one"))
        datasets.DatasetDict({"train": rows, "test": rows.select([0])}).save_to_disk(str(tmp_path / "two"))
        assert texts(self.read(tmp_path / "one")) == [row["text"] for row in ROWS]
        assert len(self.read(tmp_path / "two")) == 9 and len(self.read(tmp_path / "two", split="test")) == 1
        with pytest.raises(InputError, match="no split `dev`; it has `train`, `test`"):
            self.read(tmp_path / "two", split="dev")
        with pytest.raises(InputError, match="no split `dev`; it has no splits"):
            self.read(tmp_path / "one", split="dev")
        with pytest.raises(InputError, match="no subset `en`; it has no subsets"):
            self.read(tmp_path / "one", subset="en")
        with pytest.raises(InputError, match="no column `content`; it has `text`"):
            self.read(tmp_path / "one", columns=[("text", "content")])

    def test_a_folder_of_data_files(self, tmp_path: Path) -> None:
        (tmp_path / "train.jsonl").write_bytes(LINES)
        (tmp_path / "test.jsonl").write_bytes(LINES.splitlines()[0])
        found = documents(self.read(tmp_path))
        assert [one.text for one in found] == [row["text"] for row in ROWS]
        assert found[2].page == "2" and found[2].doc_id == record_doc_id("s", record_id="2")
        assert len(self.read(tmp_path, split="test")) == 1
        with pytest.raises(InputError, match="no split `dev`; it has `train`, `test`"):
            self.read(tmp_path, split="dev")

    def test_a_folder_with_subsets(self, tmp_path: Path) -> None:
        head = (
            "---\nconfigs:\n- {config_name: en, data_files: en.jsonl}\n- {config_name: zh, data_files: zh.jsonl}\n---\n"
        )
        (tmp_path / "README.md").write_text(head)
        (tmp_path / "en.jsonl").write_bytes(LINES)
        (tmp_path / "zh.jsonl").write_bytes(LINES.splitlines()[4])
        assert len(self.read(tmp_path, subset="en")) == 9
        assert texts(self.read(tmp_path, subset="zh")) == [ROWS[4]["text"]]
        with pytest.raises(InputError, match="has several subsets, and none is named; it has `en`, `zh`"):
            self.read(tmp_path)
        with pytest.raises(InputError, match="has no subset `fr`; it has `en`, `zh`"):
            self.read(tmp_path, subset="fr")

    def test_what_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="cannot open the dataset of source `s`"):
            self.read(tmp_path / "absent")

    def test_loading_scripts_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / f"{tmp_path.name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
        with pytest.raises(InputError):
            self.read(tmp_path)
        assert not (tmp_path / "ran").exists()


def test_articles_of_wikimedia_enterprise_and_of_wikiextractor(tmp_path: Path) -> None:
    article = {
        "name": "Ely",
        "identifier": 7,
        "url": "https://en.wikipedia.org/wiki/Ely",
        "date_modified": "2024-01-02T03:04:05Z",
        "license": [{"name": "Creative Commons", "identifier": "CC-BY-SA-4.0", "url": "https://x.org"}],
        "article_body": {"html": "<p>…</p>", "wikitext": "'''Ely''' is a [[city]]{{sfn|X}}."},
    }
    extracted = {"id": "7", "url": "https://en.wikipedia.org/wiki?curid=7", "title": "Ely", "text": "Ely is a city."}
    rows = [article, extracted, {"article_body": {"other": "<p>a</p>"}}]
    path = write(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode(), "jsonl")
    first, second, third = read_jsonl(path, ReadConfig())
    assert isinstance(first, Document) and isinstance(second, Document) and isinstance(third, Failure)
    assert first.text == second.text == "Ely is a city." and first.title == second.title == "Ely"
    assert first.licence == "CC-BY-SA-4.0" and first.collected_at == datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_enterprise_snapshots_are_archives_of_articles_in_html(tmp_path: Path) -> None:
    prose = "Ely is a city in Cambridgeshire, about fourteen miles north of Cambridge, known for its cathedral."
    article = {"name": "Ely", "identifier": 7, "article_body": {"html": f"<html><body><p>{prose}</p></body></html>"}}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for number in range(2):
            data = json.dumps(article | {"identifier": number}).encode()
            member = tarfile.TarInfo(f"enwiki_namespace_0_{number}.ndjson")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    packed = gzip.compress(archive.getvalue(), mtime=0)
    found = list(read_jsonl(write(tmp_path, "a.tar.gz", packed, "jsonl"), ReadConfig()))
    assert [one.text for one in documents(found)] == [prose, prose] and documents(found)[0].title == "Ely"
    *_, last = read_jsonl(write(tmp_path, "b.tar.gz", packed[:-40], "jsonl"), ReadConfig())
    assert isinstance(last, Failure) and last.reason == "truncated_compression"


def test_json_lines_do_not_load_numba() -> None:
    """It takes 0.4 s and 60 MB."""
    code = "import sys, sources.ingest; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
