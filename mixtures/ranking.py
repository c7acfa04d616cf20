"""Ranking: which of several duplicates is best, as the policy's `keep` says, among those that passed its other rules.

Keys are computed part by part and only for documents that resemble another; the order over all parts is settled on
those alone (about 40 bytes each), ties by the smallest doc_id.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from mixtures.binding import TABLE, BoundPolicy, RankKey
from mixtures.judge import Failures
from mixtures.sql import open_engine
from storage.schema import IDENTIFIER

URL_RANK = pa.field("url_rank", pa.int64())


def candidate_keys(
    catalogue: pa.Table, policy: BoundPolicy, failures: Failures, kind: str, members: pa.Array | pa.ChunkedArray
) -> pa.Table:
    """The rows of one catalogue part that are in `members` (doc_ids): doc_id, `passed`, and a column a key.

    `passed` is true where no rule but those on duplicates failed: only such a document may stay for others.
    """
    passed = pc.invert(pc.is_in(pa.array(range(catalogue.num_rows), pa.int64()), failures.rows["row"]))
    wanted = catalogue.append_column("_passed", passed)
    wanted = wanted.filter(pc.is_in(catalogue["doc_id"], value_set=_flat(members)))
    named = dict(_named_keys(policy, kind) + _named_keys(policy, "url"))
    keys = "".join(f", {key.sql} AS {name}" for name, key in named.items())
    with open_engine(**{TABLE: wanted}) as engine:
        found = engine.query(f"SELECT doc_id, _passed AS passed{keys} FROM {TABLE}")
    return found.set_column(0, "doc_id", found["doc_id"].cast(IDENTIFIER))


def rank_candidates(keys: pa.Table, policy: BoundPolicy, kind: str) -> pa.Table:
    """doc_id, `passed` and `rank` (int64, 0 is best) of the candidates of all parts, best first.

    With a rule on URLs also `url_rank`, by that rule's own `keep`.
    """
    schema = pa.schema([("doc_id", IDENTIFIER), ("passed", pa.bool_()), ("rank", pa.int64())])
    ranks = f"row_number() OVER ({_order(policy, kind)}) - 1 AS rank"
    if "url" in policy.ranks:
        schema = schema.append(URL_RANK)
        ranks += f", row_number() OVER ({_order(policy, 'url')}) - 1 AS url_rank"
    with open_engine(_keys=keys) as engine:
        return engine.query(f"SELECT doc_id, passed, {ranks} FROM _keys ORDER BY rank").cast(schema)


def _named_keys(policy: BoundPolicy, kind: str) -> list[tuple[str, RankKey]]:
    """The columns of a kind's keys, those of the first kind that orders documents and those of URLs apart."""
    return [(f"{kind}_key_{i}", key) for i, key in enumerate(policy.ranks.get(kind, ()))]


def _order(policy: BoundPolicy, kind: str) -> str:
    named = _named_keys(policy, kind)
    keys = "".join(f"{name} {'DESC' if key.descending else 'ASC'} NULLS LAST, " for name, key in named)
    return f"ORDER BY {keys}doc_id"


def _flat(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
