"""`gristmill grade-stories`: a language model grades the stories that a checkpoint went on with."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pipelines.language_models import ModelRequest, find_model, open_model, require_server
from pipelines.rubrics import load_rubric
from pipelines.story_grades import ASPECTS, Judge, grade_stories, read_stories
from storage.commit import write_atomically


def grade_stories_command(stories_file: Path, out: Path | None, options: Mapping[str, Any]) -> None:
    """Grade what has no grade yet, print the figures and write them beside the grades."""
    stories = read_stories(stories_file)
    rubrics = {aspect: load_rubric(f"story_{aspect}") for aspect in ASPECTS}
    found = find_model(ModelRequest(**options))
    judge = Judge(model=open_model(found.told), identity=found.identity, rubrics=rubrics)
    grades = out or stories_file.with_suffix(".grades.jsonl")
    figures, failures = grade_stories(judge, stories, grades)
    summary = {"format_version": 1, "judge": found.name, "figures": [asdict(figure) for figure in figures]}
    write_atomically(grades.with_suffix(".json"), (json.dumps(summary, indent=2) + "\n").encode())
    for figure in figures:
        error = "" if figure.error is None else f" ± {figure.error:.2f}"
        click.echo(f"{figure.model}  step {figure.step}  {figure.aspect}  {figure.mean:.2f}{error}  ({figure.stories})")
    for reason, count in Counter(failure.reason for failure in failures).most_common():
        click.echo(f"{count} without a grade: {reason}", err=True)
    click.echo(f"grades: {grades}")
    require_server(failures, found.told)
