"""What evaluations found, one JSON a checkpoint under `RUN/evaluation/`, for the registry, the report and DuckDB.

Invariant: a second evaluation of the same checkpoint adds its results to the first one's and replaces those of the same
name, so that one file holds all that is known of a step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from storage.commit import write_atomically
from storage.errors import DatasetError
from trainer.checkpoints.folders import checkpoint_folder
from trainer.checkpoints.trained import Trained

RESULTS_FOLDER = "evaluation"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Result:
    """One measurement: `kind` is how it was made (multiple_choice, texts, …), `figures` its dataclass."""

    name: str
    kind: str
    figures: Any

    @property
    def row(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self.figures)}


def results_file(trained: Trained) -> Path:
    """`RUN/evaluation/iter_0000300.json`."""
    return trained.folder / RESULTS_FOLDER / f"{checkpoint_folder(trained.folder, trained.step).name}.json"


def add_results(trained: Trained, results: Sequence[Result]) -> Path:
    """Lay the results over what the checkpoint's file holds."""
    path = results_file(trained)
    before = read_results(path) if path.is_file() else {}
    row = {
        "format_version": FORMAT_VERSION,
        "step": trained.step,
        "tokens": trained.tokens,
        "results": {**before, **{result.name: result.row for result in results}},
    }
    write_atomically(path, (json.dumps(row, indent=2, ensure_ascii=False) + "\n").encode())
    return path


def read_results(path: Path) -> dict[str, Any]:
    """Results by name. Raises DatasetError for a file of another form."""
    try:
        row = json.loads(path.read_bytes())
        if row["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format_version {row['format_version']}; only {FORMAT_VERSION} is known")
        return dict(row["results"])
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"not an evaluation: {error}", at=str(path), hint=f"remove {path}") from error


def table_lines(results: Sequence[Result]) -> list[str]:
    """A line a result: its name and the figures that are numbers, with errors behind a ±."""
    width = max(map(len, [result.name for result in results]), default=0)
    return [f"{result.name:{width}}  {_told(result.row)}" for result in results]


def _told(row: Mapping[str, Any]) -> str:
    shown = []
    for name, value in row.items():
        if isinstance(value, bool | str | dict | list) or value is None or name.endswith("_error"):
            continue
        error = row.get(f"{name}_error")
        number = f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
        shown.append(f"{name} {number}" + (f" ± {error:.4f}" if error is not None else ""))
    return "  ".join(shown)
