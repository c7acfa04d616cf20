"""Lines, paragraphs and sentences that stand in many documents: which, where, and by which writing."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.columns import string_buffers
from pipelines.dedup.shuffle import select_range
from pipelines.dedup.spans.cut import cut_texts
from pipelines.dedup.spans.lines import count_lines, line_runs, read_hosts, scatter_lines
from pipelines.dedup.spans.measure import SURPLUS, measure_spans
from pipelines.dedup.spans.parameters import LinesConfig, spans_config
from pipelines.dedup.spans.units import Units
from storage.errors import InputError
from storage.schema import IDENTIFIER

RANGES = 3


def measured(texts: Sequence[str], config: LinesConfig, hosts: Sequence[str | None] | None = None) -> pa.StructArray:
    column, hosts = pa.array(texts, pa.string()), hosts or [None] * len(texts)
    doc_ids = pa.array([row.to_bytes(16, "big") for row in range(len(texts))], IDENTIFIER)
    lines = scatter_lines(column, doc_ids, hosts, 0, 0, config, RANGES)
    counted = pa.concat_tables([count_lines(select_range(lines, number), config) for number in range(RANGES)])
    runs = line_runs(column, hosts, 0, 0, counted.sort_by([("place", "ascending")]), config)
    return measure_spans(column, Units(*string_buffers(column), 1), runs, 0, config.keep)


def passages(texts: Sequence[str], config: LinesConfig, hosts: Sequence[str | None] | None = None) -> list[list[str]]:
    found = measured(texts, config, hosts).to_pylist()
    return [
        [text.encode()[span["start"] : span["end"]].decode() for span in row["spans"]]
        for text, row in zip(texts, found, strict=True)
    ]


def left(texts: Sequence[str], config: LinesConfig) -> list[str]:
    kept: list[str] = cut_texts(pa.array(texts, pa.string()), measured(texts, config).field("surplus")).to_pylist()
    return kept


LINES = st.lists(st.sampled_from(["a b", "A  B", "c", "", " ", "é", "中文。", "d\0"]), max_size=6).map("\n".join)


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(LINES, max_size=6), documents=st.integers(2, 3))
def test_lines_are_counted_by_documents_as_by_hand(texts: list[str], documents: int) -> None:
    config = LinesConfig(scope="corpus", documents=documents)

    def written(line: str) -> str:
        return " ".join(line.lower().replace("\0", "").split())

    counts = Counter(line for text in texts for line in {written(line) for line in text.split("\n")})
    for text, row in zip(texts, measured(texts, config).to_pylist(), strict=True):
        lines = [written(line) for line in text.split("\n")]
        often = [counts[line] for line in lines if line and counts[line] >= documents]
        assert row["occurrences"] == max(often, default=0)
        kept = [line for line in lines if line and counts[line] < documents]
        cut = cut_texts(pa.array([text]), pa.array([row["surplus"]], pa.list_(SURPLUS))).to_pylist()[0]
        assert [written(line) for line in cut.split("\n") if written(line)] == kept


def test_a_host_counts_for_itself() -> None:
    texts = ["menu\none", "menu\ntwo", "menu\nthree", "menu\nfour"]
    hosts = read_hosts(pa.array(["http://A.example./1", "https://a.example/2", "http://b.example", None]))
    assert hosts == ["a.example", "a.example", "b.example", None]
    assert passages(texts, LinesConfig(documents=2), hosts) == [["menu\n"], ["menu\n"], [], []]
    assert passages(texts, LinesConfig(scope="corpus", documents=4), hosts) == [["menu\n"]] * 4


def test_ccnet_writes_without_accents_digits_and_punctuation() -> None:
    texts = ["Déjà vu: 12 fois!\nrest", "deja VU 34 fois\nother"]
    plain, ccnet = spans_config(None, "corpus:2").lines, spans_config(None, "ccnet").lines
    assert plain and ccnet and passages(texts, plain) == [[], []]
    assert left(texts, ccnet) == [texts[0], "other"]
    assert unicodedata.normalize("NFD", "é")[0] == "e"


def test_c4_compares_three_sentences() -> None:
    shared = "One is here. Two is there! Three?"
    texts = [f"A start. {shared} An end.", f"Another. {shared} Its end.", "One is here. Two is there! Four."]
    config = spans_config(None, "c4").lines
    assert config and left(texts, config) == [texts[0], "Another. Its end.", texts[2]]
    chinese = ["一句话。两句话！三句话？尾", "头。一句话。两句话！三句话？"]
    assert left(chinese, config) == [chinese[0], "头。"]


def test_paragraphs_end_at_blank_lines() -> None:
    texts = ["one\ntwo\n\nthree", "One two\n \n\nfour", "two\n\nfour"]
    config = LinesConfig(scope="corpus", documents=2, unit="paragraphs")
    assert passages(texts, config) == [["one\ntwo\n\n"], ["One two\n \n\nfour"], ["four"]]


def test_the_first_document_keeps_its_first_place() -> None:
    texts = ["x\nsame\ny\nsame", "same\nz"]
    assert left(texts, LinesConfig(scope="corpus", documents=2, keep="first")) == ["x\nsame\ny\n", "z"]


@pytest.mark.parametrize(
    ("spans", "lines", "said"),
    [
        ("substring:1", None, "from 2 to"),
        ("suffix:200", None, "no kind `suffix`"),
        ("substring:200,keep=last", None, "first or none"),
        ("substring:200,unit=tokens", None, "a tokenizer goes with"),
        (None, "host:1", "start at 2"),
        (None, "page:3", "corpus or host"),
        (None, "host:3,unit=words", "lines or paragraphs or sentences"),
        ("substring:200,memory=1", None, "at least 16"),
        ("substring:many", None, "invalid literal"),
    ],
)
def test_what_cannot_be_asked_is_refused(spans: Any, lines: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        spans_config(spans, lines)


def test_memory_is_no_part_of_what_is_asked() -> None:
    small, large = (spans_config(f"substring:200,memory={memory}", "host:3") for memory in (100, 2000))
    assert small.memory == 100 and large.memory == 2000 and small.identity() == large.identity()
