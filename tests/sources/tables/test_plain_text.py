"""Text files to documents: whole or cut by separators, in the encodings that people have, damage told."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from sources.ingest import IngestConfig, ingest
from sources.inputs import expand_inputs
from sources.reading import ReadConfig, Reading
from sources.tables.plain_text import read_text
from storage.errors import InputError
from tests.sources.captures import documents, failures, reasons, texts, write

STORIES = ["One day, a girl.\n\nShe ran.", "两只老虎，两只老虎，跑得快。", "The end — truly."]


def read(folder: Path, data: bytes, separator: str | None = None, limit: int = 10_000) -> list[Reading]:
    raw = write(folder, "a.txt", data, "text", separator=separator, licence="CC0-1.0")
    return list(read_text(raw, ReadConfig(max_page_bytes=limit)))


def test_a_file_is_a_document(tmp_path: Path) -> None:
    [document] = documents(read(tmp_path, gzip.compress("\ufeffIt was —\r\nthe best.\n".encode())))
    assert (document.text, document.licence, document.offset) == ("It was —\nthe best.", "CC0-1.0", 0)


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_documents_between_separators_are_found_at_their_offsets(tmp_path: Path, compress) -> None:  # type: ignore[no-untyped-def]
    data = "<|endoftext|>\n".join(f"{story}\n" for story in [*STORIES, "", "last"]).encode()
    found = documents(read(tmp_path, compress(data), "<|endoftext|>"))
    assert [one.text for one in found] == [*STORIES, "last"]
    assert [data[one.offset :][: one.length].decode().strip() for one in found] == [one.text for one in found]  # type: ignore[misc]


def test_a_separator_is_found_wherever_the_stream_is_cut(tmp_path: Path) -> None:
    for length in range(65_500, 65_560):
        data = b"x" * length + b"<|endoftext|>" + b"y" * 70_000
        assert [len(text) for text in texts(read(tmp_path, data, "<|endoftext|>", 100_000))] == [length, 70_000]


def test_lines_and_paragraphs(tmp_path: Path) -> None:
    data = b"one\r\ntwo\r\n \r\n\r\nthree\n\n"
    assert texts(read(tmp_path, data, "line")) == ["one", "two", "three"]
    assert texts(read(tmp_path, data, "blank_line")) == ["one\ntwo", "three"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "gb18030", "big5hkscs"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    stories = (
        ["两只老虎跑得快，一只没有耳朵，真奇怪。"] * 30
        if encoding != "big5hkscs"
        else ["兩隻老虎跑得快，真奇怪。"] * 30
    )
    for separator, between in (("line", "\n"), ("blank_line", "\n\n"), ("<|endoftext|>", "<|endoftext|>")):
        assert texts(read(tmp_path, between.join(stories).encode(encoding), separator)) == stories


@pytest.mark.parametrize("separator", [None, "line", "blank_line", "@@"])
def test_a_document_that_is_too_large_costs_itself(tmp_path: Path, separator: str | None) -> None:
    between = {None: b"", "line": b"\n", "blank_line": b"\n\n"}.get(separator, b"@@")
    readings = read(tmp_path, between.join([b"a", b"x" * 300_000, b"b"]), separator)
    assert texts(readings) == ([] if separator is None else ["a", "b"])
    [failure] = failures(readings)
    assert failure.reason == "page_too_large" and ("?separator=" in failure.detail) == (separator is None)


def test_paragraphs_of_many_lines_are_not_held(tmp_path: Path) -> None:
    readings = read(tmp_path, b"word\n" * 100_000 + b"\nshort\n", "blank_line")
    assert reasons(readings) == ["page_too_large"] and texts(readings) == ["short"]


def test_damage_is_told(tmp_path: Path) -> None:
    cut_off = gzip.compress("\n".join(f"Story {i} of many, many." for i in range(9000)).encode())[:-3000]
    readings = read(tmp_path, cut_off, "line")
    assert reasons(readings) == ["truncated_compression"] and texts(readings)[0] == "Story 0 of many, many."
    assert reasons(read(tmp_path, cut_off)) == ["truncated_compression"]
    assert reasons(read(tmp_path, bytes(range(256)) * 40)) == ["damaged_compression"]


def test_named_by_a_path_with_a_separator(tmp_path: Path) -> None:
    for name in ("a.txt", "b.md", "c.jpg"):
        (tmp_path / name).write_text("one\n\ntwo")
    folder, one = (
        expand_inputs("s", [str(tmp_path)], kind="text"),
        expand_inputs("s", [f"{tmp_path}/a.txt?separator=%0A%0A"], kind="text"),
    )
    assert [(raw.name, raw.separator) for raw in folder] == [("a.txt", None), ("b.md", None)]
    assert [batch.documents["text"].to_pylist() for batch in ingest(one[0], IngestConfig())] == [["one", "two"]]
    with pytest.raises(InputError, match="the separator is empty"):
        expand_inputs("s", [f"{tmp_path}/a.txt?separator="], kind="text")
