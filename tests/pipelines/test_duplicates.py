"""Whatever a policy lets stay, clusters hold all that was found to resemble; who is named as kept is kept."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from mixtures.binding import BoundPolicy, bind_policy
from mixtures.policy import load_policy
from pipelines.dedup.candidates import CANDIDATES
from pipelines.dedup.range_files import write_ranges
from pipelines.duplicates import confirm_keepers, rank_members, read_found, read_members, settle_range
from pipelines.run_folder import RunFolder
from storage.errors import DatasetError
from storage.manifests import open_dataset
from tests.mixtures.tiny_run import doc_id
from tests.pipelines.dedup.searching import found_by_hand, publish_found

IDS = {name: doc_id(name) for name in "abcdef"}
NAMES = {value: name for name, value in IDS.items()}
EXACT = "{rule: same, duplicates: exact, keep: {best: [text_bytes desc]}}"
NEAR = "{rule: like, duplicates: near, min_similarity: 0.9, keep: {best: [text_bytes desc]}}"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """a and b are alike (0.95), b and c less (0.85); d and e are copies; f is alone."""
    folder = RunFolder(tmp_path)
    places = {IDS[name]: i for i, name in enumerate("abcdef")}
    near = [(IDS["a"], IDS["b"], 0.95), (IDS["b"], IDS["c"], 0.85)]
    publish_found(folder.duplicates, found_by_hand(places, near, [(IDS["e"], IDS["d"])]), ["checksum"])
    return folder


def settle(folder: RunFolder, *rules: str) -> pa.Table:
    policy = bind(folder, rules)
    catalogue = pa.table({"doc_id": list(IDS.values()), "text_bytes": [60, 50, 40, 30, 20, 10]})
    (members,) = open_dataset(folder.duplicates / "members").parts
    write_ranges(folder.root / "ranks", rank_members(catalogue, policy, read_members(folder, members)), {})
    settled, _ = settle_range(policy, [folder.root / "ranks"], 0, read_found(folder, 0), CANDIDATES.empty_table(), 1)
    return settled


def bind(folder: RunFolder, rules: tuple[str, ...]) -> BoundPolicy:
    few = "{rule: short, measure: text_bytes, min: 1}"
    path = folder.root / "policy.yaml"
    path.write_text("format_version: 1\nname: p\nrules:\n" + "".join(f"  - {rule}\n" for rule in (few, *rules)))
    schema = pa.schema([("doc_id", pa.binary(16)), ("text_bytes", pa.int64())])
    return bind_policy(load_policy(str(path)), schema)


def clusters(settled: pa.Table) -> set[str]:
    groups: dict[bytes, str] = {}
    for row in settled.to_pylist():
        groups[row["cluster_id"]] = groups.get(row["cluster_id"], "") + NAMES[row["doc_id"]]
    return {"".join(sorted(group)) for group in groups.values()}


def dropped(settled: pa.Table) -> str:
    return "".join(sorted(NAMES[row["doc_id"]] for row in settled.to_pylist() if row["duplicate_of"]))


def test_clusters_hold_what_the_policy_lets_stay(folder: RunFolder) -> None:
    nothing, copies, both = settle(folder), settle(folder, EXACT), settle(folder, EXACT, NEAR)
    assert (dropped(nothing), dropped(copies), dropped(both)) == ("", "e", "be")
    assert clusters(nothing) == clusters(copies) == {"abc", "de"}
    assert clusters(both) == {"ab", "c", "de"}


def test_urls_are_settled_with_the_rest_by_their_own_rule(tmp_path: Path) -> None:
    """a and c share a URL, of which the shortest stays; so a waits for c, and b, which it resembles, comes first."""
    folder, places = RunFolder(tmp_path), {IDS[name]: i for i, name in enumerate("abcdef")}
    urls = found_by_hand(places, [], [(IDS["c"], IDS["a"])]).copies
    found = found_by_hand(places, [(IDS["a"], IDS["b"], 0.95)], [])
    publish_found(folder.duplicates, found, ["checksum"], urls)
    shortest = "{rule: page, duplicates: url, keep: {best: [text_bytes asc]}}"
    assert dropped(settle(folder, NEAR)) == "b"
    for rules, reason in (((shortest, NEAR), ("c", "url", None)), ((NEAR, shortest), ("b", "near", 0.95))):
        settled = settle(folder, *rules)
        (row,) = [row for row in settled.to_pylist() if row["duplicate_of"]]
        assert NAMES[row["doc_id"]] == "a"
        assert (NAMES[row["duplicate_of"]], row["kind"], row["similarity"]) == reason
        assert clusters(settled) == {"abc"}


def test_a_keeper_that_was_not_kept_is_refused(folder: RunFolder) -> None:
    settled = settle(folder, EXACT, NEAR)
    assert {NAMES[row["doc_id"]] for row in settled.to_pylist() if row["is_keeper"]} == {"a", "d"}
    verdicts = pa.table({"doc_id": list(IDS.values()), "verdict": ["kept"] * 6})
    confirm_keepers(verdicts, settled)
    with pytest.raises(DatasetError, match="duplicates of 1 that were not kept"):
        confirm_keepers(verdicts.filter(pa.array([name != "d" for name in IDS])), settled)
