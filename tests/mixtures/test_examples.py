"""Labelling recipes: which texts are chosen, under which label and in which group, however their parts are cut."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixtures.examples import Examples, choose_examples
from mixtures.labelling import Labelling, load_labelling
from mixtures.origins import FileOrigin, Origin, RunOrigin
from mixtures.policy import load_policy
from storage.errors import InputError, RecipeError, SqlError
from storage.manifests import Manifest, write_manifest
from storage.parts import commit_table
from storage.schema import IDENTIFIER
from tests.mixtures.tiny_run import KEEP_ALL, Doc, Run

DOCS = [
    Doc("good1", bucket=19, text="good one", label="zh"),
    Doc("good2", bucket=18, text="good two", cluster="c"),
    Doc("bad1", bucket=3, text="bad one", cluster="c"),
    Doc("copy", bucket=2, text="bad two"),
    Doc("copied", bucket=1, text="bad two"),
    Doc("short", bucket=0, text="dropped", words=1),
]
HEAD = "format_version: 1\nname: test\n"


def recipe(tmp_path: Path, text: str) -> Labelling:
    (tmp_path / "recipe.yaml").write_text(HEAD + text)
    return load_labelling(tmp_path / "recipe.yaml")


def run_origin(root: Path, part_rows: int = 2, **options: object) -> RunOrigin:
    root.mkdir()
    (root / "policy.yaml").write_text(KEEP_ALL)
    run = Run(root, DOCS, part_rows)
    decisions = run.judge(load_policy(str(root / "policy.yaml")))
    return RunOrigin(documents=root / "documents", catalogue=root / "catalogue", decisions=decisions, **options)  # type: ignore[arg-type]


def texts(examples: Examples) -> dict[str, str]:
    return dict(zip(examples.table["text"].to_pylist(), examples.table["label"].to_pylist(), strict=True))


def groups(examples: Examples) -> dict[str, bytes]:
    return dict(zip(examples.table["text"].to_pylist(), examples.table["group"].to_pylist(), strict=True))


CLASSES = (
    "positive:\n  - {run: r, where: quality.bucket >= 18}\nnegative:\n  - {run: r, where: quality.bucket < 18%s}\n"
)


def test_a_run_gives_two_classes_by_sql(tmp_path: Path) -> None:
    origin = run_origin(tmp_path / "run")
    found = choose_examples(recipe(tmp_path, CLASSES % ""), [origin, origin])
    good, bad = {"good one": "positive", "good two": "positive"}, {"bad one": "negative", "bad two": "negative"}
    assert texts(found) == good | bad
    assert found.facts["copies"] == 1 and found.facts["labels"] == {"negative": 2, "positive": 2}
    language = dict(zip(found.table["text"].to_pylist(), found.table["language"].to_pylist(), strict=True))
    assert language["good one"] == "zh" and language["good two"] == "en"


def test_near_duplicates_are_one_group_and_others_are_not(tmp_path: Path) -> None:
    origin = run_origin(tmp_path / "run")
    found = groups(choose_examples(recipe(tmp_path, CLASSES % ""), [origin, origin]))
    assert found["good two"] == found["bad one"] and len(set(found.values())) == 3


def test_what_the_policy_dropped_comes_only_if_asked(tmp_path: Path) -> None:
    kept, every = run_origin(tmp_path / "run"), run_origin(tmp_path / "run2", kept_only=False)
    written = recipe(tmp_path, CLASSES % ", dropped: true")
    assert "dropped" not in texts(choose_examples(written, [kept, kept]))
    assert texts(choose_examples(written, [kept, every]))["dropped"] == "negative"


def test_neither_the_cut_of_the_parts_nor_their_number_changes_the_draw(tmp_path: Path) -> None:
    written = recipe(tmp_path, CLASSES % "")
    tables = []
    for rows in (1, 2, 100):
        origin = run_origin(tmp_path / f"run{rows}", rows)
        tables.append(choose_examples(written, [origin, origin], seed=3).table)
    assert tables[0].equals(tables[1]) and tables[0].equals(tables[2])


def test_at_most_so_many_of_each_label(tmp_path: Path) -> None:
    lines = [{"text": f"text {i}", "kind": "a" if i % 10 else "b"} for i in range(200)]
    written = recipe(tmp_path, "examples:\n  - {files: [x.jsonl], label: kind}\n")
    few = choose_examples(written, [jsonl(tmp_path, lines)], most_per_label=30)
    assert few.facts["labels"] == {"a": 30, "b": 20} and few.facts["over_the_most"] == 150
    more = choose_examples(written, [jsonl(tmp_path, lines)], most_per_label=40)
    assert set(texts(few)) <= set(texts(more))


def jsonl(tmp_path: Path, rows: list[dict[str, object]], name: str = "x.jsonl.gz") -> FileOrigin:
    with gzip.open(tmp_path / name, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return FileOrigin(files=(tmp_path / name,))


ROWS: list[dict[str, object]] = [
    {"text": "one", "grade": 1, "article": "a-adv"},
    {"text": "two", "grade": 4.5, "article": "a-ele"},
    {"text": "three", "grade": 2, "article": "b-adv"},
    {"text": "three", "grade": 5, "article": "c-adv"},
    {"text": "none", "grade": None, "article": "d-adv"},
]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_files_give_grades_and_groups_by_expressions(tmp_path: Path, form: str) -> None:
    origin: Origin = jsonl(tmp_path, ROWS)
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "x.parquet")
        origin = FileOrigin(files=(tmp_path / "x.parquet",))
    written = recipe(tmp_path, "examples:\n  - {files: [x], label: grade, group: \"split_part(article, '-', 1)\"}\n")
    found = choose_examples(written, [origin])
    grades = dict(zip(found.table["text"].to_pylist(), found.table["grade"].to_pylist(), strict=True))
    assert grades == {"one": 1.0, "two": 4.5}, "`three` has two grades, `none` has none"
    assert found.facts["under_two_labels"] == 2 and len(set(groups(found).values())) == 1


def test_a_group_joins_through_copies_and_clusters(tmp_path: Path) -> None:
    """`bad one` of the file is the run's, whose cluster has `good two` in it: the file's article goes with them."""
    origin = run_origin(tmp_path / "run")
    file = jsonl(tmp_path, [{"text": "bad one", "article": "x"}, {"text": "new", "article": "x"}])
    text = (
        "positive:\n  - {run: r, where: quality.bucket = 18}\n"
        "negative:\n  - {run: r, where: quality.bucket < 18}\n  - {files: [x], group: article}\n"
    )
    found = groups(choose_examples(recipe(tmp_path, text), [origin, origin, file]))
    assert found["bad one"] == found["good two"]


def test_annotations_give_grades_to_the_texts_that_were_rated(tmp_path: Path) -> None:
    rated = [("good1", 4.2, "good one"), ("copy", 1.0, "another text"), ("short", 0.5, "dropped")]
    origin = run_origin(tmp_path / "run", annotations=tmp_path / "labels", kept_only=False)
    by_name = {doc.name: doc for doc in DOCS}
    hashes = {name: _hash(text) for name, _, text in rated}
    table = pa.table(
        {
            "doc_id": pa.array([by_name[name].doc_id for name, _, _ in rated], IDENTIFIER),
            "content_hash": pa.array([hashes[name] for name, _, _ in rated], IDENTIFIER),
            "score": [score for _, score, _ in rated],
            "argmax": pa.array([4, 1, 0], pa.int8()),
            "said": pa.array([4, 1, 0], pa.int8()),
            "mass": [1.0, 1.0, 1.0],
        }
    )
    part = commit_table(tmp_path / "labels", "0" * 32, table, schema=table.schema)
    write_manifest(tmp_path / "labels", Manifest(kind="annotations", identity="x", stage={}, parts=(part,)))
    written = recipe(tmp_path, "examples:\n  - {run: r, annotations: x, label: annotation.score}\n")
    found = choose_examples(written, [origin])
    grades = dict(zip(found.table["text"].to_pylist(), found.table["grade"].to_pylist(), strict=True))
    assert grades == {"good one": 4.2, "dropped": 0.5}, "the rating of a text that was changed since is left out"


def _hash(text: str) -> bytes:
    from storage.identity import content_hash

    return content_hash(text.encode())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("positive:\n  - {run: r}\n", "go together"),
        ("positive:\n  - {}\nnegative:\n  - {run: r}\n", "one of `run` and `files`"),
        ("examples:\n  - {files: [x], label: a, dropped: true}\n", "goes with `run`"),
        ("examples:\n  - {files: [x]}\n", "`label` is missing"),
        ("examples:\n  - {run: r, label: a, text: body}\n", "goes with `files`"),
    ],
)
def test_recipes_that_say_what_cannot_be_are_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        recipe(tmp_path, text)


@pytest.mark.parametrize(
    "where",
    [
        "\"text IN (SELECT x FROM read_csv('/etc/passwd'))\"",
        "nothing > 1",
        '"length(text)"',
        "\"repeat('x', 9) = text\"",
    ],
)
def test_sql_is_an_expression_over_columns_and_nothing_else(tmp_path: Path, where: str) -> None:
    written = recipe(tmp_path, f"examples:\n  - {{files: [x], label: grade, where: {where}}}\n")
    with pytest.raises(SqlError) as caught:
        choose_examples(written, [jsonl(tmp_path, ROWS)])
    assert "recipe.yaml:4" in str(caught.value)


def test_bad_files_are_told(tmp_path: Path) -> None:
    written = recipe(tmp_path, "examples:\n  - {files: [x], label: grade}\n")
    (tmp_path / "broken.jsonl").write_text('{"text": "a", "grade": 1}\nnot json\n')
    with pytest.raises(InputError, match="cannot be read"):
        choose_examples(written, [FileOrigin(files=(tmp_path / "broken.jsonl",))])
    with pytest.raises(InputError, match="no column `body`"):
        choose_examples(written, [FileOrigin(files=jsonl(tmp_path, ROWS).files, text="body")])
    with pytest.raises(InputError, match="no text is chosen"):
        choose_examples(written, [jsonl(tmp_path, ROWS[-1:] + [{"text": "x", "grade": None, "article": "y"}])])
