"""Multiple-choice questions from the files in which benchmarks are published, worded as lm-eval words them.

A format is recognised by its columns; where several fit, the file's name decides, or the user (`FORMAT=FILE`).
Invariant: a file becomes questions whole or not at all; what is missing is named with its row. Wordings are those of
lm-eval 0.4's tasks, so that accuracies can be compared; C-Eval's and CMMLU's opening sentence lacks the subject's
Chinese name, which their files do not hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from storage.errors import InputError
from trainer.evaluation.rows import Row, read_rows

LETTERS = ("A", "B", "C", "D")
TOLD_FAULTS = 5


@dataclass(frozen=True, kw_only=True)
class Question:
    """`choices[gold]` is right. A choice follows the prompt after `delimiter`."""

    prompt: str
    choices: tuple[str, ...]
    gold: int
    delimiter: str = " "
    subject: str = ""

    @property
    def solved(self) -> str:
        """The question with its answer, as an example."""
        return f"{self.prompt}{self.delimiter}{self.choices[self.gold]}"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The questions of one file; `opening` stands before the first example, once, with `{subject}` filled in."""

    name: str
    format: str
    questions: tuple[Question, ...]
    opening: str = ""

    def opening_of(self, question: Question) -> str:
        return self.opening.replace("{subject}", question.subject.replace("_", " "))


@dataclass(frozen=True, kw_only=True)
class Format:
    """`columns` must all be there (`a|b`: one of them); `read` raises KeyError, ValueError or TypeError for a row."""

    name: str
    columns: tuple[str, ...]
    read: Callable[[Row], Question]
    opening: str = ""

    def missing(self, columns: Sequence[str]) -> list[str]:
        return [needed for needed in self.columns if not set(needed.split("|")) & set(columns)]


def open_benchmark(named: str) -> Benchmark:
    """The benchmark in a file given as `FILE` or `FORMAT=FILE`. Raises InputError that says what is missing where."""
    asked, path = _split_name(named)
    rows = _with_labels(path, [_flatten(row) for row in read_rows(path)])
    format = _choose_format(path, list(rows[0]), asked)
    questions, faults = [], []
    for number, row in enumerate(rows, 1):
        try:
            questions.append(_checked(format.read(row)))
        except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
            faults.append(f"    row {number}: {_told(error)}")
    if faults:
        more = [f"    … and {len(faults) - TOLD_FAULTS} more"] if len(faults) > TOLD_FAULTS else []
        raise InputError(
            f"{len(faults)} of {len(rows)} rows are no questions of the format {format.name}:\n"
            + "\n".join([*faults[:TOLD_FAULTS], *more]),
            at=str(path),
            hint="take the split with answers, or give the right format: `--tasks FORMAT=FILE`",
        )
    named_subject = replace_subject(questions, path) if "{subject}" in format.opening else questions
    return Benchmark(
        name=benchmark_name(path), format=format.name, questions=tuple(named_subject), opening=format.opening
    )


def benchmark_name(path: Path) -> str:
    return path.name.partition(".")[0]


def replace_subject(questions: Sequence[Question], path: Path) -> list[Question]:
    """Questions without a subject get the file's name as theirs (`anatomy_test.csv`)."""
    subject = re.sub(r"_(test|val|dev|valid)$", "", benchmark_name(path))
    return [question if question.subject else replace(question, subject=subject) for question in questions]


def _split_name(named: str) -> tuple[str | None, Path]:
    asked, equals, rest = named.partition("=")
    if equals and asked in FORMATS:
        return asked, Path(rest)
    return None, Path(named)


def _choose_format(path: Path, columns: Sequence[str], asked: str | None) -> Format:
    if asked:
        missing = FORMATS[asked].missing(columns)
        if missing:
            raise InputError(f"the format {asked} needs {_list(missing)}; the file has {_list(columns)}", at=str(path))
        return FORMATS[asked]
    fitting = [format for format in FORMATS.values() if not format.missing(columns)]
    named = [format for format in fitting if format.name in path.name.lower().replace("_", "").replace("-", "")]
    if len(fitting) == 1 or len(named) == 1:
        return (named or fitting)[0]
    if fitting:
        names = ", ".join(format.name for format in fitting)
        raise InputError(
            f"these columns are those of {names}", at=str(path), hint=f"say which: `--tasks {fitting[0].name}={path}`"
        )
    closest = sorted(FORMATS.values(), key=lambda format: len(format.missing(columns)) / len(format.columns))[:3]
    told = "".join(f"\n    {format.name} lacks {_list(format.missing(columns))}" for format in closest)
    raise InputError(
        f"no known benchmark has the columns {_list(columns)}:{told}",
        at=str(path),
        hint="give `query`, `choices` and `gold`, or a file of one of " + ", ".join(FORMATS),
    )


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"`{name.replace('|', '` or `')}`" for name in names)


def _told(error: Exception) -> str:
    return f"`{error.args[0]}` is missing" if isinstance(error, KeyError) else str(error)


def _checked(question: Question) -> Question:
    if len(question.choices) < 2 or not all(isinstance(choice, str) and choice for choice in question.choices):
        raise ValueError(f"{len(question.choices)} choices; there must be two or more, none of them empty")
    if not 0 <= question.gold < len(question.choices):
        raise ValueError(f"the answer is number {question.gold} of {len(question.choices)} choices")
    return question


def _with_labels(path: Path, rows: list[Row]) -> list[Row]:
    """PIQA is published with its answers in a file beside it: `valid.jsonl` and `valid-labels.lst`."""
    labels = path.with_name(f"{benchmark_name(path)}-labels.lst")
    if "label" in rows[0] or not {"goal", "sol1", "sol2"} <= set(rows[0]) or not labels.is_file():
        return rows
    found = labels.read_text("utf-8").split()
    if len(found) != len(rows):
        raise InputError(f"{len(found)} labels for {len(rows)} rows", at=str(labels))
    return [{**row, "label": label} for row, label in zip(rows, found, strict=True)]


