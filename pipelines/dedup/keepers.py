"""Keepers: who of a cluster stays, decided greedily in the policy's order from verified pairs; no chains.

A document is dropped only for a *kept* document that outranks it and that it equals, resembles or shares its URL with,
so no drop rests on a third document, and of two kept documents no kind that counts holds. A document that another rule
already drops is not eligible: it keeps nobody out, but is still named a duplicate where one that is kept has it.

All kinds are decided in one pass, because each changes who is there to be named: if the newest version of a page
resembles a page that is kept, it goes, and the version before it competes anew.

Only documents in a pair or a group take memory (250 bytes each); the search is not redone when the policy changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dedup.candidates import CANDIDATES, candidates_table
from pipelines.dedup.columns import identifier_halves, numbers, whole
from pipelines.dedup.exact import COPIES
from pipelines.dedup.pairs import COPY, NEAR, SEMANTIC, URL, find_components, keep_greedily, pair_with_hubs
from pipelines.dedup.verify import PAIRS
from storage.errors import DatasetError
from storage.schema import IDENTIFIER

STANDINGS = pa.schema(
    [
        pa.field("doc_id", IDENTIFIER, nullable=False),
        pa.field("rank", pa.int64(), nullable=False),
        pa.field("eligible", pa.bool_(), nullable=False),
    ]
)
"""The policy's say: the least rank is kept first; not eligible is what another rule drops. A further column `url_rank`
(int64) orders the documents of one URL among themselves; without it `rank` does."""

KEEPERS = pa.schema(
    [
        pa.field("doc_id", IDENTIFIER, nullable=False),
        pa.field("duplicate_of", IDENTIFIER),
        pa.field("similarity", pa.float64()),
        pa.field("kind", pa.string()),
        pa.field("cluster_id", IDENTIFIER, nullable=False),
        pa.field("cluster_size", pa.int64(), nullable=False),
    ]
)
"""Row for row with the standings. `duplicate_of`, its similarity and its kind are null where the document is no
duplicate of a kept one; exact copies have similarity 1, and of documents that share a URL it is null. A cluster is a
connected component of all pairs, copies and URLs that count, named by its least doc_id; a document alone is a cluster
of 1."""

KINDS = ("exact", "url", "near", "semantic")
"""Every kind of duplicate; a policy names some of them, in its own order."""
_CODES = {"exact": COPY, "url": URL, "near": NEAR, "semantic": SEMANTIC}
_NO_GROUPS, _NO_PAIRS = COPIES.empty_table(), PAIRS.empty_table()

NUM_HUBS = 4
SETTLE_ROUNDS = 8
"""How often a job asks `list_missing_pairs` at most. What is then still uncompared is kept: safe, not complete."""

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def rank_documents(doc_ids: pa.Array | pa.ChunkedArray, merits: Sequence[npt.NDArray[np.generic]]) -> Integers:
    """int64[n]: ranks 0 to n-1; the first merit decides, larger is better, NaN is worst; then the least doc_id."""
    high, low = identifier_halves(doc_ids)
    keys: list[npt.NDArray[np.generic]] = [low, high]
    for merit in reversed(merits):
        values = merit.astype(np.float64)
        keys.append(-np.where(np.isnan(values), -np.inf, values))
    ranks = np.empty(len(high), np.int64)
    ranks[np.lexsort(keys)] = np.arange(len(high))
    return ranks


@dataclass(frozen=True)
class _Involved:
    """The documents in a pair or a group, as nodes 0 to n-1 in the order of their doc_ids."""

    doc_ids: pa.Array
    representative: Integers
    addresses: Integers
    """The node that stands for the document's URL; itself, where no other shares it."""
    ranks: Integers
    url_ranks: Integers
    eligible: Flags


@dataclass(frozen=True)
class _Edges:
    """Verified pairs of representatives as nodes; `kinds` are codes."""

    first: Integers
    second: Integers
    similarities: npt.NDArray[np.float64]
    kinds: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Found:
    """By node: the keeper (the node itself where it is kept, -1 where it is neither), their similarity, the kind."""

    keepers: Integers
    similarities: npt.NDArray[np.float64]
    kinds: pa.Array


def choose_keepers(
    standings: pa.Table,
    pairs: pa.Table,
    copies: pa.Table,
    *,
    urls: pa.Table = _NO_GROUPS,
    semantic: pa.Table = _NO_PAIRS,
    kinds: Sequence[str] = KINDS,
) -> pa.Table:
    """KEEPERS for STANDINGS, from PAIRS (of representatives) and COPIES, all parts of them, in any order.

    `urls` are COPIES by URL instead of text (`urls.py`), `semantic` PAIRS by meaning. `kinds` are those that count, in
    the policy's order: where several hold for a document, the first is named. A copy is `exact` where that kind counts,
    else the nearest kind that does: a copy resembles its text with similarity 1.

    Documents may be decided apart from one another only where no row of `pairs`, `copies`, `urls` (where that kind
    counts) and `semantic` (likewise) ties them, directly or through others: what is routed together is a connected
    component of those four tables. Clusters are made of the same rows, of `pairs` and `copies` also where they do not
    count.

    Raises DatasetError when a doc_id stands twice, or when a row names a document without standing.
    """
    urls = urls if "url" in kinds else urls.slice(0, 0)
    semantic = semantic if "semantic" in kinds else semantic.slice(0, 0)
    doc_ids = _list_involved((pairs, semantic), (copies, urls))
    rows = _locate(doc_ids, standings.column("doc_id"))
    involved = _describe(doc_ids, rows, standings, copies, urls)
    edges = _gather_edges(involved, {NEAR: pairs, SEMANTIC: semantic})
    found = _keep(involved, edges, kinds)
    nodes = np.arange(len(doc_ids))
    components = find_components(
        len(doc_ids),
        np.concatenate([edges.first, nodes, nodes]),
        np.concatenate([edges.second, involved.representative, involved.addresses]),
    )
    return _keepers_table(standings, rows, doc_ids, found, components)


