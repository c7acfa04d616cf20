"""Exact copies, candidates and verification: each phase by itself, then the whole search against brute force."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.candidates import BANDS, CANDIDATES, CROWDS, candidates_table, find_candidates, scatter_bands
from pipelines.dedup.deduplicate import find_duplicates
from pipelines.dedup.exact import COPIES, HASHES, group_copies, scatter_hashes
from pipelines.dedup.parameters import DedupConfig, SignatureConfig
from pipelines.dedup.shuffle import gather_range, places, ranges_of, rows_of
from pipelines.dedup.signatures import sign_documents
from pipelines.dedup.verify import SHINGLES, list_wanted, merge_pairs, read_shingles, verify_pairs
from storage.errors import DatasetError
from tests.pipelines.dedup.dedup_corpora import (
    as_set,
    brute_force_pairs,
    corpus,
    doc_id,
    edited,
    exhaustive,
    family_corpus,
    names_of,
    near_pairs,
    shuffled_parts,
)

CONFIG = DedupConfig()


def copies_of(parts: list[pa.Table], num_ranges: int) -> pa.Table:
    hashes = [scatter_hashes(sign_documents(p, CONFIG.signature), i, num_ranges) for i, p in enumerate(parts)]
    return pa.concat_tables([group_copies(gather_range(hashes, r, HASHES)) for r in range(num_ranges)])


def without_places(found: pa.Table) -> pa.Table:
    """PAIRS or COPIES as their documents' names say them: places depend on how the corpus was cut."""
    return found.select([name for name in found.column_names if name != "range" and not name.endswith("place")])


@pytest.mark.parametrize("num_ranges", [1, 3])
def test_copies_name_their_least_doc_id_across_parts(num_ranges: int) -> None:
    first = corpus(["same text", "alone", "Same text", " same\n\ntext "], ["a", "b", "c", "d"])
    second = corpus(["e\u0301", "same text", "\u00e9", None, None], ["e", "f", "g", "h", "i"])
    copies = copies_of([first, second], num_ranges)
    least, accents = min("adf", key=doc_id), min("eg", key=doc_id)
    expected = {(n, least) for n in "adf" if n != least} | {(n, accents) for n in "eg" if n != accents}
    names = "abcdefghi"
    assert (
        set(zip(names_of(copies["doc_id"], names), names_of(copies["representative"], names), strict=True)) == expected
    )
    where = {doc_id(n): (0, i) for i, n in enumerate("abcd")} | {doc_id(n): (1, i) for i, n in enumerate("efghi")}
    for part, place, name, *_ in as_set(copies):
        assert where[name] == (part, place & 0xFFFFFFFF) and part == place >> 32  # type: ignore[index, operator]


def test_documents_that_share_a_band_are_candidates_and_copies_are_left_out() -> None:
    words = [f"w{i}" for i in range(60)]
    table = corpus([" ".join(words), " ".join([*words, "more"]), "something else altogether is here", " ".join(words)])
    signed = sign_documents(table, CONFIG.signature)
    copies = group_copies(scatter_hashes(signed, 0, 1))
    gone = rows_of(np.array(copies["place"].to_pylist()))
    bands = scatter_bands(signed, copies, 0, 4)
    assert len(bands) == 3 * 16
    pairs = pa.concat_tables([find_candidates(gather_range([bands], r, BANDS), CONFIG, 2)[0] for r in range(4)])
    (left,) = {0, 3} - set(gone.tolist())
    assert {(a, b) for _, a, b in as_set(pairs)} == {tuple(sorted((left, 1)))}


def test_pairs_whose_sizes_rule_the_threshold_out_are_no_candidates() -> None:
    table = pa.table([[0, 0, 0], [7, 7, 7], [1, 2, 3], [79, 100, 80], [0, 0, 0]], schema=BANDS)
    pairs, _ = find_candidates(table, CONFIG, 1)
    assert {(a, b) for _, a, b in as_set(pairs)} == {(2, 3), (1, 3)}


def test_buckets_above_the_limit_become_crowds_and_others_pairs() -> None:
    keys = [5] * 32 + [9] * 33
    rows = len(keys)
    table = pa.table([[0] * rows, keys, list(range(rows)), [50] * rows, list(range(rows))], schema=BANDS)
    pairs, crowds = find_candidates(table, CONFIG, 3)
    assert len(pairs) == 32 * 31 // 2 and pairs.column("b_place").to_numpy().max() == 31
    assert {(bucket, place) for _, bucket, _, place in as_set(crowds)} == {(9, i) for i in range(32, 65)}
    assert len(set(crowds["range"].to_pylist())) == 1


