"""Declared languages: which say counts, and that a page nothing is said of is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from sources.reading import RawInput, ReadConfig, Reading, Skipped
from sources.web.languages import is_wanted, language_codes
from sources.web.warc import read_warc, read_wet
from storage.errors import InputError
from tests.sources.captures import article, documents, members, record, response, write

CLD2 = b'fetchTimeMs: 5\r\nlanguages-cld2: {"reliable":true,"languages":[{"code":"de","code-iso-639-3":"deu"}]}'


def read(folder: Path, records: list[bytes], *languages: str) -> list[Reading]:
    config = ReadConfig(languages=languages, extraction="fast")
    return list(read_warc(write(folder, "a.warc.gz", members(records), "warc"), config))


@pytest.mark.parametrize(
    ("words", "codes"),
    [("de-AT, en", {"de", "en"}), ("deu,eng", {"de", "en"}), ("zh-Hant-TW", {"zh"}), ("ger", {"de"}),
     ("ltg", {"ltg"}), ("German", set()), ("", set()), ("x, 12", set())],
)  # fmt: skip
def test_codes_have_one_form(words: str, codes: set[str]) -> None:
    assert language_codes(words) == codes


def test_the_first_that_says_anything_counts() -> None:
    assert is_wanted(("de",), "deu", "en") and not is_wanted(("de",), "eng", "de")
    assert is_wanted(("de",), None, "de") and is_wanted(("de",), None, None) and is_wanted(("de",), "??", None)
    assert is_wanted((), "eng", "en")


def test_pages_in_other_languages_are_skipped(tmp_path: Path) -> None:
    html = "Content-Type: text/html"
    records = [
        response(1, article("Mills"), http=f"{html}\r\nContent-Language: en-GB"),
        response(2, article("Mühlen"), http=f"{html}\r\nContent-Language: de"),
        response(3, article("Moulins"), http=html),
    ]
    found = read(tmp_path, records, "deu")
    assert found[0] == Skipped("language")
    assert [one.title for one in documents(found)] == ["On Mühlen", "On Moulins"]
    assert len(documents(read(tmp_path, records))) == 3


def test_the_metadata_behind_a_response_counts_more_than_its_server(tmp_path: Path) -> None:
    told = record(
        9, CLD2, kind="metadata", content_type="application/warc-fields", headers="WARC-Concurrent-To: <urn:uuid:1>\r\n"
    )
    other = record(
        8, CLD2, kind="metadata", content_type="application/warc-fields", headers="WARC-Concurrent-To: <urn:uuid:7>\r\n"
    )
    page = response(1, article("Mills"), http="Content-Type: text/html\r\nContent-Language: en")
    assert read(tmp_path, [page, told], "en") == [Skipped("language"), Skipped("metadata")]
    assert len(documents(read(tmp_path, [page, told], "de"))) == 1
    assert len(documents(read(tmp_path, [page, other], "en"))) == 1


def test_wet_files_say_what_was_identified(tmp_path: Path) -> None:
    records = [
        record(1, b"ein Text", headers="WARC-Identified-Content-Language: deu\r\n"),
        record(2, b"a text", headers="WARC-Identified-Content-Language: eng,fra\r\n"),
    ]
    raw = write(tmp_path, "a.wet.gz", members(records), "wet")
    assert [one.text for one in documents(read_wet(raw, ReadConfig(languages=("en",))))] == ["a text"]


def test_what_is_no_code_is_refused() -> None:
    with pytest.raises(InputError, match="german"):
        ReadConfig(languages=("german",))


def test_common_crawl_s_own_metadata(shared_data: Path) -> None:
    path = shared_data / "web" / "archives" / "commoncrawl+whirlwind-python__whirlwind.warc.gz"
    raw = RawInput(source="s", kind="warc", path=str(path), name=path.name, size=1)
    assert len(documents(read_warc(raw, ReadConfig(languages=("es",))))) == 1
    assert Skipped("language") in list(read_warc(raw, ReadConfig(languages=("an",))))
