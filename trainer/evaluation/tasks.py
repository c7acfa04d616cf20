"""What a file given as a task holds: questions, programs to write, or pairs of chains; told by its columns."""

from __future__ import annotations

from pathlib import Path

from trainer.evaluation import chains, programs
from trainer.evaluation.chains import Chains
from trainer.evaluation.programs import Problems
from trainer.evaluation.questions import FORMATS, Benchmark, open_benchmark
from trainer.evaluation.rows import read_rows

Task = Benchmark | Problems | Chains


def open_task(named: str) -> Task:
    """The task in `FILE` or `FORMAT=FILE`. Raises InputError that says what is missing."""
    if named.partition("=")[0] in FORMATS:
        return open_benchmark(named)
    path = Path(named)
    rows = read_rows(path)
    if set(programs.COLUMNS) <= set(rows[0]):
        return programs.read_problems(path, rows)
    if set(chains.COLUMNS) <= set(rows[0]):
        return chains.read_chains(path, rows)
    return open_benchmark(named)
