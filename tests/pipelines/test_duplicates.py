"""Whatever a policy lets stay, clusters hold all that was found to resemble: held-out sets take them whole."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from mixtures.binding import bind_policy
from mixtures.policy import load_policy
from pipelines.dedup.exact import COPIES
from pipelines.dedup.verify import CROWD_MEMBERS, PAIRS
from pipelines.duplicates import Keepers, choose_by_policy
from pipelines.run_folder import RunFolder
from storage.manifests import Manifest, write_manifest
from storage.parts import commit_table
from tests.mixtures.tiny_run import doc_id

IDS = {name: doc_id(name) for name in "abcdef"}
NAMES = {value: name for name, value in IDS.items()}
EXACT = "{rule: same, duplicates: exact, keep: {best: [text_bytes desc]}}"
NEAR = "{rule: like, duplicates: near, min_similarity: 0.9, keep: {best: [text_bytes desc]}}"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """a and b are alike (0.95), b and c less (0.85); d and e are copies; f is alone."""
    folder = RunFolder(tmp_path)
    pairs = [sorted([IDS["a"], IDS["b"]]) + [0.95, 0, 1], sorted([IDS["b"], IDS["c"]]) + [0.85, 1, 2]]
    copy = dict.fromkeys(COPIES.names, 0) | {"doc_id": IDS["e"], "representative": IDS["d"]}
    tables = {
        "pairs": pa.Table.from_pylist([dict(zip(PAIRS.names, pair, strict=True)) for pair in pairs], PAIRS),
        "copies": pa.Table.from_pylist([copy], COPIES),
        "crowds": CROWD_MEMBERS.empty_table(),
    }
    for name, table in tables.items():
        part = commit_table(folder.duplicates / name, name, table, schema=table.schema)
        write_manifest(folder.duplicates / name, Manifest(kind=name, identity=name, stage={}, parts=(part,)))
    return folder


def choose(folder: RunFolder, *rules: str) -> Keepers:
    few = "{rule: short, measure: text_bytes, min: 1}"
    path = folder.root / "policy.yaml"
    path.write_text("format_version: 1\nname: p\nrules:\n" + "".join(f"  - {rule}\n" for rule in (few, *rules)))
    policy = bind_policy(load_policy(str(path)), pa.schema([("doc_id", pa.binary(16)), ("text_bytes", pa.int64())]))
    ranked = pa.table({"doc_id": list(IDS.values()), "rank": list(range(6)), "passed": [True] * 6})
    return choose_by_policy(folder, policy, ranked, num_groups=1)


def clusters(keepers: Keepers) -> set[str]:
    groups: dict[bytes, str] = {}
    for row in keepers.clusters.to_pylist():
        groups[row["cluster_id"]] = groups.get(row["cluster_id"], "") + NAMES[row["doc_id"]]
    return {"".join(sorted(group)) for group in groups.values()}


def dropped(keepers: Keepers) -> str:
    return "".join(sorted(NAMES[row] for row in keepers.duplicates["doc_id"].to_pylist()))


def test_clusters_hold_what_the_policy_lets_stay(folder: RunFolder) -> None:
    nothing, copies, both = choose(folder), choose(folder, EXACT), choose(folder, EXACT, NEAR)
    assert (dropped(nothing), dropped(copies), dropped(both)) == ("", "e", "be")
    assert clusters(nothing) == clusters(copies) == {"abc", "de", "f"}
    assert clusters(both) == {"ab", "c", "de", "f"}
