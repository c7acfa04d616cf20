"""Texts made to break the scanner or to slow the search: long, repeated, mixed to the byte, edited step by step."""

from __future__ import annotations

import random
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.deduplicate import deduplicate, find_duplicates
from pipelines.dedup.parameters import DedupConfig, SignatureConfig
from pipelines.dedup.reference import jaccard, make_shingles, normalise_text
from pipelines.dedup.signatures import normalise, sign_documents
from tests.pipelines.dedup.dedup_corpora import corpus, edited, names_of, standings

CONFIG = DedupConfig()
PIECES = [
    "word", "Words", "aB9", "x", " ", "  ", "\n", "\t ", ". ", "’", "“", "é", "e\u0301", "\u0301", "ÀÉ", "中", "文字",
    "。", "\u3000", "\u00a0", "\u2003", "\u00ad", "\u200b", "กิน", "ß", "İ", "Ω", "한국", "\U0001d54f", "🎉", "\x1c",
    "\x85",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=80), st.lists(st.sampled_from(PIECES), max_size=80))
def test_eight_bytes_at_a_time_are_what_characters_are(one: list[str], other: list[str]) -> None:
    """Every piece at every offset from an eight-byte step, against the plain implementation."""
    texts = ["".join(one), "".join(other), "".join(one + other)]
    offsets, data = normalise(pa.array(texts))
    assert [bytes(data[a:b]).decode() for a, b in zip(offsets[:-1], offsets[1:], strict=True)] == [
        normalise_text(text) for text in texts
    ]
    for config in (SignatureConfig(), SignatureConfig(shingle_size=1), SignatureConfig(unit="characters")):
        plain = [len(make_shingles(text, config)) for text in texts]
        assert sign_documents(corpus(texts), config)["num_shingles"].to_pylist() == plain


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9))
def test_reported_similarities_of_mixed_scripts_are_those_of_sets_of_strings(seed: int) -> None:
    chance = random.Random(seed)
    first = [chance.choice(PIECES) for _ in range(200)]
    texts = ["".join(first), "".join([*first[:190], "new", *first[191:]])]
    truth = jaccard(*(make_shingles(text, CONFIG.signature) for text in texts))
    found = find_duplicates([corpus(texts)], CONFIG).pairs["similarity"].to_pylist()
    assert found in ([], [truth])
    assert found or truth < 0.95


@pytest.mark.parametrize(
    "text", ["spam " * 1_000_000, "a" * 5_000_000, "e" + "\u0301" * 500_000, " \n" * 2_000_000, "中" * 1_000_000]
)
def test_one_huge_text_of_one_thing_costs_seconds_at_most(text: str) -> None:
    sign_documents(corpus(["compile"]), CONFIG.signature)
    start = time.process_time()
    signed = sign_documents(corpus([text]), CONFIG.signature)
    assert signed["num_shingles"].to_pylist()[0] <= 1
    assert time.process_time() - start < 5


def test_a_hundred_thousand_copies_of_a_page_cost_no_comparison() -> None:
    page = " ".join(f"w{i}" for i in range(60))
    table = pa.table({"doc_id": corpus([""] * 100_000)["doc_id"], "text": pa.repeat(page, 100_000)})
    found = find_duplicates([table.slice(0, 70_000), table.slice(70_000)], CONFIG)
    assert (len(found.copies), len(found.pairs), found.num_candidates) == (99_999, 0, 0)


def test_a_chain_of_gradual_edits_loses_nothing_that_no_kept_text_has() -> None:
    chance = random.Random(15)
    words, texts = [f"w{i}" for i in range(150)], []
    for _ in range(400):
        texts.append(" ".join(words))
        words = edited(words, 1, chance).split()
    policy = standings(range(400))
    kept = names_of(deduplicate([corpus(texts)], policy, CONFIG)["duplicate_of"], range(400))
    sets = [make_shingles(text, CONFIG.signature) for text in texts]
    dropped = [(name, keeper) for name, keeper in enumerate(kept) if keeper is not None]
    assert all(kept[keeper] is None and jaccard(sets[name], sets[keeper]) >= 0.8 for name, keeper in dropped)
    assert 250 < len(dropped) < 390


def test_short_and_empty_texts_are_near_only_to_what_has_their_words() -> None:
    texts = ["", " ", "one", "One!", "one two", "two one", "one two three four", "one two three four five", "…"]
    kept = names_of(deduplicate([corpus(texts)], standings(range(9)), CONFIG)["duplicate_of"], range(9))
    assert kept == [None, 0, None, 2, None, None, None, None, None]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6))
def test_the_default_search_again_over_what_it_kept_drops_nothing(seed: int) -> None:
    chance = random.Random(seed)
    families = [[f"f{family}w{i}" for i in range(80)] for family in range(6)]
    texts = [edited(chance.choice(families), chance.randrange(3), chance) for _ in range(60)]
    ranks = np.random.default_rng(seed).permutation(60).tolist()
    table, policy = corpus(texts), standings(range(60), ranks)
    is_kept = deduplicate([table], policy, CONFIG)["duplicate_of"].is_null()
    again = deduplicate([table.filter(is_kept)], policy.filter(is_kept), CONFIG)
    assert again["duplicate_of"].null_count == len(again)
