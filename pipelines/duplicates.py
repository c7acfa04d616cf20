"""What a policy makes of the duplicates that a run has found: which documents compete, and who of them stays.

The search is not redone for a policy. Its order can ask for pairs of a crowd that the search never compared; whoever
can verify them passes `verify`, and without it such documents are kept and the pairs counted.

Invariant: clusters hold all that was found to resemble, also where the policy lets duplicates stay, because a held-out
set takes whole clusters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mixtures.binding import BoundPolicy
from mixtures.judge import CLUSTERS, DUPLICATES
from pipelines.dedup.candidates import CANDIDATES
from pipelines.dedup.keepers import SETTLE_ROUNDS, STANDINGS, choose_keepers, list_missing_pairs
from pipelines.dedup.verify import merge_pairs
from pipelines.run_folder import RunFolder
from storage.manifests import open_dataset


@dataclass(frozen=True, kw_only=True)
class Keepers:
    """DUPLICATES to drop, CLUSTERS, and how many pairs were wanted but not compared."""

    duplicates: pa.Table
    clusters: pa.Table
    num_uncompared: int


def choose_by_policy(
    folder: RunFolder,
    policy: BoundPolicy,
    ranked: pa.Table,
    *,
    num_groups: int,
    verify: Callable[[pa.Table], pa.Table] | None = None,
) -> Keepers:
    """Who stays by the policy's order: `ranked` has doc_id, rank and `passed`; `verify` turns CANDIDATES into PAIRS."""
    columns = [ranked["doc_id"], ranked["rank"], ranked["passed"]]
    standings = pa.table(columns, names=STANDINGS.names).cast(STANDINGS)
    pairs, copies = _found(folder, policy)
    kinds = _kinds(policy)
    crowds = _read(folder.duplicates / "crowds")
    asked = missing = CANDIDATES.empty_table()
    keepers = choose_keepers(standings, pairs, copies, kinds=list(kinds))
    for _ in range(SETTLE_ROUNDS if kinds.get("near") else 0):
        missing = list_missing_pairs(standings, keepers, copies, crowds, asked, num_groups)
        if not len(missing) or verify is None:
            break
        asked = pa.concat_tables([asked, missing])
        pairs = _similar_enough(merge_pairs([pairs, verify(missing)]), policy)
        keepers = choose_keepers(standings, pairs, copies, kinds=list(kinds))
    return Keepers(
        duplicates=_dropped(keepers),
        clusters=keepers.select(["doc_id", "cluster_id", "cluster_size"]).cast(CLUSTERS),
        num_uncompared=0 if verify else len(missing),
    )


def ranking_of(policy: BoundPolicy) -> str:
    """Whose `keep` orders the documents: the first of these kinds that the policy has a rule on."""
    return next((kind for kind in ("near", "exact", "semantic", "url") if kind in policy.ranks), "exact")


def members(folder: RunFolder, policy: BoundPolicy) -> pa.Array:
    """doc_ids of the documents that resemble another, at least as closely as the policy says."""
    pairs, copies = _found(folder, policy)
    columns = [pairs["a_doc_id"], pairs["b_doc_id"], copies["doc_id"], copies["representative"]]
    return pc.unique(
        pa.concat_arrays([chunk for column in columns for chunk in column.chunks] or [pa.array([], columns[0].type)])
    )


def _dropped(keepers: pa.Table) -> pa.Table:
    """DUPLICATES: those with another document to stay for them."""
    dropped = keepers.filter(keepers["duplicate_of"].is_valid())
    return dropped.select(DUPLICATES.names).cast(DUPLICATES)


def _kinds(policy: BoundPolicy) -> dict[str, float | None]:
    return {kind: similarity for kind, _, _, similarity in policy.duplicates}


def _found(folder: RunFolder, policy: BoundPolicy) -> tuple[pa.Table, pa.Table]:
    """(PAIRS at the policy's similarity, or all where it names none, and COPIES)."""
    return _similar_enough(_read(folder.duplicates / "pairs"), policy), _read(folder.duplicates / "copies")


def _similar_enough(pairs: pa.Table, policy: BoundPolicy) -> pa.Table:
    least = _kinds(policy).get("near")
    return pairs if least is None else pairs.filter(pc.greater_equal(pairs["similarity"], least))


def _read(folder: Path) -> pa.Table:
    dataset = open_dataset(folder)
    return pa.concat_tables([dataset.read(part) for part in dataset.parts])
