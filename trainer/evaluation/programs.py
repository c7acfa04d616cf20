"""pass@k: whether programs that a model wrote do what their tests ask, in the manner of HumanEval (2107.03374).

For each problem n texts are drawn, c of them pass; pass@k is estimated without bias as 1 − C(n−c, k) / C(n, k), with
the standard error of its mean over the problems. A text ends where a function ends: at the next line that begins a
class, function, comment, condition or print at the margin, as in the paper.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from storage.errors import InputError
from trainer.evaluation.questions import benchmark_name
from trainer.evaluation.rows import Row
from trainer.evaluation.sandbox import Outcome, SandboxLimits, run_programs

COLUMNS = ("prompt", "test", "entry_point")
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")

Write = Callable[[Sequence[str], int], list[str]]
"""(prompts, number of the draw) to one continuation a prompt."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """The beginning of a function, and a `test` that defines `check(function)`."""

    prompt: str
    test: str
    entry_point: str

    def program(self, completion: str) -> str:
        return f"{self.prompt}{completion}\n{self.test}\ncheck({self.entry_point})\n"


@dataclass(frozen=True, kw_only=True)
class Problems:
    name: str
    problems: tuple[Problem, ...]


@dataclass(frozen=True, kw_only=True)
class Passes:
    """pass@k by k and their standard errors; of `samples` texts a problem."""

    pass_at: dict[str, float]
    pass_at_errors: dict[str, float | None]
    problems: int
    samples: int
    failures: dict[str, int]
    """How often texts failed, by the kind of reason."""


def read_problems(path: Path, rows: Sequence[Row]) -> Problems:
    """The problems in a table that has COLUMNS. Raises InputError for a row without them."""
    for number, row in enumerate(rows, 1):
        if not all(isinstance(row.get(name), str) for name in COLUMNS):
            raise InputError(f"row {number} is no problem: it needs {', '.join(COLUMNS)}", at=str(path))
    problems = tuple(Problem(**{name: row[name] for name in COLUMNS}) for row in rows)
    return Problems(name=benchmark_name(path), problems=problems)


def measure_passes(
    problems: Problems,
    write: Write,
    *,
    samples: int,
    ks: Sequence[int],
    limits: SandboxLimits,
    limit: int | None = None,
) -> Passes:
    """Draw, run and count. Raises InputError for a k above the number of samples."""
    if not ks or not 1 <= min(ks) <= max(ks) <= samples:
        raise InputError(
            f"pass@{max(ks, default=0)} needs as many samples, {samples} are drawn", hint="raise `--samples`"
        )
    chosen = problems.problems[:limit]
    outcomes = run_programs(
        [
            problem.program(cut(text))
            for number in range(samples)
            for problem, text in zip(chosen, write([it.prompt for it in chosen], number), strict=True)
        ],
        limits,
    )
    passed = np.array([outcome.passed for outcome in outcomes]).reshape(samples, len(chosen)).sum(axis=0)
    shares = {k: [estimate_pass_at(samples, int(count), k) for count in passed] for k in ks}
    return Passes(
        pass_at={str(k): float(np.mean(share)) for k, share in shares.items()},
        pass_at_errors={str(k): _error(share) for k, share in shares.items()},
        problems=len(chosen),
        samples=samples,
        failures=count_reasons(outcomes),
    )


def cut(text: str) -> str:
    """The text up to the first of STOPS."""
    return text[: min((place for stop in STOPS if (place := text.find(stop)) >= 0), default=len(text))]


def estimate_pass_at(samples: int, passed: int, k: int) -> float:
    """1 − C(n−c, k) / C(n, k)."""
    return 1.0 - math.comb(samples - passed, k) / math.comb(samples, k)


def _error(shares: Sequence[float]) -> float | None:
    return float(np.std(shares, ddof=1) / math.sqrt(len(shares))) if len(shares) > 1 else None


def count_reasons(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Failures by what stands before the colon, the most frequent first."""
    kinds = Counter(outcome.reason.partition(":")[0] for outcome in outcomes if not outcome.passed)
    return dict(kinds.most_common())