def test_large_crowds_are_sliced_by_content_alike_in_any_order() -> None:
    rows = 20_000
    tags = np.random.default_rng(1).integers(0, 1 << 32, rows, dtype=np.uint32)
    order = np.random.default_rng(2).permutation(rows)

    def slices(chosen: np.ndarray) -> dict[int, int]:
        zeros = np.zeros(rows, np.uint32)
        columns = [zeros, np.full(rows, 3, np.uint64), np.arange(rows), np.full(rows, 9, np.uint32), tags[chosen]]
        _, crowds = find_candidates(pa.table([pa.array(c) for c in columns], schema=BANDS), CONFIG, 4)
        return {int(tags[chosen][place]): cut for _, _, cut, place in as_set(crowds)}  # type: ignore[misc, index]

    assert slices(np.arange(rows)) == slices(order)
    assert set(slices(order).values()) == {0, 1, 2}


def test_candidates_are_unordered_pairs_once() -> None:
    table = candidates_table(np.array([5, 1, 1]), np.array([1, 5, 2]), 1)
    assert table.schema == CANDIDATES and as_set(table) == {(0, 1, 5), (0, 1, 2)}


def test_verification_refuses_when_shingles_are_missing() -> None:
    candidates = candidates_table(np.array([0, 0]), np.array([1, 7]), 1)
    wanted = list_wanted(candidates.slice(0, 1), CROWDS.empty_table(), 0)
    shingles = pa.Table.from_batches(read_shingles(corpus(["a b", "a b"]), wanted, CONFIG.signature), schema=SHINGLES)
    with pytest.raises(DatasetError, match="1 documents"):
        verify_pairs(candidates, CROWDS.empty_table(), shingles, CONFIG)


def test_similarity_on_the_threshold_counts() -> None:
    words = [f"w{i}" for i in range(13)]  # 9 shingles, and 8 of them in common: 8 / 10 exactly
    texts = [" ".join(words), " ".join([*words[:12], "other"])]
    found = find_duplicates([corpus(texts)], exhaustive())
    assert near_pairs(found.pairs, range(2)) == {frozenset((0, 1)): 0.8}
    assert len(find_duplicates([corpus(texts)], exhaustive(0.801)).pairs) == 0


def test_search_finds_what_brute_force_finds() -> None:
    texts = family_corpus(random.Random(4), families=40)
    found = find_duplicates([corpus(texts)], exhaustive(), num_ranges=2, num_groups=3)
    truth = brute_force_pairs(texts, exhaustive())
    assert len(truth) > 50
    assert near_pairs(found.pairs, range(len(texts))) == truth


def test_default_search_reports_only_true_pairs_and_hardly_misses_one() -> None:
    texts = family_corpus(random.Random(5), families=60)
    found = near_pairs(find_duplicates([corpus(texts)], CONFIG).pairs, range(len(texts)))
    truth = brute_force_pairs(texts, CONFIG)
    assert found.items() <= truth.items()
    assert len(found) >= 0.98 * len(truth)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
def test_search_does_not_depend_on_cut_order_ranges_or_groups(seed: int, parts: int, ranges: int, groups: int) -> None:
    chance = random.Random(seed)
    texts = family_corpus(chance, families=4, size=9, words=40) + ["", "!", "", "short one", "short  one"]
    config = exhaustive(bucket_limit=4, leader_limit=3)
    table = corpus(texts)
    once = find_duplicates([table], config)
    other = find_duplicates(shuffled_parts(table, chance, parts), config, num_ranges=ranges, num_groups=groups)
    assert without_places(other.pairs).equals(without_places(once.pairs))
    assert as_set(without_places(other.copies)) == as_set(without_places(once.copies))
    assert {row[:2] for row in as_set(other.crowds)} == {row[:2] for row in as_set(once.crowds)}


def test_character_shingles_are_searched_as_brute_force_does() -> None:
    chance = random.Random(8)
    letters = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏"
    texts = ["".join(chance.choice(letters) for _ in range(150)) for _ in range(8)]
    texts += [t[:70] + "新" + t[71:] for t in texts] + [t.replace("天", "地") for t in texts]
    config = exhaustive(0.7, unit="characters")
    assert near_pairs(find_duplicates([corpus(texts)], config).pairs, range(24)) == brute_force_pairs(texts, config)


def test_a_page_that_stands_twenty_thousand_times_is_one_node() -> None:
    page = " ".join(f"w{i}" for i in range(80))
    found = find_duplicates([corpus([page] * 20_000 + [page + " more"])], CONFIG)
    assert len(found.copies) == 19_999
    assert len(found.pairs) == 1 and found.num_candidates == 1 and len(found.crowds) == 0


