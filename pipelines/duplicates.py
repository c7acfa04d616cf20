"""What a policy makes of the duplicates that a run has found: which documents compete, and who of them stays.

Documents are settled range by range: all that a document is tied to, directly or through others, is settled with it, so
ranks need no order beyond a range and no task holds more than its own. The search is not redone for a policy. Its order
can ask for pairs of a crowd that the search never compared; whoever can verify them does and settles that range again,
else such documents are kept and the pairs counted.

Invariant: clusters hold all that was found to resemble, also where the policy lets duplicates stay, because a held-out
set takes whole clusters; and whoever is dropped names a document that is kept (`confirm_keepers`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixtures.binding import BoundPolicy
from mixtures.judge import CLUSTERS, DUPLICATES, judge_rules
from mixtures.ranking import candidate_keys, rank_candidates
from pipelines.dedup.columns import numbers, whole
from pipelines.dedup.keepers import choose_keepers, list_missing_pairs
from pipelines.dedup.range_files import read_range
from pipelines.dedup.shuffle import RANGE, parts_of, with_ranges
from pipelines.dedup.verify import merge_pairs
from pipelines.run_folder import RunFolder
from storage.errors import DatasetError
from storage.manifests import open_dataset
from storage.parts import Part
from storage.schema import IDENTIFIER

SETTLED = pa.schema(
    [
        RANGE,
        pa.field("doc_id", IDENTIFIER, nullable=False),
        pa.field("duplicate_of", IDENTIFIER),
        pa.field("similarity", pa.float64()),
        pa.field("kind", pa.string()),
        pa.field("cluster_id", IDENTIFIER, nullable=False),
        pa.field("cluster_size", pa.int32(), nullable=False),
        pa.field("is_keeper", pa.bool_(), nullable=False),
    ]
)
"""KEEPERS on their way to their documents. `range`: the documents part; `is_keeper`: another one is dropped for it."""


@dataclass(frozen=True)
class Found:
    """PAIRS, COPIES, CROWD_MEMBERS, COPIES by URL and PAIRS by meaning of one settle range."""

    pairs: pa.Table
    copies: pa.Table
    crowds: pa.Table
    urls: pa.Table
    semantic: pa.Table

    def with_pairs(self, more: pa.Table) -> Found:
        return replace(self, pairs=merge_pairs([self.pairs, more]))


def count_settle_ranges(folder: RunFolder) -> int:
    return len(open_dataset(folder.duplicates / "pairs").parts)


def read_found(folder: RunFolder, number: int) -> Found:
    """What the search published for one settle range."""
    datasets = [open_dataset(folder.duplicates / kind) for kind in ("pairs", "copies", "crowds", "urls", "semantic")]
    return Found(*(dataset.read(dataset.parts[number]) for dataset in datasets))


def find_members(folder: RunFolder, catalogue: Part) -> Part:
    """The part of `members` for one catalogue part. Raises DatasetError where the search knew other documents."""
    members = open_dataset(folder.duplicates / "members")
    found = next((part for part in members.parts if part.of == catalogue.of), None)
    if found is None:
        raise DatasetError(
            "duplicates were searched among other documents than these",
            at=str(members.folder),
            hint="run the step `deduplicate` again",
        )
    return found


def read_members(folder: RunFolder, part: Part) -> pa.Table:
    """MEMBERS of one documents part, without `range`."""
    return open_dataset(folder.duplicates / "members").read(part)


def rank_members(table: pa.Table, policy: BoundPolicy, members: pa.Table) -> pa.Table:
    """What the policy ranks one catalogue part's members by, on its way to the ranges that settle them.

    `range` (where it is settled), `place`, `doc_id`, `passed`, and a column a key, by range.
    """
    keys = candidate_keys(table, policy, judge_rules(table, policy), ranking_of(policy), members["doc_id"])
    rows = pc.index_in(whole(keys["doc_id"]), value_set=whole(members["doc_id"]))
    ranked = keys.add_column(0, "place", whole(members["place"]).take(rows))
    return with_ranges(ranked, numbers(whole(members["settle"]).take(rows), np.uint32))


def settle_range(
    policy: BoundPolicy, ranked_files: Sequence[Path], number: int, found: Found, asked: pa.Table, num_groups: int
) -> tuple[pa.Table, pa.Table]:
    """(SETTLED, the CANDIDATES that the policy's order still needs) of one range; `asked`: those of earlier rounds."""
    keys = read_range(ranked_files, number)
    ranked = rank_candidates(keys.drop_columns(["range", "place"]), policy, ranking_of(policy))
    columns = {"rank": ranked["rank"], "eligible": ranked["passed"]}
    more = {name: ranked[name] for name in ranked.column_names if name not in ("doc_id", "rank", "passed")}
    standings = pa.table({"doc_id": ranked["doc_id"], **columns, **more})
    kinds = _kinds(policy)
    near, semantic = (
        _similar_enough(pairs, kinds.get(kind)) for kind, pairs in (("near", found.pairs), ("semantic", found.semantic))
    )
    keepers = choose_keepers(standings, near, found.copies, urls=found.urls, semantic=semantic, kinds=list(kinds))
    missing = asked.slice(0, 0)
    if "near" in kinds:
        missing = list_missing_pairs(standings, keepers, found.copies, found.crowds, asked, num_groups)
    return _to_parts(keepers, keys), missing


def _to_parts(keepers: pa.Table, keys: pa.Table) -> pa.Table:
    """SETTLED from KEEPERS and the places of the same documents."""
    where = pc.index_in(whole(keepers["doc_id"]), value_set=whole(keys["doc_id"]))
    places = numbers(whole(keys["place"]).take(where), np.int64)
    is_keeper = pc.is_in(keepers["doc_id"], value_set=pc.unique(whole(keepers["duplicate_of"])).drop_null())
    settled = keepers.append_column("is_keeper", is_keeper)
    return with_ranges(settled, parts_of(places).astype(np.uint32)).cast(SETTLED)


def duplicates_of(settled: pa.Table) -> dict[str, pa.Table]:
    """DUPLICATES and CLUSTERS of the documents in SETTLED, as `judge_duplicates` takes them."""
    dropped = settled.filter(settled["duplicate_of"].is_valid())
    return {
        "duplicates": dropped.select(DUPLICATES.names).cast(DUPLICATES),
        "clusters": settled.select(CLUSTERS.names).cast(CLUSTERS),
    }


def confirm_keepers(verdicts: pa.Table, settled: pa.Table) -> None:
    """Raises DatasetError when a document of this part, for which others were dropped, was not kept itself."""
    kept = verdicts.filter(pc.equal(verdicts["verdict"], "kept"))["doc_id"]
    keepers = settled.filter(settled["is_keeper"])["doc_id"]
    wrong = keepers.filter(pc.invert(pc.is_in(keepers, value_set=whole(kept))))
    if len(wrong):
        raise DatasetError(
            f"documents were dropped as duplicates of {len(wrong)} that were not kept",
            at=wrong[0].as_py().hex(),
            hint="find the duplicates anew among the documents that this policy's other rules pass",
        )


def ranking_of(policy: BoundPolicy) -> str:
    """Whose `keep` orders the documents: the first of these kinds that the policy has a rule on."""
    return next((kind for kind in ("near", "exact", "semantic", "url") if kind in policy.ranks), "exact")


def _kinds(policy: BoundPolicy) -> dict[str, float | None]:
    return {kind: similarity for kind, _, _, similarity in policy.duplicates}


def _similar_enough(pairs: pa.Table, least: float | None) -> pa.Table:
    """PAIRS at the policy's similarity, or all where it names none."""
    return pairs if least is None else pairs.filter(pc.greater_equal(pairs["similarity"], least))