def _labelled_choices(choices: object) -> tuple[tuple[str, ...], list[str]]:
    """(texts, labels) of `{"text": […], "label": […]}` (Hugging Face) or `[{"text", "label"}, …]` (the authors)."""
    if isinstance(choices, dict):
        return tuple(choices["text"]), [str(label) for label in choices["label"]]
    if isinstance(choices, list):
        return tuple(row["text"] for row in choices), [str(row["label"]) for row in choices]
    raise ValueError("`choices` are no texts with labels")


def _place(answer: object, labels: Sequence[str]) -> int:
    """Where an answer's letter or digit stands among the labels."""
    wanted = str(answer).strip()
    if wanted not in labels:
        raise ValueError(f"the answer `{wanted}` is none of {', '.join(labels)}")
    return labels.index(wanted)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not str(value).strip().isdecimal():
        raise ValueError(f"the answer is {value!r}; it must be a number")
    return int(str(value))


def _flatten(row: Row) -> Row:
    """The AI2 authors' own files keep stem and choices inside `question`."""
    question = row.get("question")
    if not isinstance(question, dict):
        return row
    return {**{key: value for key, value in row.items() if key != "question"}, **question}


def _read_arc(row: Row) -> Question:
    stem = row["question"] if "question" in row else row["stem"]
    texts, labels = _labelled_choices(row["choices"])
    return Question(prompt=f"Question: {stem}\nAnswer:", choices=texts, gold=_place(row["answerKey"], labels))


def _read_openbook(row: Row) -> Question:
    texts, labels = _labelled_choices(row["choices"])
    stem = row["question_stem"] if "question_stem" in row else row["stem"]
    return Question(prompt=stem, choices=texts, gold=_place(row["answerKey"], labels))


def _read_piqa(row: Row) -> Question:
    return Question(
        prompt=f"Question: {row['goal']}\nAnswer:", choices=(row["sol1"], row["sol2"]), gold=_whole(row["label"])
    )


def _read_boolq(row: Row) -> Question:
    return Question(
        prompt=f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:",
        choices=("no", "yes"),
        gold=_truth(row["answer"] if "answer" in row else row["label"]),
    )


def _truth(answer: object) -> int:
    """1 for true, 0 for false; CSV files spell them."""
    said = str(answer).strip().lower()
    return int(said == "true") if said in ("true", "false") else _whole(answer)


def _read_hellaswag(row: Row) -> Question:
    context = f"{row['ctx_a']} {row['ctx_b'].capitalize()}"
    return Question(
        prompt=_without_brackets(f"{row['activity_label']}: {context}"),
        choices=tuple(_without_brackets(ending) for ending in row["endings"]),
        gold=_whole(row["label"]),
    )


def _without_brackets(text: str) -> str:
    """HellaSwag's WikiHow half has marks like `[title]` left in it."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _lettered(question: str, choices: Sequence[str], ask: str) -> str:
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True)]
    return "\n".join([question.strip(), *lines, ask])


def _read_mmlu(row: Row) -> Question:
    answer = str(row["answer"]).strip()
    return Question(
        prompt=_lettered(row["question"], row["choices"], "Answer:"),
        choices=LETTERS,
        gold=_place(answer, LETTERS) if answer in LETTERS else _whole(answer),
        subject=str(row.get("subject", "")),
    )


def _read_chinese(row: Row, question: str, answer: str) -> Question:
    choices = [str(row[letter]) for letter in LETTERS]
    return Question(
        prompt=_lettered(row[question], choices, "答案："), choices=LETTERS, gold=_place(row[answer], LETTERS)
    )


def _read_ceval(row: Row) -> Question:
    return _read_chinese(row, "question", "answer")


def _read_cmmlu(row: Row) -> Question:
    return _read_chinese(row, "Question", "Answer")


def _read_plain(row: Row) -> Question:
    """Prompts that others have worded; questions and passages are asked for an answer, other texts are continued."""
    query = str(row["query"]).rstrip()
    is_asked = query.startswith(("Question:", "Passage:")) and not query.endswith("Answer:")
    return Question(
        prompt=f"{query}\nAnswer:" if is_asked else query,
        choices=tuple(row["choices"]),
        gold=_whole(row["gold"]),
        subject=str(row.get("subject", "")),
    )


_ALL = (
    Format(name="arc", columns=("question|stem", "choices", "answerKey"), read=_read_arc),
    Format(name="openbookqa", columns=("question_stem|stem", "choices", "answerKey"), read=_read_openbook),
    Format(name="piqa", columns=("goal", "sol1", "sol2", "label"), read=_read_piqa),
    Format(name="boolq", columns=("question", "passage", "answer|label"), read=_read_boolq),
    Format(name="hellaswag", columns=("activity_label", "ctx_a", "ctx_b", "endings", "label"), read=_read_hellaswag),
    Format(
        name="mmlu",
        columns=("question", "choices", "answer"),
        read=_read_mmlu,
        opening="The following are multiple choice questions (with answers) about {subject}.\n\n",
    ),
    Format(
        name="ceval",
        columns=("question", *LETTERS, "answer"),
        read=_read_ceval,
        opening="以下是单项选择题，请选出其中的正确答案。\n\n",
    ),
    Format(
        name="cmmlu",
        columns=("Question", *LETTERS, "Answer"),
        read=_read_cmmlu,
        opening="以下是单项选择题，请直接给出正确答案的选项。\n\n",
    ),
    Format(name="plain", columns=("query", "choices", "gold"), read=_read_plain),
)
FORMATS = {format.name: format for format in _ALL}
