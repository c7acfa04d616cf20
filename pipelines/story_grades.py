"""Stories that a model went on with, graded by another one: grammar, consistency, creativity, each on its own rubric.

TinyStories' GPT-Eval (2305.07759, section 4) with any judge. Invariant: a grade belongs to a text, a rubric's wording
and a judge; what has one is not asked about again. Figures are means over prompts of the means over their completions,
with the standard error over prompts: ten texts after one beginning are not ten independent ones.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev

from classifiers.annotation.asking import Answer, Question, rate_texts
from classifiers.annotation.rating import Rating
from classifiers.annotation.rubric import Rubric
from classifiers.llm.asking import Failed, LanguageModel, Sampling
from storage.commit import write_atomically
from storage.errors import InputError
from storage.identity import fingerprint

ASPECTS = ("grammar", "consistency", "creativity")
BETWEEN = "\n***\n"
AT_ONCE = 128


@dataclass(frozen=True, kw_only=True)
class Story:
    """A beginning and how it was gone on with, by which model after how many steps."""

    prompt: str
    completion: str
    model: str
    step: int


@dataclass(frozen=True, kw_only=True)
class Grade:
    """`score` is the expected grade by the judge's probabilities, `said` the digit; `key` is what it is a grade of."""

    key: str
    rubric: str
    score: float
    said: int


@dataclass(frozen=True, kw_only=True)
class AspectFigure:
    """Mean grade of a model's stories in one aspect; prompts and stories that it is made of."""

    model: str
    step: int
    aspect: str
    mean: float
    error: float | None
    prompts: int
    stories: int


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Who grades: an open model, its identity, and the rubric of each aspect."""

    model: LanguageModel
    identity: str
    rubrics: Mapping[str, Rubric]

    def key(self, story: Story, aspect: str) -> str:
        return fingerprint([story.prompt, story.completion, self.rubrics[aspect].version(), self.identity])


def read_stories(path: Path) -> list[Story]:
    """The JSON lines of `python -m trainer complete`. Raises InputError with the line of the first fault."""
    if not path.is_file():
        raise InputError("no such file", at=str(path), hint="`python -m trainer complete` writes one")
    stories = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            stories.append(
                Story(
                    prompt=str(row["prompt"]),
                    completion=str(row["completion"]),
                    model=str(row.get("model", path.stem)),
                    step=int(row.get("step", 0)),
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"line {number} is no story: it needs `prompt` and `completion`", at=str(path)) from error
    if not stories:
        raise InputError("there are no stories", at=str(path))
    return stories


def grade_stories(judge: Judge, stories: Sequence[Story], out: Path) -> tuple[list[AspectFigure], list[Failed]]:
    """Grade what has no grade in `out` (JSON lines), keeping every `AT_ONCE` of them; figures, and what failed."""
    known = {grade.key: grade for grade in read_grades(out)}
    failures: list[Failed] = []
    for aspect, rubric in judge.rubrics.items():
        waiting = {judge.key(story, aspect): story for story in stories}
        asked = [(key, story) for key, story in waiting.items() if key not in known]
        for start in range(0, len(asked), AT_ONCE):
            for key, answer in _ask(judge, rubric, asked[start : start + AT_ONCE]):
                if isinstance(answer.outcome, Rating):
                    rating = answer.outcome
                    known[key] = Grade(key=key, rubric=rubric.name, score=rating.score, said=rating.said)
                else:
                    failures.append(answer.outcome)
            write_atomically(out, "".join(json.dumps(asdict(grade)) + "\n" for grade in known.values()).encode())
    return list(_figures(judge, stories, known)), failures


def read_grades(path: Path) -> Iterator[Grade]:
    """Grades of earlier runs. Raises InputError for a file of something else."""
    for number, line in enumerate(path.read_text("utf-8").splitlines() if path.is_file() else (), 1):
        try:
            yield Grade(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise InputError(
                f"line {number} is no grade", at=str(path), hint="name another file with `--out`"
            ) from error


def _ask(judge: Judge, rubric: Rubric, batch: Sequence[tuple[str, Story]]) -> Iterator[tuple[str, Answer]]:
    questions = [
        Question(key=number, text=f"{story.prompt}{BETWEEN}{story.completion}")
        for number, (_, story) in enumerate(batch)
    ]
    for answer in rate_texts(judge.model, rubric, Sampling(), questions):
        yield batch[answer.key][0], answer


def _figures(judge: Judge, stories: Sequence[Story], known: Mapping[str, Grade]) -> Iterator[AspectFigure]:
    for model, step in sorted({(story.model, story.step) for story in stories}):
        own = [story for story in stories if (story.model, story.step) == (model, step)]
        for aspect in judge.rubrics:
            by_prompt: dict[str, list[float]] = defaultdict(list)
            for story in own:
                if grade := known.get(judge.key(story, aspect)):
                    by_prompt[story.prompt].append(grade.score)
            if by_prompt:
                yield _figure(model, step, aspect, by_prompt.values())


def _figure(model: str, step: int, aspect: str, by_prompt: Iterable[Sequence[float]]) -> AspectFigure:
    scores = list(by_prompt)
    means = [fmean(score) for score in scores]
    return AspectFigure(
        model=model,
        step=step,
        aspect=aspect,
        mean=fmean(means),
        error=stdev(means) / math.sqrt(len(means)) if len(means) > 1 else None,
        prompts=len(means),
        stories=sum(map(len, scores)),
    )
