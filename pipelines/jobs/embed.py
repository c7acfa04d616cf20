"""The embedding job: a vector for every document that passes the policy's gate, on GPUs where there are any.

Vectors are an attribute, so labels, heads and thresholds change without encoding again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.jobs.gated import GatedStage, measure_gated, run_gated
from pipelines.jobs.job import Job
from pipelines.run_folder import RunFolder
from pipelines.search import encoder_stage

COLUMN = "embedding"
ROWS_AT_A_TIME = 256


def run(job: Job) -> dict[str, Any]:
    """Embed the admitted rows of every part; publish `attributes/embeddings`."""
    encoder = job.spec["encoder"]
    (embedded,) = run_gated(job, [_gated(job.run_folder, encoder)], embed_part, {"encoder": encoder})
    return embedded


def embed_part(arguments: dict[str, Any]) -> dict[str, Any]:
    """Embed one documents part."""
    return measure_gated([_gated(Path(arguments["root"]), arguments["encoder"])], arguments)


def _gated(root: Path, encoder: str | None) -> GatedStage:
    stage = encoder_stage(encoder)
    return GatedStage(stage=stage, column=COLUMN, folder=RunFolder(root).embeddings, rows=ROWS_AT_A_TIME)
