"""The mixture jobs: `plan` works a recipe out over the stored token counts, `mix` writes its indices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mixtures.corpus import Corpus, open_corpus
from mixtures.plan import MixturePlan, plan_mixture
from mixtures.recipe import load_recipe
from mixtures.select import write_mixture
from mixtures.wording import align_columns
from pipelines.jobs.driver import PartTask, run_parts
from pipelines.jobs.job import Job
from pipelines.run_folder import RunFolder


def run(job: Job) -> dict[str, Any]:
    """Plan, or plan and write: `job.spec["write"]` says which."""
    function = write_selection if job.spec["write"] else work_out
    arguments = {"root": str(job.run_folder), **job.spec}
    report = run_parts(
        job, [PartTask(identity=job.spec["identity"], arguments=arguments)], function, total=1, stage="mix"
    )
    report.require_all()
    (result,) = report.results
    assert result is not None
    return result


def planned(root: Path, recipe: str, policy: str, tokenizer: str) -> tuple[MixturePlan, Corpus]:
    """The plan of a recipe over a run's datasets."""
    folder = RunFolder(root)
    corpus = open_corpus(folder.catalogue, folder.decisions(policy), folder.tokens(tokenizer))
    return plan_mixture(load_recipe(recipe), corpus), corpus


def work_out(arguments: dict[str, Any]) -> dict[str, Any]:
    plan, _ = planned(Path(arguments["root"]), arguments["recipe"], arguments["policy"], arguments["tokenizer"])
    return describe_plan(plan)


def describe_plan(plan: MixturePlan) -> dict[str, Any]:
    """The plan as small JSON: table rows, text for the terminal, totals."""
    header, *body = plan.rows()
    return {
        "mixture": plan.identity(),
        "rows": [dict(zip(header, row, strict=True)) for row in body],
        "text": plan_text(plan),
        "warnings": list(plan.warnings),
        "tokens": plan.tokens_given,
        "totals": {"asked": plan.tokens_asked, "given": plan.tokens_given, "worth": round(plan.tokens_effective)},
    }


def plan_text(plan: MixturePlan) -> str:
    """The plan as an aligned table of plain text, notes and warnings below it."""
    lines = align_columns(plan.rows(), left=(0, -1))
    notes = [f"note: {note}" for note in plan.notes]
    return "\n".join([*lines, *notes, *(f"warning: {warning}" for warning in plan.warnings)])


def write_selection(arguments: dict[str, Any]) -> dict[str, Any]:
    root = Path(arguments["root"])
    folder = RunFolder(root)
    plan, corpus = planned(root, arguments["recipe"], arguments["policy"], arguments["tokenizer"])
    target = folder.mixture(plan.identity())
    write_mixture(
        target, plan, load_recipe(arguments["recipe"]), corpus, vocabulary=folder.vocabulary(arguments["tokenizer"])
    )
    return {"mixture": plan.identity(), "tokens": plan.tokens_given, "sequence_length": plan.sequence_length}
