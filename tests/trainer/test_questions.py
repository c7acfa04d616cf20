"""Benchmarks from files as they are published: recognised, worded as lm-eval does, refused with what is missing."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import InputError
from trainer.evaluation.questions import Question, open_benchmark

LABELLED = {"text": ["red", "green", "blue"], "label": ["A", "B", "C"]}
ROWS: dict[str, tuple[dict[str, Any], Question]] = {
    "arc": (
        {"id": "1", "question": "Which colour?", "choices": LABELLED, "answerKey": "B"},
        Question(prompt="Question: Which colour?\nAnswer:", choices=("red", "green", "blue"), gold=1),
    ),
    "openbookqa": (
        {"id": "1", "question_stem": "Grass is", "choices": LABELLED, "answerKey": " B"},
        Question(prompt="Grass is", choices=("red", "green", "blue"), gold=1),
    ),
    "piqa": (
        {"goal": "Open it", "sol1": "Push.", "sol2": "Pull.", "label": 1},
        Question(prompt="Question: Open it\nAnswer:", choices=("Push.", "Pull."), gold=1),
    ),
    "boolq": (
        {"question": "is grass green", "passage": "Grass is green.", "answer": True},
        Question(prompt="Grass is green.\nQuestion: is grass green?\nAnswer:", choices=("no", "yes"), gold=1),
    ),
    "hellaswag": (
        {
            "ind": 1, "activity_label": "Baking", "ctx_a": "A man mixes. [header] Dough", "ctx_b": "the oven",
            "endings": ["is hot. [substeps] Then", "sings."], "label": "0",
        },
        Question(
            prompt="Baking: A man mixes. Dough The oven", choices=("is hot. Then", "sings."), gold=0
        ),
    ),
    "mmlu": (
        {"question": " Which? ", "subject": "abstract_algebra", "choices": ["a", "b", "c", "d"], "answer": 3},
        Question(
            prompt="Which?\nA. a\nB. b\nC. c\nD. d\nAnswer:", choices=("A", "B", "C", "D"), gold=3,
            subject="abstract_algebra",
        ),
    ),
    "ceval": (
        {"id": 0, "question": "哪个？", "A": "甲", "B": "乙", "C": "丙", "D": "丁", "answer": "C"},
        Question(prompt="哪个？\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n答案：", choices=("A", "B", "C", "D"), gold=2),
    ),
    "cmmlu": (
        {"Question": "哪个？", "A": "甲", "B": "乙", "C": "丙", "D": "丁", "Answer": "A"},
        Question(prompt="哪个？\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n答案：", choices=("A", "B", "C", "D"), gold=0),
    ),
    "plain": (
        {"query": "Question: How?\n", "choices": ["so", "thus"], "gold": 1},
        Question(prompt="Question: How?\nAnswer:", choices=("so", "thus"), gold=1),
    ),
}  # fmt: skip


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "json", "parquet"])
def test_a_format_is_known_by_its_columns(name: str, ending: str, tmp_path: Path) -> None:
    row, expected = ROWS[name]
    path = tmp_path / f"test.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    elif ending == "json":
        path.write_text(json.dumps([row]))
    else:
        write_lines(path, [row])
    benchmark = open_benchmark(str(path))
    assert (benchmark.format, benchmark.questions) == (name, (expected,))


@pytest.mark.parametrize("name", ["piqa", "boolq", "ceval", "cmmlu"])
def test_csv_files_have_strings_only(name: str, tmp_path: Path) -> None:
    row, expected = ROWS[name]
    with open(tmp_path / "val.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    assert open_benchmark(str(tmp_path / "val.csv")).questions == (expected,)


def test_mmlu_as_its_authors_publish_it_has_no_header(tmp_path: Path) -> None:
    (tmp_path / "college_physics_test.csv").write_text('"Which, then?",a,b,c,d,B\nWhat?,1,2,3,4,D\n')
    benchmark = open_benchmark(str(tmp_path / "college_physics_test.csv"))
    assert [question.gold for question in benchmark.questions] == [1, 3]
    assert benchmark.opening_of(benchmark.questions[0]).endswith("about college physics.\n\n")


def test_the_authors_files_of_arc_and_openbookqa_are_told_apart_by_name(tmp_path: Path) -> None:
    choices = [{"text": "red", "label": "1"}, {"text": "green", "label": "2"}]
    row = {"id": "1", "question": {"stem": "Grass is", "choices": choices}, "answerKey": "2"}
    easy = open_benchmark(str(write_lines(tmp_path / "ARC-Easy-Test.jsonl", [row])))
    assert (easy.format, easy.questions[0].prompt) == ("arc", "Question: Grass is\nAnswer:")
    assert open_benchmark(str(write_lines(tmp_path / "OpenBookQA.jsonl", [row]))).questions[0].prompt == "Grass is"
    unnamed = write_lines(tmp_path / "test.jsonl", [row])
    with pytest.raises(InputError, match="those of arc, openbookqa"):
        open_benchmark(str(unnamed))
    assert open_benchmark(f"openbookqa={unnamed}").format == "openbookqa"


def test_piqa_finds_its_labels_in_the_file_beside_it(tmp_path: Path) -> None:
    row = {"goal": "Open it", "sol1": "Push.", "sol2": "Pull."}
    path = write_lines(tmp_path / "valid.jsonl", [row, row])
    with pytest.raises(InputError, match="piqa lacks `label`"):
        open_benchmark(str(path))
    (tmp_path / "valid-labels.lst").write_text("1\n0\n")
    assert [question.gold for question in open_benchmark(str(path)).questions] == [1, 0]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    row = {key: value for key, value in ROWS["ceval"][0].items() if key != "answer"}
    with pytest.raises(InputError, match="ceval lacks `answer`"):
        open_benchmark(str(write_lines(tmp_path / "test.jsonl", [row])))
    with pytest.raises(InputError, match="the format mmlu needs `choices`, `answer`"):
        open_benchmark(f"mmlu={tmp_path / 'test.jsonl'}")


def test_bad_rows_are_counted_and_numbered(tmp_path: Path) -> None:
    good = ROWS["arc"][0]
    rows = [good, {**good, "answerKey": "E"}, *[{**good, "choices": None}] * 7]
    with pytest.raises(InputError) as caught:
        open_benchmark(str(write_lines(tmp_path / "arc.jsonl", rows)))
    told = str(caught.value)
    assert "8 of 9 rows" in told and "row 2: the answer `E` is none of A, B, C" in told and "3 more" in told


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", b'{"query": '),
        ("a.json.gz", b"not gzip"),
        ("a.jsonl.gz", gzip.compress(b'{"query": "x"}\n' * 50, mtime=0)[:-20]),
        ("a.parquet", b"PAR1 no"),
        ("a.csv", b'\xff\xfe"'),
        ("a.jsonl", b"[1, 2]\n"),
        ("a.jsonl", b""),
        ("a.txt", b"plain"),
    ],
)
def test_damaged_files_are_errors_in_words(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        open_benchmark(str(tmp_path / name))
    assert name in str(caught.value.at)


def test_the_real_parts_of_benchmarks_are_read(shared_data: Path) -> None:
    counts = {"arc_easy": 600, "boolq": 600, "openbook_qa": 500, "piqa": 600}
    for name, count in counts.items():
        benchmark = open_benchmark(str(shared_data / "evaluation" / f"{name}.jsonl.gz"))
        assert (benchmark.format, len(benchmark.questions)) == ("plain", count)