def _list_involved(pairs: Sequence[pa.Table], groups: Sequence[pa.Table]) -> pa.Array:
    """Every doc_id of pairs and groups once, ascending."""
    columns = [table.column(name) for table in pairs for name in ("a_doc_id", "b_doc_id")]
    columns += [table.column(name) for table in groups for name in ("doc_id", "representative")]
    doc_ids = pc.unique(pa.concat_arrays([whole(column) for column in columns]))
    high, low = identifier_halves(doc_ids)
    return doc_ids.take(pa.array(np.lexsort((low, high))))


def _locate(asked: pa.Array | pa.ChunkedArray, doc_ids: pa.Array | pa.ChunkedArray) -> Integers:
    """int64[n]: the row of each asked doc_id in `doc_ids`. Raises DatasetError where it has none, or two."""
    wanted = pc.unique(whole(asked))
    rows = pc.index_in(whole(doc_ids), value_set=wanted)
    present = rows.is_valid().to_numpy(zero_copy_only=False)
    found = rows.drop_null().to_numpy()
    if len(found) != len(wanted) or len(np.unique(found)) != len(wanted):
        missing = len(wanted) - len(np.unique(found))
        raise DatasetError(
            f"of {len(wanted)} documents with duplicates, {missing} are not among the documents, "
            f"and {len(found) + missing - len(wanted)} rows repeat another's doc_id",
            hint="choose keepers among the documents that were searched; each doc_id must stand once",
        )
    located = np.empty(len(wanted), np.int64)
    located[found] = np.flatnonzero(present)
    positions = numbers(pc.index_in(whole(asked), value_set=wanted), np.int64)
    return located[positions]


def _describe(doc_ids: pa.Array, rows: Integers, standings: pa.Table, copies: pa.Table, urls: pa.Table) -> _Involved:
    ranks = numbers(standings.column("rank"), np.int64)[rows]
    has_order = "url_rank" in standings.column_names
    return _Involved(
        doc_ids=doc_ids,
        representative=_representatives(doc_ids, copies),
        addresses=_representatives(doc_ids, urls),
        ranks=ranks,
        url_ranks=numbers(standings.column("url_rank"), np.int64)[rows] if has_order else ranks,
        eligible=numbers(standings.column("eligible"), np.bool_)[rows],
    )


def _representatives(doc_ids: pa.Array, groups: pa.Table) -> Integers:
    """int64[n]: the node that stands for each node's group; the node itself where it is in none."""
    found = np.arange(len(doc_ids))
    found[_locate(groups.column("doc_id"), doc_ids)] = _locate(groups.column("representative"), doc_ids)
    return found


def _gather_edges(involved: _Involved, tables: Mapping[int, pa.Table]) -> _Edges:
    ends = [
        [_locate(table.column(name), involved.doc_ids) for table in tables.values()]
        for name in ("a_doc_id", "b_doc_id")
    ]
    first, second = (involved.representative[np.concatenate(end)] for end in ends)
    similarities = [numbers(table.column("similarity"), np.float64) for table in tables.values()]
    kinds = [np.full(len(table), code, np.uint8) for code, table in tables.items()]
    return _Edges(first, second, np.concatenate(similarities), np.concatenate(kinds))


def _keep(involved: _Involved, edges: _Edges, kinds: Sequence[str]) -> _Found:
    sources, targets = np.concatenate([edges.first, edges.second]), np.concatenate([edges.second, edges.first])
    by_source = np.argsort(sources, kind="stable")
    starts = np.searchsorted(sources[by_source], np.arange(len(involved.doc_ids) + 1))
    keepers, similarities, reasons = keep_greedily(
        _decision_order(involved),
        involved.eligible,
        involved.representative,
        involved.addresses,
        starts,
        targets[by_source],
        np.tile(edges.similarities, 2)[by_source],
        np.tile(edges.kinds, 2)[by_source],
        np.array(_precedence(kinds), np.uint8),
    )
    return _Found(keepers, similarities, _name_kinds(reasons, kinds))


