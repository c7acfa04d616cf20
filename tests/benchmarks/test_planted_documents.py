"""The planted corpus: the same bytes whoever asks, and duplicates as alike as they are said to be."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from benchmarks.planted_documents import (
    COPY,
    NEAR,
    ORIGINAL,
    PLANTED,
    PLANTED_SIMILARITIES,
    PlantedCorpus,
    Sentences,
    describe_documents,
    gather_sentences,
    list_pairs,
    make_documents,
    make_part,
    number_of,
    read_sentences,
)
from pipelines.dedup.parameters import SignatureConfig
from pipelines.dedup.reference import jaccard, make_shingles
from storage.errors import CurationError

CORPUS = PlantedCorpus(documents_per_part=500, near_duplicates=0.1, copies=0.05, pairs=0.2, chinese=0.3)
NUMBERS = np.arange(1500)


@pytest.fixture(scope="module")
def sentences() -> Sentences:
    chance = random.Random(1)
    english = [" ".join(f"word{chance.randrange(5000)}" for _ in range(12)) + "." for _ in range(800)]
    chinese = ["".join(chr(0x4E00 + chance.randrange(3000)) for _ in range(30)) + "。" for _ in range(800)]
    return gather_sentences(english, chinese)


def test_a_part_is_its_documents_whoever_asks(sentences: Sentences) -> None:
    part = make_part(sentences, CORPUS, 2)
    assert part.equals(make_part(sentences, CORPUS, 2))
    backwards = make_documents(sentences, CORPUS, np.arange(1499, 999, -1))
    assert backwards.take(np.arange(499, -1, -1)).equals(part)
    assert [number_of(i) for i in part["doc_id"].to_pylist()] == list(range(1000, 1500))


def test_documents_differ_and_have_the_promised_size(sentences: Sentences) -> None:
    plain = PlantedCorpus(near_duplicates=0, copies=0, chinese=0.3)
    texts = make_documents(sentences, plain, NUMBERS)["text"].to_pylist()
    sizes = [len(text.encode()) for text in texts]
    assert len(set(texts)) == 1500 and min(sizes) >= 1450 and max(sizes) < 3800
    assert sum(text[0] >= "\u4e00" for text in texts) == pytest.approx(450, abs=60)


def test_duplicates_are_of_earlier_originals_in_the_asked_shares() -> None:
    numbers = np.arange(20_000)
    kinds, origins, _, _ = describe_documents(CORPUS, numbers)
    shares = np.bincount(kinds, minlength=4) / len(numbers)
    assert shares[[COPY, NEAR, PLANTED]] == pytest.approx([0.05, 0.1, 0.2], abs=0.01)
    assert (origins[kinds == ORIGINAL] == numbers[kinds == ORIGINAL]).all()
    assert (kinds[origins] == ORIGINAL).all() and (origins <= numbers).all()
    assert (origins // 500 != numbers // 500)[kinds != ORIGINAL].mean() > 0.8


def test_copies_are_exact_and_near_duplicates_are_not(sentences: Sentences) -> None:
    kinds, origins, _, _ = describe_documents(CORPUS, NUMBERS)
    texts = make_documents(sentences, CORPUS, NUMBERS)["text"].to_pylist()
    equal = np.array([text == texts[origin] for text, origin in zip(texts, origins, strict=True)])
    assert equal[kinds == COPY].all() and not equal[(kinds == NEAR) | (kinds == PLANTED)].any()


def test_planted_pairs_have_the_similarity_that_they_aim_at(sentences: Sentences) -> None:
    pairs = list_pairs(CORPUS, NUMBERS)
    texts = (
        make_documents(sentences, CORPUS, pairs[name].to_numpy())["text"].to_pylist() for name in pairs.column_names[:2]
    )
    sets = [[make_shingles(text, SignatureConfig()) for text in side] for side in texts]
    measured = np.array([jaccard(a, b) for a, b in zip(*sets, strict=True)])
    assert np.abs(measured - pairs["aim"].to_numpy()).max() < 0.06
    assert np.abs(measured - pairs["aim"].to_numpy()).mean() < 0.01
    both = {(aim, way) for aim, way in zip(pairs["aim"].to_pylist(), pairs["way"].to_pylist(), strict=True)}
    assert both == {(aim, way) for aim in PLANTED_SIMILARITIES for way in (0, 1)}


def test_shares_that_leave_no_originals_are_refused() -> None:
    with pytest.raises(CurationError, match="95%"):
        PlantedCorpus(near_duplicates=0.5, copies=0.45)


def test_sentences_come_from_any_folder_of_texts(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text(
        "A sentence of some thirty bytes or more. Short one.\n这是一个足够长的中文句子用来测试。短。"
    )
    (tmp_path / "two.jsonl").write_text('{"text": "Another sentence that is also long enough here!"}\n')
    found = read_sentences(tmp_path)
    assert (len(found.offsets) - 1, found.num_english) == (3, 2)
    assert len(make_part(found, PlantedCorpus(documents_per_part=10), 0)) == 10
    with pytest.raises(CurationError, match="no sentences"):
        read_sentences(tmp_path / "empty")


def test_real_sentences_make_real_documents(shared_data: Path) -> None:
    found = read_sentences(shared_data)
    assert 50_000 < found.num_english < len(found.offsets) - 1
