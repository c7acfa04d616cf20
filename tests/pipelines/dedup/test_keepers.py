"""Keepers: invariant I6. Each dropped document names a kept one that it truly resembles; order changes nothing."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.deduplicate import deduplicate, find_duplicates, settle_keepers
from pipelines.dedup.exact import COPIES
from pipelines.dedup.keepers import KINDS, choose_keepers, rank_documents
from pipelines.dedup.parameters import DedupConfig
from pipelines.dedup.reference import jaccard, make_shingles, normalise_text
from pipelines.dedup.verify import PAIRS
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
    random_ranks,
    shuffled_parts,
    standings,
)


def pairs_of(*rows: tuple[object, object, float]) -> pa.Table:
    ordered = [(*sorted((a, b), key=doc_id), s) for a, b, s in rows]
    columns = [[doc_id(r[0]) for r in ordered], [doc_id(r[1]) for r in ordered], [r[2] for r in ordered]]
    columns += [list(range(len(rows))), list(range(len(rows)))]
    return pa.table(columns, schema=PAIRS)


def copies_of(*rows: tuple[object, object]) -> pa.Table:
    ids = [[doc_id(name) for name in column] for column in zip(*rows, strict=True)] or [[], []]
    return pa.table([[0] * len(rows), list(range(len(rows))), *ids, [0] * len(rows)], schema=COPIES)


def decided(names: str, pairs: pa.Table, copies: pa.Table | None = None, dropped: str = "") -> dict[str, object]:
    """{name: the name of whom it duplicates}; rank is the order of `names`."""
    keepers = choose_keepers(standings(names, dropped=dropped), pairs, copies_of() if copies is None else copies)
    return dict(zip(names, names_of(keepers["duplicate_of"], names), strict=True))


def test_the_best_ranked_of_a_pair_is_kept() -> None:
    assert decided("ab", pairs_of(("a", "b", 0.9))) == {"a": None, "b": "a"}
    assert decided("ba", pairs_of(("a", "b", 0.9))) == {"b": None, "a": "b"}


def test_a_chain_is_not_followed() -> None:
    chain = pairs_of(("a", "b", 0.85), ("b", "c", 0.85), ("c", "d", 0.85))
    assert decided("abcd", chain) == {"a": None, "b": "a", "c": None, "d": "c"}
    assert decided("bcda", chain) == {"b": None, "c": "b", "d": None, "a": "b"}


def test_the_most_alike_of_the_kept_ones_above_is_named() -> None:
    assert decided("abc", pairs_of(("a", "c", 0.81), ("b", "c", 0.95)))["c"] == "b"
    assert decided("abc", pairs_of(("a", "c", 0.9), ("b", "c", 0.9)))["c"] == "a"
    assert decided("acb", pairs_of(("a", "c", 0.81), ("b", "c", 0.95)))["c"] == "a"


def test_what_another_rule_drops_keeps_nobody_out_but_is_named_a_duplicate() -> None:
    assert decided("abc", pairs_of(("a", "b", 0.9), ("b", "c", 0.9)), dropped="a") == {"a": "b", "b": None, "c": "b"}
    assert decided("ab", pairs_of(("a", "b", 0.9)), dropped="ab") == {"a": None, "b": None}
    assert decided("ab", pairs_of(), copies_of(("a", "b")), dropped="ab") == {"a": None, "b": None}


def test_of_exact_copies_the_best_ranked_stands_for_all() -> None:
    copies = copies_of(("a", "r"), ("b", "r"))
    assert decided("bar", pairs_of(), copies) == {"b": None, "a": "b", "r": "b"}
    assert decided("bar", pairs_of(), copies, dropped="b") == {"b": "a", "a": None, "r": "a"}
    near = pairs_of(("r", "z", 0.8))
    assert decided("zbar", near, copies) == {"z": None, "b": "z", "a": "z", "r": "z"}
    assert decided("bzar", near, copies) == {"b": None, "z": "b", "a": "b", "r": "b"}


def test_similarity_and_clusters_stand_beside_each_row() -> None:
    keepers = choose_keepers(
        standings("abcrx"), pairs_of(("r", "b", 0.85), ("b", "c", 0.9)), copies_of(("a", "r"))
    ).to_pydict()
    assert keepers["similarity"] == [None, 0.85, None, 1.0, None]
    assert keepers["cluster_size"] == [4, 4, 4, 4, 1]
    least = min(doc_id(n) for n in "abcr")
    assert keepers["cluster_id"] == [least, least, least, least, doc_id("x")]


def test_documents_without_standing_and_doc_ids_that_stand_twice_are_refused() -> None:
    with pytest.raises(DatasetError, match="of 2 documents with duplicates, 1 are not among"):
        choose_keepers(standings("a"), pairs_of(("a", "b", 0.9)), copies_of())
    with pytest.raises(DatasetError, match="1 rows repeat"):
        choose_keepers(standings("aab"), pairs_of(("a", "b", 0.9)), copies_of())


def test_ranks_follow_the_merits_then_the_doc_id() -> None:
    table = corpus([""] * 5)
    quality, length = np.array([0.5, np.nan, 0.9, 0.5, 0.5]), np.array([10, 99, 1, 20, 10])
    ranks = rank_documents(table["doc_id"], [quality, length])
    last = sorted((0, 4), key=doc_id)
    assert np.argsort(ranks).tolist() == [2, 3, *last, 1]


def decided_with_urls(names: str, urls: pa.Table, url_ranks: dict[str, int] | None = None, **more: Any) -> str:
    """Each document as itself where it is kept, else `keeper kind`, by the order of `names`."""
    policy = standings(names, dropped=more.pop("dropped", ""))
    if url_ranks:
        policy = policy.append_column("url_rank", pa.array([url_ranks.get(name, 99) for name in names], pa.int64()))
    pairs, copies = more.pop("pairs", pairs_of()), more.pop("copies", copies_of())
    keepers = choose_keepers(policy, pairs, copies, urls=urls, **more)
    found = zip(names, names_of(keepers["duplicate_of"], names), keepers["kind"].to_pylist(), strict=True)
    return ", ".join(f"{name}={keeper} {kind}" if keeper else name for name, keeper, kind in found)


def test_one_document_of_a_url_is_kept_and_its_own_order_says_which() -> None:
    urls = copies_of(("b", "a"), ("c", "a"))
    assert decided_with_urls("abc", urls) == "a, b=a url, c=a url"
    assert decided_with_urls("abc", urls, {"c": 0, "b": 1, "a": 2}) == "a=c url, b=c url, c"
    assert decided_with_urls("abc", urls, {"c": 0, "b": 1, "a": 2}, dropped="c") == "a=b url, b, c=b url"
    assert decided_with_urls("abc", urls, kinds=("exact", "near")) == "a, b, c"


def test_a_version_whose_successor_was_dropped_for_another_page_competes_anew() -> None:
    """b is newer than a, but resembles k: nothing is dropped for b, and a stays, for it resembles nothing kept."""
    urls, newest = copies_of(("b", "a")), {"b": 0, "a": 1}
    like = pairs_of(("b", "k", 0.9))
    assert decided_with_urls("kab", urls, newest, pairs=like) == "k, a, b=k near"
    assert decided_with_urls("akb", urls, newest, pairs=like) == "a, k, b=k near"
    assert decided_with_urls("bka", urls, newest, pairs=like) == "b, k=b near, a=b url"


def test_a_copy_of_a_document_that_lost_its_url_stays() -> None:
    """r equals b, b lost its URL to n: the text of b would be gone with r too."""
    urls, copies = copies_of(("n", "b")), copies_of(("r", "b"))
    assert decided_with_urls("nbr", urls, copies=copies) == "n, b=n url, r"
    assert decided_with_urls("rnb", urls, copies=copies) == "r, n, b=r exact"
    assert decided_with_urls("rnb", urls, copies=copies, kinds=("url", "exact")) == "r, n, b=n url"


def test_a_copy_is_near_where_exact_copies_do_not_count() -> None:
    copies = copies_of(("b", "a"))
    assert decided_with_urls("ab", copies_of(), copies=copies, kinds=("near",)) == "a, b=a near"
    assert decided_with_urls("ab", copies_of(), copies=copies, kinds=("url",)) == "a, b"


def test_pairs_by_meaning_are_a_kind_of_their_own() -> None:
    like, meant = pairs_of(("a", "c", 0.8)), pairs_of(("b", "c", 0.97))
    assert decided_with_urls("abc", copies_of(), pairs=like, semantic=meant) == "a, b, c=a near"
    assert decided_with_urls("abc", copies_of(), pairs=like, semantic=meant, kinds=("semantic", "near")).endswith(
        "c=b semantic"
    )
    assert decided_with_urls("abc", copies_of(), semantic=meant, kinds=("near",)) == "a, b, c"


@dataclass(frozen=True)
class Kindred:
    """Documents 0 to n-1 in the order in which the policy likes them, and all that ties them, by chance."""

    count: int
    texts: list[int]
    urls: list[int]
    url_ranks: list[int]
    likenesses: dict[str, dict[frozenset[int], float]]
    dropped: set[int]
    kinds: tuple[str, ...]

    def reasons(self, name: int, other: int) -> dict[str, float]:
        """Why `name` would be dropped for `other`, by kind; URLs have no similarity."""
        texts = frozenset((self.texts[name], self.texts[other]))
        found = {kind: pairs[texts] for kind, pairs in self.likenesses.items() if texts in pairs}
        if len(texts) == 1:
            found = dict.fromkeys(("exact",) if "exact" in self.kinds else ("near", "semantic"), 1.0)
        if self.urls[name] == self.urls[other]:
            found["url"] = 0.0
        return {kind: found[kind] for kind in self.kinds if kind in found}


def kindred(chance: random.Random) -> Kindred:
    count = chance.randrange(2, 12)
    texts = [chance.randrange(count) for _ in range(count)]
    pairs = {
        kind: {
            frozenset(pair): chance.choice([0.8, 0.9, 0.95])
            for pair in itertools.combinations(sorted(set(texts)), 2)
            if chance.random() < 0.2
        }
        for kind in ("near", "semantic")
    }
    kinds = chance.sample(KINDS, chance.randrange(1, 5))
    urls = [chance.randrange(count) for _ in range(count)]
    dropped = {i for i in range(count) if chance.random() < 0.2}
    return Kindred(count, texts, urls, random_ranks(chance, count), pairs, dropped, tuple(kinds))


def plainly_kept(case: Kindred) -> dict[int, tuple[int, str] | None]:
    """One document after another: the best that no undecided document of its URL precedes."""
    waiting, kept = set(range(case.count)), list[int]()
    found: dict[int, tuple[int, str] | None] = {}

    def turn(name: int) -> tuple[bool, int]:
        return name in case.dropped, case.url_ranks[name] if "url" in case.kinds else name

    while waiting:
        ready = [
            name
            for name in waiting
            if "url" not in case.kinds
            or all(turn(name) <= turn(other) for other in waiting if case.urls[other] == case.urls[name])
        ]
        name = min(ready, key=lambda each: (each in case.dropped, each))
        waiting.remove(name)
        reasons = [(other, kind, s) for other in kept for kind, s in case.reasons(name, other).items()]
        found[name] = None
        if reasons:
            other, kind, _ = min(reasons, key=lambda reason: (case.kinds.index(reason[1]), -reason[2]))
            found[name] = other, kind
        elif name not in case.dropped:
            kept.append(name)
    return found


def grouped(numbers: list[int]) -> pa.Table:
    """COPIES of what has the same number."""
    rows = [(i, numbers.index(number)) for i, number in enumerate(numbers) if numbers.index(number) != i]
    return copies_of(*rows)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**9))
def test_keepers_of_all_kinds_are_those_of_a_plain_greedy_choice(seed: int) -> None:
    case = kindred(random.Random(seed))
    names = range(case.count)
    policy = standings(names, dropped=case.dropped)
    policy = policy.append_column("url_rank", pa.array(case.url_ranks, pa.int64()))
    tables = {
        kind: pairs_of(*((*map(case.texts.index, sorted(pair)), s) for pair, s in pairs.items()))
        for kind, pairs in case.likenesses.items()
    }
    near = tables["near"] if "near" in case.kinds else pairs_of()
    keepers = choose_keepers(
        policy,
        near,
        grouped(case.texts),
        urls=grouped(case.urls),
        semantic=tables["semantic"],
        kinds=case.kinds,
    )
    expected = plainly_kept(case)
    named = dict(zip(names, names_of(keepers["duplicate_of"], names), strict=True))
    similarity = dict(zip(names, keepers["similarity"].to_pylist(), strict=True))
    kinds = dict(zip(names, keepers["kind"].to_pylist(), strict=True))
    for name in names:
        if expected[name] is None:
            assert named[name] is kinds[name] is similarity[name] is None
            continue
        best, kind = expected[name]  # type: ignore[misc]
        keeper = named[name]
        assert kinds[name] == kind and expected[keeper] is None and keeper not in case.dropped  # type: ignore[index]
        likeness = case.reasons(name, keeper)[kind]  # type: ignore[arg-type]
        assert likeness == case.reasons(name, best)[kind]
        assert similarity[name] == (None if kind == "url" else likeness)


def check_keepers(texts: list[str], table: pa.Table, keepers: pa.Table, config: DedupConfig) -> None:
    """Every drop is true and for a kept, eligible document; by brute force no two kept ones are alike."""
    names = range(len(texts))
    rows = {name: i for i, name in enumerate(names_of(table["doc_id"], names))}
    duplicate_of = names_of(keepers["duplicate_of"], names)
    eligible = table["eligible"].to_pylist()
    for name, row in rows.items():
        keeper = duplicate_of[row]
        if keeper is None:
            continue
        assert duplicate_of[rows[keeper]] is None and eligible[rows[keeper]]
        if normalise_text(texts[name]) == normalise_text(texts[keeper]):  # type: ignore[index, call-overload]
            truth = 1.0
        else:
            truth = jaccard(*(make_shingles(texts[n], config.signature) for n in (name, keeper)))  # type: ignore[index, call-overload]
        assert keepers["similarity"][row].as_py() == truth >= config.threshold
    kept = {name for name, row in rows.items() if duplicate_of[row] is None and eligible[row]}
    assert not [pair for pair in brute_force_pairs(texts, config) if pair <= kept]
    assert len({normalise_text(texts[n]) for n in kept}) == len(kept)  # type: ignore[index, call-overload]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_whatever_is_dropped_resembles_what_is_kept_in_any_order(seed: int) -> None:
    chance = random.Random(seed)
    texts = family_corpus(chance, families=4, size=7, words=60)
    config, table = exhaustive(), corpus(texts)
    dropped = {i for i in range(len(texts)) if chance.random() < 0.15}
    policy = standings(range(len(texts)), random_ranks(chance, len(texts)), dropped)
    keepers = deduplicate([table], policy, config)
    check_keepers(texts, policy, keepers, config)
    shuffled = policy.take(pa.array(chance.sample(range(len(texts)), len(texts))))
    again = deduplicate(shuffled_parts(table, chance, 3), shuffled, config, num_ranges=2, num_groups=3)
    assert as_set(again) == as_set(keepers)
    assert again["doc_id"].equals(shuffled["doc_id"])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_deduplicating_what_was_kept_drops_nothing(seed: int) -> None:
    chance = random.Random(seed)
    texts = family_corpus(chance, families=4, size=7, words=60)
    table, policy = corpus(texts), standings(range(len(texts)), random_ranks(chance, len(texts)))
    is_kept = deduplicate([table], policy, exhaustive())["duplicate_of"].is_null()
    again = deduplicate([table.filter(is_kept)], policy.filter(is_kept), exhaustive())
    assert again["duplicate_of"].null_count == len(again)


def test_crowds_are_settled_for_the_order_that_the_policy_chose() -> None:
    chance = random.Random(12)
    first, second = ([f"{kind}{i}" for i in range(120)] for kind in "ab")
    shared = [f"s{i}" for i in range(120)]
    texts = [edited(shared + half, 1, chance) for half in (first, second) for _ in range(120)]
    config = exhaustive(bucket_limit=8, leader_limit=2)
    table, policy = corpus(texts), standings(range(len(texts)), random_ranks(chance, len(texts)))
    found = find_duplicates([table], config)
    unsettled = choose_keepers(policy, found.pairs, found.copies)
    keepers = settle_keepers([table], policy, found, config)
    assert unsettled["duplicate_of"].null_count > 2
    assert keepers["duplicate_of"].null_count == 2
    check_keepers(texts, policy, keepers, config)


def test_a_crowd_is_settled_where_the_kept_copy_is_not_the_representative() -> None:
    chance = random.Random(13)
    words = [f"w{i}" for i in range(150)]
    texts = [edited(words, 1, chance) for _ in range(60)]
    texts += [f" {text}" for text in texts]
    config = exhaustive(bucket_limit=8)
    table, policy = corpus(texts), standings(range(120), random_ranks(chance, 120))
    keepers = settle_keepers([table], policy, find_duplicates([table], config), config)
    assert keepers["duplicate_of"].null_count == 1
    check_keepers(texts, policy, keepers, config)


def test_gradual_edits_keep_every_document_close_to_a_kept_one() -> None:
    chance = random.Random(14)
    words = [f"w{i}" for i in range(120)]
    texts = []
    for _ in range(120):
        texts.append(" ".join(words))
        words = edited(words, 1, chance).split()
    config = exhaustive()
    table, policy = corpus(texts), standings(range(120))
    keepers = deduplicate([table], policy, config)
    check_keepers(texts, policy, keepers, config)
    assert keepers["cluster_size"].to_pylist() == [120] * 120
    assert 10 < keepers["duplicate_of"].null_count < 60


def test_odd_texts_stay_apart() -> None:
    texts = ["spam " * i for i in range(1, 40)] + ["", " ", "!!", "?"] + ["a", "b", "c d"]
    table, policy = corpus(texts), standings(range(len(texts)))
    keepers = names_of(deduplicate([table], policy, exhaustive())["duplicate_of"], range(len(texts)))
    assert keepers[:5] == [None] * 5
    assert set(keepers[5:39]) == {4}  # five and more times the same word: one and the same shingle
    assert keepers[39:] == [None, 39, None, None, None, None, None]
