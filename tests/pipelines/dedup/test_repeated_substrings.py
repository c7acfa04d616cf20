"""Substrings that stand elsewhere too: every place, to the byte, as brute force finds them, by every method."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.shuffle import select_range
from pipelines.dedup.spans.anchors import cut_pieces, find_shared, scatter_anchors, whole_pieces
from pipelines.dedup.spans.cut import cut_texts
from pipelines.dedup.spans.measure import measure_spans
from pipelines.dedup.spans.parameters import SubstringConfig
from pipelines.dedup.spans.repeats import find_repeats
from pipelines.dedup.spans.units import unit_function
from storage.schema import IDENTIFIER

AMPLE, SCANT = 1 << 30, 2_000
"""Memory in bytes: for one suffix array, and for several passes by hash."""
RANGES, GROUPS = 3, 4
Found = list[dict[str, Any]]


def identifiers(count: int) -> list[bytes]:
    """doc_ids that do not ascend with the rows."""
    return [bytes([(7 * row + 3) % 251]) + row.to_bytes(15, "big") for row in range(count)]


def by_one_array(texts: Sequence[str], config: SubstringConfig, memory: int = AMPLE) -> pa.Table:
    column, doc_ids = pa.array(texts, pa.string()), pa.array(identifiers(len(texts)), IDENTIFIER)
    pieces = whole_pieces(unit_function(config)(column), doc_ids, 0, 0, config)
    return find_repeats([pieces], config, memory)


def by_ranges(texts: Sequence[str], config: SubstringConfig, memory: int = AMPLE) -> pa.Table:
    column, doc_ids = pa.array(texts, pa.string()), pa.array(identifiers(len(texts)), IDENTIFIER)
    units = unit_function(config)(column)
    anchors = scatter_anchors(units, 0, 0, config, RANGES)
    wanted = pa.concat_tables([find_shared(select_range(anchors, number)) for number in range(RANGES)])
    wanted = wanted.sort_by([("place", "ascending"), ("first", "ascending")])
    pieces = cut_pieces(units, doc_ids, 0, wanted, config, GROUPS, 0, GROUPS)
    groups = [find_repeats([select_range(pieces, group)], config, memory) for group in range(GROUPS)]
    return pa.concat_tables(groups).sort_by([("place", "ascending"), ("first", "ascending")])


def measured(texts: Sequence[str], runs: pa.Table, config: SubstringConfig) -> pa.StructArray:
    column = pa.array(texts, pa.string())
    return measure_spans(column, unit_function(config)(column), runs, 0, config.keep)


def brute_force(texts: Sequence[str], config: SubstringConfig) -> dict[tuple[int, int], list[tuple[bytes, int, int]]]:
    """(row, offset) of each window of `length` bytes that stands at two places → all of its places, first to last."""
    places, doc_ids = defaultdict(list), identifiers(len(texts))
    for row, text in enumerate(texts):
        data = text.encode()
        for start in range(len(data) - config.length + 1):
            places[data[start : start + config.length]].append((doc_ids[row], row, start))
    alike = [sorted(found) for found in places.values() if len(found) > 1]
    return {(row, start): found for found in alike for _, row, start in found}


def expected_spans(texts: Sequence[str], config: SubstringConfig) -> tuple[Found, Found]:
    """(spans, surplus) by the definition: one mark a byte, halves of characters left out."""
    windows = brute_force(texts, config)
    spans, surplus = [], []
    for row, text in enumerate(texts):
        covered, first = set(), set()
        for (owner, start), places in windows.items():
            if owner == row:
                window = range(start, start + config.length)
                covered.update(window)
                first.update(window if places[0][1:] == (row, start) else ())
        other = {
            byte
            for (owner, start), places in windows.items()
            if owner == row and places[0][1:] != (row, start)
            for byte in range(start, start + config.length)
        }
        spans.append(whole_characters(text, covered))
        surplus.append(whole_characters(text, other - first if config.keep == "first" else covered))
    return spans, surplus


def whole_characters(text: str, marks: set[int]) -> Any:
    data = text.encode()
    edges = [i for i in range(len(data) + 1) if i == len(data) or data[i] & 0xC0 != 0x80]
    runs: list[list[int]] = []
    for byte in sorted(marks):
        if runs and runs[-1][1] == byte:
            runs[-1][1] = byte + 1
        else:
            runs.append([byte, byte + 1])
    found = []
    for start, end in runs:
        inside = [edge for edge in edges if start <= edge <= end]
        if len(inside) > 1:
            found.append((inside[0], inside[-1]))
    return found


Method = Callable[[Sequence[str], SubstringConfig, int], pa.Table]
METHODS = [
    pytest.param(method, memory, id=f"{method.__name__}-{name}")
    for method in (by_one_array, by_ranges)
    for name, memory in (("suffixes", AMPLE), ("hashes", SCANT))
]
alphabets = st.sampled_from(["ab", "abc", "a", "aé中", "ab\n\0"])
corpora = alphabets.flatmap(lambda letters: st.lists(st.text(letters, max_size=60), max_size=6))


@pytest.mark.parametrize(("method", "memory"), METHODS)
@settings(max_examples=120, deadline=None)
@given(texts=corpora, length=st.integers(2, 9), keep=st.sampled_from(["first", "none"]))
def test_every_method_finds_what_brute_force_finds(
    method: Method, memory: int, texts: list[str], length: int, keep: Any
) -> None:
    config = SubstringConfig(length=length, keep=keep)
    runs = method(texts, config, memory)
    rows = measured(texts, runs, config).to_pylist()
    spans, surplus = expected_spans(texts, config)
    assert [[(span["start"], span["end"]) for span in row["spans"]] for row in rows] == spans
    assert [[(span["start"], span["end"]) for span in row["surplus"]] for row in rows] == surplus
    windows = brute_force(texts, config)
    for row, found in enumerate(rows):
        counts = [len(places) for (owner, _), places in windows.items() if owner == row]
        assert found["occurrences"] == max(counts, default=0)


@settings(max_examples=60, deadline=None)
@given(texts=corpora, length=st.integers(2, 9), unit=st.sampled_from(["bytes", "words"]))
def test_ranges_and_memory_change_no_byte(texts: list[str], length: int, unit: Any) -> None:
    config = SubstringConfig(length=length, unit=unit)
    (first, *others) = [
        measured(texts, method(texts, config, memory), config)
        for method in (by_one_array, by_ranges)
        for memory in (AMPLE, SCANT)
    ]
    assert all(other.equals(first) for other in others)


@settings(max_examples=60, deadline=None)
@given(texts=corpora, length=st.integers(2, 9))
def test_what_stood_twice_still_stands_once(texts: list[str], length: int) -> None:
    """No information goes: after cutting, every repeated window is there at its first place."""
    config = SubstringConfig(length=length)
    rows = measured(texts, by_ranges(texts, config), config)
    left = cut_texts(pa.array(texts, pa.string()), rows.field("surplus")).to_pylist()
    for (row, start), places in brute_force(texts, config).items():
        window = texts[row].encode()[start : start + length]
        assert window in left[places[0][1]].encode()


def test_planted_repeats_above_and_below_the_length() -> None:
    passage = "A passage of exactly fifty bytes, counted by hand."
    assert len(passage) == 50
    texts = [f"One text. {passage} Its end", f"{passage}; another text", "neither of them"]
    rows = measured(texts, by_ranges(texts, SubstringConfig(length=50)), SubstringConfig(length=50)).to_pylist()
    assert [row["spans"] for row in rows] == [
        [{"start": 10, "end": 60, "occurrences": 2}], [{"start": 0, "end": 50, "occurrences": 2}], []
    ]  # fmt: skip
    assert [row["surplus_bytes"] for row in rows] == [0, 50, 0]
    doc_ids = identifiers(3)
    assert [row["example"] for row in rows] == [doc_ids[1], doc_ids[0], None]
    longer = SubstringConfig(length=51)
    assert measured(texts, by_ranges(texts, longer), longer).field("bytes").to_pylist() == [0, 0, 0]


def test_no_character_is_cut() -> None:
    """磨 and 磩 share their first two bytes, 坊 and 圊 their last."""
    texts = ["水车磨坊在河边", "旧水车磩坊在河岸"]
    assert "磨".encode()[:2] == "磩".encode()[:2]
    config = SubstringConfig(length=7, keep="none")
    rows = measured(texts, by_one_array(texts, config), config)
    cut = cut_texts(pa.array(texts, pa.string()), rows.field("surplus")).to_pylist()
    assert cut == ["磨边", "旧磩岸"]


def test_words_are_compared_without_case_and_cut_at_their_edges() -> None:
    texts = ["Say: The QUICK, brown fox!", "the quick brown fox ran"]
    config = SubstringConfig(length=4, unit="words")
    rows = measured(texts, by_ranges(texts, config), config)
    spans = rows.to_pylist()
    assert texts[0].encode()[spans[0]["spans"][0]["start"] : spans[0]["spans"][0]["end"]] == b"The QUICK, brown fox"
    assert cut_texts(pa.array(texts, pa.string()), rows.field("surplus")).to_pylist() == [texts[0], " ran"]


def test_tokens_of_a_tokenizer(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    from tokenizers.trainers import BpeTrainer

    tokenizer.train_from_iterator([], BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = SubstringConfig(length=6, unit="tokens", tokenizer=str(tmp_path / "tokenizer.json"))
    texts = ["x磨坊y", "z磨坊w"]
    rows = measured(texts, by_ranges(texts, config), config).to_pylist()
    assert [row["spans"][0]["start"] for row in rows] == [1, 1] and [row["bytes"] for row in rows] == [6, 6]
    halves = SubstringConfig(length=4, unit="tokens", tokenizer=config.tokenizer)
    texts = ["水磨", "水磩"]
    assert [row["spans"][0]["end"] for row in measured(texts, by_ranges(texts, halves), halves).to_pylist()] == [3, 3]


def test_one_character_over_and_over_is_fast() -> None:
    config, text = SubstringConfig(length=200), "a" * 1_000_000
    for method in (by_one_array, by_ranges):
        method([text[:1000]], config)
        start = time.process_time()
        (row,) = measured([text], method([text], config), config).to_pylist()
        assert time.process_time() - start < 3
        assert row["spans"] == [{"start": 0, "end": 1_000_000, "occurrences": 999_801}]
        assert row["surplus"] == [{"start": 200, "end": 1_000_000}]


def test_a_page_copied_many_times_costs_one() -> None:
    page = " ".join(f"word{number} of the page" for number in range(20))
    texts, config = [page] * 20_000, SubstringConfig(length=100)
    start = time.process_time()
    rows = measured(texts, by_ranges(texts, config), config)
    assert time.process_time() - start < 10
    assert set(rows.field("occurrences").to_pylist()) == {20_000}
    kept = [row for row, size in enumerate(rows.field("surplus_bytes").to_pylist()) if not size]
    assert kept == [min(range(20_000), key=identifiers(20_000).__getitem__)]


@pytest.mark.parametrize("texts", [[], [""], ["", "a"], ["a" * 199, "a" * 199]])
def test_texts_without_a_window(texts: list[str]) -> None:
    config = SubstringConfig(length=200)
    for method in (by_one_array, by_ranges):
        rows = measured(texts, method(texts, config), config)
        assert rows.field("bytes").to_pylist() == [0] * len(texts)


def test_the_repeated_lead_paragraph_of_a_real_page(shared_data: Path) -> None:
    """The page begins with a teaser that its article repeats."""
    seed = shared_data.parent / "seeds" / "004_135472aabc2ee56b.txt"
    if not seed.exists():
        pytest.skip("the seed pages are not here")
    text = seed.read_text(encoding="utf-8")
    config = SubstringConfig(length=200)
    (row,) = measured([text], by_one_array([text], config), config).to_pylist()
    passages = [text.encode()[span["start"] : span["end"]].decode() for span in row["spans"]]
    assert len(passages) == 2 and passages[0].strip() == passages[1].strip()
    assert all(span["occurrences"] == 2 for span in row["spans"])
    (left,) = cut_texts(pa.array([text]), pa.array([row["surplus"]])).to_pylist()
    assert left.count(passages[0][:60]) == 1 and all(a["end"] <= b["start"] for a, b in pairwise(row["spans"]))
