"""Words of scripts without spaces: the same as the peers' whose dictionaries they are, whatever the text."""

from __future__ import annotations

import multiprocessing
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers.segmentation import tables
from classifiers.segmentation.listed_words import list_words
from classifiers.segmentation.tables import open_segmenter
from storage.errors import ModelError
from storage.kernels import VARIABLE
from tests.classifiers.plain_rules import plain_words
from tests.classifiers.segmentation.plain_segmentation import chinese_scores, clusters, japanese, jieba_tokenizer
from tests.classifiers.test_rules import read_texts

SEGMENTER = open_segmenter()
HAN_RUN = re.compile("[\u4e00-\u9fd5]+")
KANA_RUN = re.compile("[\u3005-\u3007\u3041-\u3096\u30a1-\u30fa\u30fc-\u30fe\u4e00-\u9fff]+")
SPACELESS = "中国人民大学有清华一二々の日本語ですもカタナー〇ｱกานไเ์ำม่ๆ๓ລາວភាខ្មមြန်စကား\u0301\u200d\ufe0f。 a"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("我来到北京清华大学", "我 来到 北京 清华大学"),
        ("他来到了网易杭研大厦", "他 来到 了 网易 杭 研 大厦"),
        ("私の名前は中野です", "私 の 名前 は 中野 です"),
        ("ประเทศลักเซมเบิร์กมีประวัติศาสตร์", "ประเทศ ลักเซมเบิร์ก มี ประวัติศาสตร์"),
        ("ภาษาខ្មែរ", "ภาษา ខ្មែ រ"),
        ("မြန်မာစကား", "မြန် မာ စ ကား"),
        ("ສະບາຍດີ", "ສະ ບາ ຍ ດີ"),
        ("한국어는 어렵다", "한국어는 어렵다"),
        ("བོད་ཡིག", "བོད ཡིག"),
    ],
)
def test_words_of_each_script(text: str, words: str) -> None:
    assert list_words(text, SEGMENTER) == words.split()


@pytest.mark.parametrize("file", ["text/zh-web.jsonl.gz", "encyclopedia/zh-articles.jsonl.gz"])
def test_chinese_is_cut_as_jieba_cuts_it(file: str, shared_data: Path) -> None:
    texts = read_texts(shared_data / file, every=25)
    runs = [run for text in texts for run in HAN_RUN.findall(text)]
    assert len(runs) > 100
    for run in runs:
        assert list_words(run, SEGMENTER) == list(jieba_tokenizer().cut(run, HMM=False))


def test_any_row_of_dictionary_words_is_cut_as_jieba_cuts_it() -> None:
    draw = random.Random(7)
    words = [word for word in chinese_scores() if HAN_RUN.fullmatch(word)]
    for _ in range(2000):
        run = "".join(draw.choices(words, k=6))
        assert list_words(run, SEGMENTER) == list(jieba_tokenizer().cut(run, HMM=False))


def test_japanese_is_cut_as_tinysegmenter_cuts_it(shared_data: Path) -> None:
    texts = read_texts(shared_data / "language" / "sib200-sample.jsonl.gz")
    runs = [run for text in texts for run in KANA_RUN.findall(text) if re.search("[\u3041-\u3096\u30a1-\u30fa]", run)]
    assert len(runs) > 100
    for run in runs:
        assert list_words(run, SEGMENTER) == japanese().tokenize(run)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from(SPACELESS), max_size=40))
def test_kernel_agrees_with_plain_python(text: str) -> None:
    assert list_words(text, SEGMENTER) == [text[first:last] for first, last in plain_words(text)]


@pytest.mark.parametrize("unit", ["中国人民", "私の", "ภาษาไทย", "ខ្មែរ", "ก\u0e49"])
def test_a_long_run_is_cut_in_blocks(unit: str) -> None:
    text = unit * 3000
    words = list_words(text, SEGMENTER)
    assert "".join(words) == text
    assert words == [text[first:last] for first, last in plain_words(text)]
    assert all(clusters(word)[0] in unit * 2 for word in words)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="`jieba` is not installed"):
        tables.segmenter_tables.__wrapped__()


def cut_in_a_new_process(folder: str) -> list[str]:
    import os

    os.environ[VARIABLE] = folder
    tables.segmenter_tables.cache_clear()
    return list_words("我来到北京清华大学", open_segmenter())


def test_workers_that_start_together_build_the_tables_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.map(cut_in_a_new_process, [str(tmp_path)] * 4, chunksize=1)
    assert found == [["我", "来到", "北京", "清华大学"]] * 4
    folders = [path for path in (tmp_path / "arrays").iterdir() if path.is_dir()]
    assert sorted(path.name.partition("-")[0] for path in folders) == ["chinese", "japanese", "thai"]
