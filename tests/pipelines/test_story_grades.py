"""Stories graded through a real server: figures by hand, nothing asked twice, failures told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli import cli
from pipelines.story_grades import read_stories
from storage.errors import InputError
from tests.rating_server import RatingServer, rating_server


def write_stories(path: Path, grades: dict[str, list[int]]) -> Path:
    rows = [
        {"prompt": prompt, "completion": f"the end grade={grade} number {number}", "model": "toy", "step": 100}
        for prompt, row in grades.items()
        for number, grade in enumerate(row)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def grade(server: RatingServer, stories: Path, *more: str) -> str:
    done = CliRunner().invoke(cli, ["grade-stories", str(stories), "--server", server.url, *more])
    assert done.exit_code == 0, done.output
    return done.output


def test_grades_are_means_over_prompts(tmp_path: Path) -> None:
    """The server gives grade g the expected value 0.6 g + 0.2 (g + 1) + 0.1 (g − 1), over 0.9."""
    stories = write_stories(tmp_path / "stories.jsonl", {"Once": [4, 2], "One day": [1]})
    with rating_server() as server:
        printed = grade(server, stories)
        assert server.asked.total() == 9 and "creativity" in printed
        shown = {str(payload["messages"]) for payload in server.payloads}
        assert all("Once\\n***\\nthe end" in text for text in shown if "grade=4" in text)
        assert len({payload["messages"][1]["content"].splitlines()[1] for payload in server.payloads}) == 3
    summary = json.loads((tmp_path / "stories.grades.json").read_text())
    expected = {value: (0.6 * value + 0.2 * (value + 1) + 0.1 * (value - 1)) / 0.9 for value in (4, 2, 1)}
    first, second = (expected[4] + expected[2]) / 2, expected[1]
    assert [figure["aspect"] for figure in summary["figures"]] == ["grammar", "consistency", "creativity"]
    for figure in summary["figures"]:
        assert figure["mean"] == pytest.approx((first + second) / 2)
        assert figure["error"] == pytest.approx(abs(first - second) / 2)
        assert (figure["prompts"], figure["stories"], figure["step"]) == (2, 3, 100)


def test_what_has_a_grade_is_not_asked_about_again(tmp_path: Path) -> None:
    stories = write_stories(tmp_path / "stories.jsonl", {"Once": [4]})
    with rating_server() as server:
        before = grade(server, stories)
        assert grade(server, stories) == before and server.asked.total() == 3
        write_stories(stories, {"Once": [4, 3]})
        grade(server, stories)
        assert server.asked.total() == 6


def test_what_cannot_be_graded_is_counted(tmp_path: Path) -> None:
    stories = write_stories(tmp_path / "stories.jsonl", {"Once": [4], "NONSENSE": [2]})
    with rating_server() as server:
        printed = grade(server, stories)
    assert "3 without a grade: nonsense" in printed
    assert {figure["stories"] for figure in json.loads((tmp_path / "stories.grades.json").read_text())["figures"]} == {
        1
    }


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "x", "completion": "y"}\n{"text": "x"}\n')
    with pytest.raises(InputError, match="line 2 is no story"):
        read_stories(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="no such file"):
        read_stories(tmp_path / "b.jsonl")
