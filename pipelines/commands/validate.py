"""`gristmill validate`: what models learn from each range of a score's buckets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixtures.wording import align_columns
from pipelines.commands.studies import show_study
from pipelines.request import saved_request
from pipelines.story import run_folder_at
from pipelines.validation import ValidationRequest, plan_validation, table_of


def validate_command(options: Mapping[str, Any]) -> None:
    """Find what is wrong before anything starts; then train, and show the table."""
    request = ValidationRequest(**options)
    folder = run_folder_at(Path(request.out))
    plan = plan_validation(request, saved_request(folder.root), folder)

    def carry_out() -> None:
        from pipelines.flows.validate import validate

        validate(**options)

    show_study(plan, carry_out, result_text)


def result_text(result: Mapping[str, Any]) -> str:
    """The table and how well the order of the ranges agrees with it."""
    rows = table_of(result)
    lines = align_columns([list(rows[0]), *(list(row.values()) for row in rows)], left=())
    lines.append("bits per byte on held-out text, less is better; `others`: the mean over the other ranges' texts")
    for name, found in result["rank_correlation"].items():
        lines.append(f"rank correlation of bucket and bits per byte, {name}: {found:+.2f} (-1: higher is better)")
    return "\n".join(lines)
