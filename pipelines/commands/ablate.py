"""`gristmill ablate`: what the same small model learns from several recipes or policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mixtures.wording import align_columns
from pipelines.ablation import AblationRequest, plan_ablation
from pipelines.commands.studies import show_study
from pipelines.comparison import arm_table, average_tables, sentences_of, table_of
from pipelines.request import saved_request
from pipelines.story import run_folder_at
from storage.errors import InputError


def ablate_command(options: Mapping[str, Any]) -> None:
    """Find what is wrong before anything starts; then train, and show the tables."""
    asked = {**options, "measure_on": read_texts(options["measure_on"])}
    request = AblationRequest(**asked)
    folder = run_folder_at(Path(request.out))
    plan = plan_ablation(request, saved_request(folder.root), folder)

    def carry_out() -> None:
        from pipelines.flows.ablate import ablate

        ablate(**{**asked, "arms": list(request.arms)})

    show_study(plan, carry_out, result_text)


def read_texts(given: Sequence[str]) -> dict[str, str]:
    """`NAME=SQL` of each. Raises InputError where one is not, or where a name stands twice."""
    texts: dict[str, str] = {}
    for item in given:
        name, equals, where = item.partition("=")
        if not (equals and name.isidentifier() and where.strip()) or name in texts:
            hint = "e.g. `--measure-on \"wiki=source = 'encyclopedia'\"`"
            raise InputError(f"`--measure-on {item}` is not NAME=SQL with a name of its own", hint=hint)
        texts[name] = where.strip()
    return texts


def result_text(result: Mapping[str, Any]) -> str:
    """The tables, and each experiment against the first."""
    tables = [table_of(result), *average_tables(result).values(), arm_table(result)]
    told = [
        "\n".join(align_columns([list(rows[0]), *(list(row.values()) for row in rows)], left=(0,))) for rows in tables
    ]
    note = "bits per byte on held-out text, less is better; 95 % intervals over seeds"
    return "\n\n".join([told[0] + f"\n{note}", *told[1:], "\n".join(sentences_of(result))])