def _precedence(kinds: Sequence[str]) -> list[int]:
    """The codes of the kinds that count in their order; copies stand first of the kinds that texts decide."""
    codes = [_CODES[kind] for kind in kinds]
    if "exact" not in kinds and (textual := [code for code in codes if code in (NEAR, SEMANTIC)]):
        codes.insert(codes.index(textual[0]), COPY)
    return codes


def _name_kinds(codes: npt.NDArray[np.uint8], kinds: Sequence[str]) -> pa.Array:
    """The kind of each code; a copy takes the name of the first kind that texts decide where `exact` does not count."""
    textual = [kind for kind in kinds if kind != "url"]
    names = {code: kind for kind, code in _CODES.items()}
    names[COPY] = "exact" if "exact" in kinds else (textual or ["exact"])[0]
    return pa.array([names[code] for code in sorted(names)]).take(pa.array(codes.astype(np.int64)))


def _decision_order(involved: _Involved) -> Integers:
    """int64[n]: the nodes by rank, what is not eligible last; but of one URL each after those that its `url_rank` puts
    before it. A node thus waits for the last of them, and nothing else waits."""
    nodes = np.arange(len(involved.ranks))
    turns = np.empty_like(nodes)
    turns[np.lexsort((nodes, involved.ranks, ~involved.eligible))] = nodes
    queued = np.lexsort((nodes, involved.url_ranks, ~involved.eligible, involved.addresses))
    offsets = involved.addresses[queued] * len(nodes)
    waited = np.maximum.accumulate(turns[queued] + offsets) - offsets
    return queued[np.argsort(waited, kind="stable")]


def _keepers_table(
    standings: pa.Table, rows: Integers, doc_ids: pa.Array, found: _Found, components: Integers
) -> pa.Table:
    is_dropped = (found.keepers >= 0) & (found.keepers != np.arange(len(rows)))
    is_measured = is_dropped & ~np.isnan(found.similarities)
    sizes = np.bincount(components, minlength=len(rows))
    clustered = pa.table(
        {
            "duplicate_of": _take_where(doc_ids, found.keepers, is_dropped),
            "similarity": pa.array(found.similarities, mask=~is_measured),
            "kind": _take_where(found.kinds, np.arange(len(rows)), is_dropped),
            "cluster_id": doc_ids.take(pa.array(components)),
            "cluster_size": pa.array(sizes[components], pa.int64()),
        }
    )
    position = np.full(len(standings), -1, np.int64)
    position[rows] = np.arange(len(rows))
    spread = clustered.take(pa.array(position, mask=position < 0))
    doc_ids = whole(standings.column("doc_id"))
    columns = [
        doc_ids,
        *(whole(spread.column(name)) for name in ("duplicate_of", "similarity", "kind")),
        pc.coalesce(whole(spread.column("cluster_id")), doc_ids),
        pc.fill_null(whole(spread.column("cluster_size")), 1),
    ]
    return pa.table(columns, schema=KEEPERS)


def _take_where(values: pa.Array, rows: Integers, chosen: Flags) -> pa.Array:
    return values.take(pa.array(rows, mask=~chosen))


def list_missing_pairs(
    standings: pa.Table, keepers: pa.Table, copies: pa.Table, crowds: pa.Table, asked: pa.Table, num_groups: int
) -> pa.Table:
    """CANDIDATES that keepers still need: kept documents of one crowd that were never compared with its best kept ones.

    `crowds` are CROWD_MEMBERS; `asked` the CANDIDATES that earlier calls returned. Verify them, add what holds to the
    pairs, choose keepers again, and call again until there are none, at most SETTLE_ROUNDS times.
    """
    members = _kept_members(standings, keepers, copies, crowds)
    first, second = pair_with_hubs(numbers(members.column("bucket"), np.uint64), NUM_HUBS)
    places = numbers(members.column("place"), np.int64)
    wanted = candidates_table(places[first], places[second], num_groups)
    fresh = wanted.join(asked, keys=CANDIDATES.names, join_type="left anti")
    return fresh.sort_by([(name, "ascending") for name in CANDIDATES.names]).cast(CANDIDATES)


def _kept_members(standings: pa.Table, keepers: pa.Table, copies: pa.Table, crowds: pa.Table) -> pa.Table:
    """CROWD_MEMBERS whose copy group has a kept member, by bucket and then by that member's rank."""
    is_kept = pc.and_(whole(standings.column("eligible")), whole(keepers.column("duplicate_of")).is_null())
    kept = standings.filter(is_kept)
    group = pc.index_in(whole(kept.column("doc_id")), value_set=whole(copies.column("doc_id")))
    nodes = pc.coalesce(whole(copies.column("representative")).take(group), whole(kept.column("doc_id")))
    ranks = whole(kept.column("rank"))
    in_crowds = pc.is_in(nodes, value_set=pc.unique(whole(crowds.column("doc_id"))))
    nodes, ranks = nodes.filter(in_crowds), ranks.filter(in_crowds)
    rows = pc.index_in(whole(crowds.column("doc_id")), value_set=nodes)
    ranked = crowds.append_column("rank", ranks.take(rows)).filter(rows.is_valid())
    return ranked.sort_by([("bucket", "ascending"), ("rank", "ascending"), ("place", "ascending")])
