"""Hosts: counted over all parts whatever their cut, told of each document, and judged by."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtures import hosts
from mixtures.binding import bind_gate, bind_policy
from mixtures.hosts import HOSTS, count_hosts, open_catalogue
from mixtures.judge import judge_duplicates, judge_rules
from mixtures.policy import Policy
from mixtures.recipe import Recipe
from storage.errors import SqlError
from storage.manifests import Dataset, open_dataset
from tests.mixtures.tiny_run import Doc, Run, name_of

DOCS = [
    Doc("a", host="many.example", text="four"),
    Doc("b", host="one.example", text="é"),
    Doc("c", host=None),
    Doc("d", host="many.example", text="sixsix"),
    Doc("e", host="many.example", text=""),
]
COUNTED = [
    {"host": "many.example", "documents": 3, "bytes": 10},
    {"host": "one.example", "documents": 1, "bytes": 2},
]


def counted(run: Run) -> Dataset:
    count_hosts(run.catalogue)
    return open_catalogue(run.root / "catalogue")


def told(catalogue: Dataset) -> dict[str, dict[str, int] | None]:
    rows = [row for part in catalogue.parts for row in catalogue.read(part, ["doc_id", "hosts"]).to_pylist()]
    return {name_of(row["doc_id"]): row["hosts"] for row in rows}


@pytest.mark.parametrize("part_rows", [1, 2, 5])
def test_hosts_are_counted_over_all_parts(make_run: Callable[..., Run], part_rows: int) -> None:
    run = make_run(DOCS, part_rows)
    catalogue = counted(run)
    table = open_dataset(run.root / "catalogue" / "hosts")
    (part,) = table.parts
    assert table.schema(part).equals(HOSTS)
    assert table.read(part).to_pylist() == COUNTED
    many, one = {"documents": 3, "bytes": 10}, {"documents": 1, "bytes": 2}
    assert told(catalogue) == {"a": many, "b": one, "c": None, "d": many, "e": many}


def test_what_does_not_ask_for_hosts_reads_the_stored_columns(make_run: Callable[..., Run]) -> None:
    run = make_run(DOCS)
    catalogue = counted(run)
    part = catalogue.parts[0]
    assert catalogue.read(part, ["source", "doc_id"]).equals(run.catalogue.read(part, ["source", "doc_id"]))
    assert catalogue.read(part).drop_columns(["hosts"]).equals(run.catalogue.read(part))
    assert catalogue.read(part).schema.equals(catalogue.schema(part))


def test_new_documents_change_counts_and_no_part(make_run: Callable[..., Run]) -> None:
    run = make_run(DOCS[:3])
    before = counted(run).parts
    more = counted(make_run(DOCS, root=run.root))
    assert more.parts[: len(before)] == before
    assert told(more)["a"] == {"documents": 3, "bytes": 10}


@settings(deadline=None, max_examples=15)
@given(st.lists(st.sampled_from(["a.example", "b.example", "ü.example", "A", None]), max_size=8), st.integers(1, 4))
def test_the_cut_into_parts_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, names: list[str | None], part_rows: int
) -> None:
    docs = [Doc(f"d{i}", host=host) for i, host in enumerate(names)]
    files = []
    for rows in (part_rows, 100):
        run = Run(tmp_path_factory.mktemp("run"), docs, rows)
        catalogue = counted(run)
        table = open_dataset(run.root / "catalogue" / "hosts")
        files.append(table.path(table.parts[0]).read_bytes())
        expected = [None if host is None else names.count(host) for host in names]
        assert [row and row["documents"] for row in told(catalogue).values()] == expected
    assert files[0] == files[1]


def test_counting_spills_and_leaves_nothing_behind(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "_MEMORY", "40MB")
    run = make_run(DOCS)
    part = run.catalogue.parts[0]
    names = pa.array([f"host-{i * 7919 % 1_000_003:07}.a-long-name-of-a-host.example" for i in range(1_000_000)])
    table = pa.table({"url_facts": pa.StructArray.from_arrays([names], ["host"]), "text_bytes": [1] * len(names)})
    pq.write_table(table, run.catalogue.path(part))
    one = Dataset(run.catalogue.folder, type(run.catalogue.manifest)(kind="c", identity="i", stage={}, parts=(part,)))
    assert count_hosts(one).rows == 1_000_000
    assert {path.suffix for path in (run.root / "catalogue" / "hosts").iterdir()} == {".json", ".parquet"}


def test_a_policy_and_a_recipe_ask_for_hosts(
    make_run: Callable[..., Run], policy_from: Callable[[str], Policy], recipe_from: Callable[..., Recipe]
) -> None:
    policy = policy_from(
        "format_version: 1\nname: p\nrules:\n  - {rule: too_large_host, measure: hosts.documents, max: 2}\n"
    )
    run = make_run(DOCS)
    run.catalogue = counted(run)
    dropped = []
    for part in run.catalogue.parts:
        bound = bind_policy(policy, run.catalogue.schema(part))
        table = run.catalogue.read(part, ["doc_id", *bound.columns])
        verdicts = judge_duplicates(table, bound, judge_rules(table, bound)).verdicts.to_pylist()
        dropped += [name_of(row["doc_id"]) for row in verdicts if row["rule"] == "too_large_host"]
    assert dropped == ["a", "d", "e"]
    corpus = run.corpus(policy)
    taken = corpus.rows(recipe_from("  - {name: small, weight: 1, where: hosts.bytes < 10}"), placed=True)
    assert [name_of(value) for rows in taken for value in rows.places.doc_id.to_pylist()] == ["b"]


def test_a_gate_cannot_ask_for_hosts(make_run: Callable[..., Run], policy_from: Callable[[str], Policy]) -> None:
    rule = "{rule: too_large_host, measure: hosts.documents, max: 2}"
    policy = policy_from(f"format_version: 1\nname: p\nrules:\n  - {rule}\ngate: {{rules: [too_large_host]}}\n")
    run = make_run(DOCS)
    with pytest.raises(SqlError, match="after its gate"):
        bind_gate(policy, run.catalogue.schema(run.catalogue.parts[0]))