def test_a_crowd_is_verified_with_few_comparisons_and_tied_together() -> None:
    chance = random.Random(9)
    words = [f"w{i}" for i in range(150)]
    texts = [edited(words, 1, chance) for _ in range(3_000)]
    found = find_duplicates([corpus(texts)], CONFIG, num_groups=2)
    assert found.num_candidates < 20_000 < 3_000 * 2_999 // 2
    assert len(found.pairs) >= 2_999 - 16
    assert set(names_of(found.crowds["doc_id"], range(3_000))) == set(range(3_000))


def test_a_crowd_is_tied_alike_in_any_order() -> None:
    chance = random.Random(10)
    words = [f"w{i}" for i in range(150)]
    table = corpus([edited(words, 1, chance) for _ in range(200)])
    once = without_places(find_duplicates([table], CONFIG).pairs)
    assert without_places(find_duplicates(shuffled_parts(table, chance, 3), CONFIG, num_ranges=2).pairs).equals(once)
    assert len(once) < 199 * 16


def test_each_kind_in_a_crowd_has_its_leader_while_there_is_room() -> None:
    chance = random.Random(11)
    shared = [f"s{i}" for i in range(100)]
    kinds = [shared + [f"{kind}{i}" for i in range(100)] for kind in "abc"]
    texts = [edited(kind, 1, chance) for kind in kinds for _ in range(40)]
    found = {limit: near_pairs(_search_with(limit, texts), range(120)) for limit in (1, 2, 3)}
    tied = {limit: len({name for pair in pairs for name in pair}) for limit, pairs in found.items()}
    assert tied == {1: 40, 2: 80, 3: 120}


def _search_with(leader_limit: int, texts: list[str]) -> pa.Table:
    """One band of one row whose minimum is a shingle that all share: one crowd."""
    table = corpus(texts)
    shared = {"bands": 1, "rows": 1, "shingle_size": 1}
    for seed in range(100):
        config = DedupConfig(signature=SignatureConfig(seed=seed, **shared), threshold=0.9, leader_limit=leader_limit)
        if len(sign_documents(table, config.signature)["bands"].combine_chunks().flatten().unique()) == 1:
            return find_duplicates([table], config).pairs
    raise AssertionError("no seed puts all texts in one bucket")


def test_hashes_that_share_their_first_half_are_not_copies() -> None:
    hashes = [b"h" * 8 + tail * 8 for tail in (b"a", b"b", b"a")]
    names = [doc_id(name) for name in "xyz"]
    copies = group_copies(pa.table([[0, 0, 0], hashes, names, [0, 1, 2]], schema=HASHES))
    assert {copies["doc_id"][0].as_py(), copies["representative"][0].as_py()} == {doc_id("x"), doc_id("z")}
    assert len(copies) == 1


def test_ranges_are_equal_shares_in_hash_order() -> None:
    hashes = np.random.default_rng(3).integers(0, 1 << 64, 30_000, dtype=np.uint64)
    ranges = ranges_of(hashes, 7)
    assert (np.diff(ranges[np.argsort(hashes)].astype(int)) >= 0).all()
    assert np.bincount(ranges, minlength=7).min() > 30_000 / 7 * 0.9
    assert ranges_of(np.array([0, (1 << 64) - 1], np.uint64), 7).tolist() == [0, 6]


def test_pairs_found_by_several_groups_are_merged() -> None:
    texts = family_corpus(random.Random(2), families=2)
    pairs = find_duplicates([corpus(texts)], exhaustive()).pairs
    assert merge_pairs([pairs.slice(3), pairs, pairs.slice(0, 5)]).equals(pairs)


def test_places_name_part_and_row() -> None:
    assert places(3, np.array([0, 5])).tolist() == [3 << 32, (3 << 32) + 5]


def test_an_empty_corpus_has_no_duplicates() -> None:
    found = find_duplicates([corpus([])], CONFIG)
    assert (len(found.pairs), len(found.copies), len(found.crowds)) == (0, 0, 0)
    assert COPIES.equals(found.copies.schema)


def test_other_seeds_find_the_same_pairs() -> None:
    texts = family_corpus(random.Random(6), families=5)
    searches = (
        DedupConfig(signature=SignatureConfig(bands=64, rows=1, seed=seed), threshold=0.8) for seed in (1, 2, 3)
    )
    found = [near_pairs(find_duplicates([corpus(texts)], search).pairs, range(len(texts))) for search in searches]
    assert found[0] == found[1] == found[2] == brute_force_pairs(texts, CONFIG)
