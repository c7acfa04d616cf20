"""The training flow: a mixture in, checkpoints, an evaluation and the report out."""

from __future__ import annotations

from prefect import flow

from pipelines.flows.parameters import continued_request
from pipelines.flows.session import Session, session
from pipelines.flows.tasks import do
from pipelines.run_folder import require_step
from pipelines.training_stages import training_stages


@flow(name="train", validate_parameters=False)
def train(
    out: str = "runs/default",
    preset: str | None = None,
    train_steps: int | None = None,
    train_processes: int | None = None,
    ray_address: str | None = None,
    workers: int | None = None,
) -> str:
    """Train on the run's mixture, evaluate on its held-out sets, write the report; returns the report's path."""
    told = {"preset": preset, "train_steps": train_steps, "train_processes": train_processes}
    request = continued_request(out, **told, ray_address=ray_address, workers=workers)
    with session(request) as run:
        train_run(run)
        return str(run.folder.report)


def train_run(run: Session) -> None:
    """Every stage after the one that it goes on from, then the report."""
    for stage in training_stages(require_step(run.folder, "mix").result):
        do(run, stage.step)
    do(run, "report")
