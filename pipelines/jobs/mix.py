"""The mixture jobs: `plan` works a recipe out over the stored token counts, `mix` writes its indices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mixtures.corpus import Corpus, open_corpus
from mixtures.held_back import held_back_lines
from mixtures.plan import MixturePlan, plan_stages
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


def planned(root: Path, recipe: str, policy: str, tokenizer: str) -> tuple[tuple[MixturePlan, ...], Corpus]:
    """The plans of a recipe's stages over a run's datasets."""
    folder = RunFolder(root)
    corpus = open_corpus(folder.catalogue, folder.decisions(policy), folder.tokens(tokenizer))
    return plan_stages(load_recipe(recipe), corpus), corpus


def work_out(arguments: dict[str, Any]) -> dict[str, Any]:
    plans, _ = planned(Path(arguments["root"]), arguments["recipe"], arguments["policy"], arguments["tokenizer"])
    return describe_plans(plans)


def describe_plans(plans: Sequence[MixturePlan]) -> dict[str, Any]:
    """The plans as small JSON: table rows, text for the terminal, totals over all stages."""
    return {
        "mixture": plans[0].identity(),
        "rows": [row for plan in plans for row in _table(plan)],
        "text": "\n\n".join(plan_text(plan) for plan in plans),
        "warnings": [warning for plan in plans for warning in plan.warnings],
        "tokens": sum(plan.tokens_given for plan in plans),
        "totals": {
            "asked": sum(plan.tokens_asked for plan in plans),
            "given": sum(plan.tokens_given for plan in plans),
            "worth": round(sum(plan.tokens_effective for plan in plans)),
        },
    }


def _table(plan: MixturePlan) -> list[dict[str, str]]:
    header, *body = plan.rows()
    stage = {"stage": plan.stage} if plan.stage else {}
    return [{**stage, **dict(zip(header, row, strict=True))} for row in body]


def plan_text(plan: MixturePlan) -> str:
    """The plan as aligned tables of plain text, notes and warnings below them; of a stage its name above them."""
    lines = align_columns(plan.rows(), left=(0, -1))
    notes = [f"note: {note}" for note in plan.notes]
    warnings = [f"warning: {warning}" for warning in plan.warnings]
    return "\n".join([*_heading(plan), *lines, *held_back_lines(plan.held_back), *notes, *warnings])


def _heading(plan: MixturePlan) -> list[str]:
    if plan.stage is None:
        return []
    after = f" after `{plan.after}`" if plan.after else ""
    rate = f", learning rate: {plan.learning_rate}" if plan.learning_rate else ""
    return [f"stage `{plan.stage}`{after}, sequences of {plan.sequence_length:,} tokens{rate}"]


def write_selection(arguments: dict[str, Any]) -> dict[str, Any]:
    """Write a mixture folder a stage; the first one's is the run's."""
    root = Path(arguments["root"])
    folder, recipe = RunFolder(root), load_recipe(arguments["recipe"])
    plans, corpus = planned(root, arguments["recipe"], arguments["policy"], arguments["tokenizer"])
    vocabulary = folder.vocabulary(arguments["tokenizer"])
    for plan in plans:
        write_mixture(folder.mixture(plan.identity()), plan, recipe, corpus, vocabulary=vocabulary)
    first = plans[0]
    written = {"mixture": first.identity(), "tokens": first.tokens_given, "sequence_length": first.sequence_length}
    return written | {"stages": [_stage(plan) for plan in plans]} if first.stage else written


def _stage(plan: MixturePlan) -> dict[str, Any]:
    return {"stage": plan.stage, "after": plan.after, "mixture": plan.identity(), "tokens": plan.tokens_given}
