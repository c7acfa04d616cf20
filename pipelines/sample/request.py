"""A request without inputs becomes one for the sample: its files are prepared, and parts kept small, to be several."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipelines.named_inputs import named_inputs
from pipelines.request import ROOT, RunRequest
from pipelines.sample.prepare import Progress, prepare_samples

SAMPLE_FOLDER = ROOT / ".cache" / "samples"
PART_MEGABYTES = 1.0


def with_sample(request: RunRequest, progress: Progress | None = None, folder: Path = SAMPLE_FOLDER) -> RunRequest:
    """The request itself where it names inputs; else the same with the sample's files."""
    if named_inputs(request):
        return request
    paths = prepare_samples(folder, progress)
    return dataclasses.replace(
        request,
        inputs={
            "web": tuple(str(path) for path in paths.web),
            "encyclopedia": tuple(str(path) for path in paths.encyclopedia),
        },
        part_megabytes=request.part_megabytes or PART_MEGABYTES,
    )
