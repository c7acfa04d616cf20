"""Compiled work on pairs: buckets to candidates, shingle sets to intersections, pairs to clusters and keepers.

All of it is linear in its input but for a bucket of at most `limit` documents, whose pairs are all made.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipelines.dedup.compiled import compiled

Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Codes = npt.NDArray[np.uint32]
Numbers = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]


@compiled
def _can_reach(count_a: int, count_b: int, threshold: float) -> bool:
    """Whether sets of those sizes can have that Jaccard similarity: it is at most smaller / larger."""
    return min(count_a, count_b) / max(count_a, count_b) >= threshold


@compiled
def pair_buckets(keys: Hashes, num_shingles: Codes, limit: int, threshold: float) -> tuple[Integers, Integers]:
    """Runs of equal keys (sorted), up to `limit` rows long, as pairs of row numbers whose sizes allow the threshold."""
    count = _fill_pairs(keys, num_shingles, limit, threshold, np.empty(0, np.int64), np.empty(0, np.int64))
    first, second = np.empty(count, np.int64), np.empty(count, np.int64)
    _fill_pairs(keys, num_shingles, limit, threshold, first, second)
    return first, second


@compiled
def _fill_pairs(
    keys: Hashes, num_shingles: Codes, limit: int, threshold: float, first: Integers, second: Integers
) -> int:
    count, start = 0, 0
    for end in range(1, len(keys) + 1):
        if end < len(keys) and keys[end] == keys[start]:
            continue
        if end - start <= limit:
            for i in range(start, end):
                for j in range(i + 1, end):
                    if _can_reach(num_shingles[i], num_shingles[j], threshold):
                        if count < len(first):
                            first[count], second[count] = i, j
                        count += 1
        start = end
    return count


@compiled
def _new_table(starts: Integers, ends: Integers) -> Hashes:
    """Scratch that any of the sets fills by a quarter at most."""
    largest = 0
    for i in range(len(starts)):
        largest = max(largest, ends[i] - starts[i])
    slots = 16
    while slots < 4 * largest:
        slots *= 2
    return np.empty(slots, np.uint64)


@compiled
def _fill_table(values: Hashes, start: int, end: int, table: Hashes) -> np.uint64:
    """Put values[start:end] (none is zero) into the table; its last slot, by which `_count_common` looks up."""
    slots = 16
    while slots < 4 * (end - start):
        slots *= 2
    table[:slots] = np.uint64(0)
    last = np.uint64(slots - 1)
    for i in range(start, end):
        slot = values[i] & last
        while table[slot] != np.uint64(0):
            slot = (slot + np.uint64(1)) & last
        table[slot] = values[i]
    return last


@compiled
def _count_common(values: Hashes, start: int, end: int, table: Hashes, last: np.uint64) -> int:
    """How many of values[start:end] are in the table."""
    count = 0
    for i in range(start, end):
        slot = values[i] & last
        while table[slot] != np.uint64(0) and table[slot] != values[i]:
            slot = (slot + np.uint64(1)) & last
        count += table[slot] == values[i]
    return count


@compiled
def _divide(common: int, size_a: int, size_b: int) -> float:
    """Jaccard similarity of sets of those sizes; 0 where both are empty."""
    together = size_a + size_b - common
    return common / together if together > 0 else 0.0


@compiled
def measure_pairs(starts: Integers, ends: Integers, values: Hashes, first: Integers, second: Integers) -> Numbers:
    """float64[n]: the Jaccard similarity of each pair of sets; cheapest where equal `first` are neighbours.

    Set s is values[starts[s]:ends[s]], distinct and none of them zero.
    """
    similarities = np.empty(len(first), np.float64)
    table, filled, last = _new_table(starts, ends), -1, np.uint64(0)
    for i in range(len(first)):
        a, b = first[i], second[i]
        if a != filled:
            filled, last = a, _fill_table(values, starts[a], ends[a], table)
        common = _count_common(values, starts[b], ends[b], table, last)
        similarities[i] = _divide(common, ends[a] - starts[a], ends[b] - starts[b])
    return similarities


@compiled
def follow_leaders(
    crowds: Integers,
    members: Integers,
    starts: Integers,
    ends: Integers,
    values: Hashes,
    threshold: float,
    leader_limit: int,
) -> tuple[Integers, Integers, Numbers]:
    """Crowds as stars: each member is tied to the first leader that it resembles, or leads, while there is room.

    Crowd c is members[crowds[c]:crowds[c + 1]], in an order that decides who leads: (leader, member, similarity).
    """
    first, second = np.empty(len(members), np.int64), np.empty(len(members), np.int64)
    similarities = np.empty(len(members), np.float64)
    leaders = np.empty(leader_limit, np.int64)
    table, count = _new_table(starts, ends), 0
    for crowd in range(len(crowds) - 1):
        num_leaders = 0
        for i in range(crowds[crowd], crowds[crowd + 1]):
            member, found = members[i], False
            size = ends[member] - starts[member]
            last = _fill_table(values, starts[member], ends[member], table)
            for k in range(num_leaders):
                leader = leaders[k]
                common = _count_common(values, starts[leader], ends[leader], table, last)
                similarity = _divide(common, ends[leader] - starts[leader], size)
                if similarity >= threshold:
                    first[count], second[count], similarities[count] = leader, member, similarity
                    count, found = count + 1, True
                    break
            if not found and num_leaders < leader_limit:
                leaders[num_leaders] = member
                num_leaders += 1
    return first[:count].copy(), second[:count].copy(), similarities[:count].copy()


@compiled
def _root(parents: Integers, node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@compiled
def find_components(num_nodes: int, first: Integers, second: Integers) -> Integers:
    """int64[num_nodes]: the least node of each node's connected component."""
    parents = np.arange(num_nodes)
    for i in range(len(first)):
        a, b = _root(parents, first[i]), _root(parents, second[i])
        parents[max(a, b)] = min(a, b)
    for node in range(num_nodes):
        parents[node] = _root(parents, node)
    return parents


