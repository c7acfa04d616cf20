"""Text as a fastText classifier reads it: the kernel against plain Python, and what is left out."""

from __future__ import annotations

import functools
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers.fasttext.preparation import (
    Preparation,
    WordPreparer,
    hash_phrase,
    phrase_hashes,
    prepare_plainly,
)
from classifiers.fasttext.stop_words import default_stop_words, find_phrases, read_stop_words
from storage.errors import InputError
from tests.classifiers.samples import HOSTILE

PHRASES = ("版权所有 转载 请", "all rights reserved", "a b c d e", "a b c")
SOME = Preparation(stop_words=("的", "了", "the"), phrases=PHRASES)
OPENED = functools.cache(WordPreparer)
PIECES = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "the", "的", "版权所有", "转载", "请", "。", "8", "\n"]))


def prepared(texts: list[str], preparation: Preparation = SOME) -> list[str]:
    found: list[str] = OPENED(preparation)(pa.array(texts, pa.string())).to_pylist()
    return found


def test_stop_words_symbols_and_phrases_go() -> None:
    assert prepared(["All of the mill, 的水车!"]) == ["All of mill 水车"]
    assert prepared(["版权所有，转载请注明 all rights reserved"]) == ["注明"]
    assert prepared(["a b c d e f", "a b c d f", "x a the b c"]) == ["f", "d f", "x"]


@settings(deadline=None)  # the first call compiles
@given(PIECES)
def test_the_kernel_does_what_plain_python_does(pieces: list[str]) -> None:
    text = " ".join(pieces)
    assert prepared([text]) == [prepare_plainly(text, SOME)]


def test_any_text_cut_anywhere() -> None:
    texts = [*HOSTILE, "水车 的 a b c", ""]
    assert prepared(texts) == prepared(texts[:3]) + prepared(texts[3:])
    column = pa.array([None, *texts])
    assert WordPreparer(SOME)(column.slice(1)).to_pylist() == prepared(texts)


def test_real_chinese_is_cut_as_plain_python_cuts_it(shared_data: Path) -> None:
    with gzip.open(shared_data / "text" / "zh-web.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line, _ in zip(lines, range(60), strict=False)]
    words = default_stop_words()
    phrases = find_phrases(pa.array(texts, pa.large_string()), words, most=20, least_documents=3)
    both = Preparation(stop_words=words, phrases=phrases)
    assert prepared(texts, both) == [prepare_plainly(text, both) for text in texts]


def test_phrases_are_those_of_most_documents() -> None:
    texts = ["one two three"] * 5 + ["版权 所有 转载 必究"] * 3 + ["four five six"]
    found = find_phrases(pa.array(texts), (), most=2, least_documents=2)
    assert found[0] == "one two three" and found[1] in ("版权 所有 转载", "所有 转载 必究", "版权 所有 转载 必究")
    assert find_phrases(pa.array(texts), (), most=9, least_documents=6) == ()


def test_a_phrase_is_found_by_its_hash() -> None:
    hashes = set(phrase_hashes("a b c d e f", WordPreparer(Preparation())).tolist())
    assert {hash_phrase("b c d".split()), hash_phrase("a b c d e".split())} <= hashes
    assert hash_phrase("b a c".split()) not in hashes and len(hashes) == 4 + 3 + 2


def test_default_stop_words_are_function_words() -> None:
    words = set(default_stop_words())
    assert {"的", "了", "和", "但是", "我们"} <= words and not {"中国", "经济", "水车"} & words


def test_lists_are_read_and_what_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("的\n\n 了 \n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("the\n", encoding="utf-8")
    assert read_stop_words([tmp_path / "a.txt", tmp_path / "b.txt"]) == ("the", "了", "的")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\x00")
    for name in ("c.txt", "none.txt"):
        with pytest.raises(InputError, match="stop words"):
            read_stop_words([tmp_path / name])