COPY, URL, NEAR, SEMANTIC = 0, 1, 2, 3
"""Why a document is dropped, as a code: it equals a kept one, shares its URL, resembles it, or means the same."""


@compiled
def keep_greedily(
    order: Integers,
    eligible: npt.NDArray[np.bool_],
    texts: Integers,
    addresses: Integers,
    starts: Integers,
    neighbours: Integers,
    similarities: Numbers,
    kinds: Bytes,
    precedence: Bytes,
) -> tuple[Integers, Numbers, Bytes]:
    """In `order`, a node that duplicates a kept one is dropped for it, an eligible other one is kept.

    `texts` and `addresses` number the groups (0 to n-1) of equal texts and of equal URLs. Groups of texts resemble one
    another: those of group t are neighbours[starts[t]:starts[t + 1]], of the code in `kinds`. The first code in
    `precedence` by which a kept node is found decides; of several neighbours the most alike, then the first in `order`.
    Returns (keeper, similarity, code) by node: the node itself and 1 where it is kept, -1 and 0 where it is neither
    kept nor dropped; the similarity of equal URLs is NaN.
    """
    num_nodes = len(order)
    keepers, found = np.full(num_nodes, -1, np.int64), np.zeros(num_nodes, np.float64)
    codes, turns = np.zeros(num_nodes, np.uint8), np.empty(num_nodes, np.int64)
    kept_text, kept_address = np.full(num_nodes, -1, np.int64), np.full(num_nodes, -1, np.int64)
    for turn in range(num_nodes):
        node = order[turn]
        turns[node] = turn
        text, address = texts[node], addresses[node]
        keeper, similarity = -1, 0.0
        for code in precedence:
            if code == COPY:
                keeper, similarity = kept_text[text], 1.0
            elif code == URL:
                keeper, similarity = kept_address[address], np.nan
            else:
                edges = range(starts[text], starts[text + 1])
                keeper, similarity = _most_alike(edges, code, neighbours, similarities, kinds, kept_text, turns)
            if keeper >= 0:
                keepers[node], found[node], codes[node] = keeper, similarity, code
                break
        if keeper < 0 and eligible[node]:
            keepers[node], found[node] = node, 1.0
            kept_text[text], kept_address[address] = node, node
    return keepers, found, codes


@compiled
def _most_alike(
    edges: range,
    code: int,
    neighbours: Integers,
    similarities: Numbers,
    kinds: Bytes,
    kept_text: Integers,
    turns: Integers,
) -> tuple[int, float]:
    """(kept node, similarity) of the most alike group of that code with a kept member, -1 where there is none."""
    best, similarity = -1, 0.0
    for j in edges:
        other = kept_text[neighbours[j]]
        if other < 0 or kinds[j] != code:
            continue
        if best < 0 or similarities[j] > similarity or (similarities[j] == similarity and turns[other] < turns[best]):
            best, similarity = other, similarities[j]
    return best, similarity


@compiled
def pair_with_hubs(keys: Hashes, num_hubs: int) -> tuple[Integers, Integers]:
    """In each run of equal keys (sorted), the first `num_hubs` rows with every later row, as pairs of row numbers."""
    count = _fill_hub_pairs(keys, num_hubs, np.empty(0, np.int64), np.empty(0, np.int64))
    first, second = np.empty(count, np.int64), np.empty(count, np.int64)
    _fill_hub_pairs(keys, num_hubs, first, second)
    return first, second


@compiled
def _fill_hub_pairs(keys: Hashes, num_hubs: int, first: Integers, second: Integers) -> int:
    count, start = 0, 0
    for end in range(1, len(keys) + 1):
        if end < len(keys) and keys[end] == keys[start]:
            continue
        for i in range(start, min(start + num_hubs, end)):
            for j in range(i + 1, end):
                if count < len(first):
                    first[count], second[count] = i, j
                count += 1
        start = end
    return count
