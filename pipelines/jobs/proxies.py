"""The proxies job: small models, one for each source of a mixture and seed, trained on that source alone.

Each has the cores or the GPU of one part, so as many train at a time as the cluster takes. All see the same number of
tokens and are measured on all held-out texts of the mixture. A proxy that is finished is not trained again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mixtures.subset import write_subset
from pipelines.jobs.driver import PartTask, run_parts
from pipelines.jobs.job import Job
from pipelines.jobs.train import train_mixture
from pipelines.run_folder import RunFolder

EVALUATION_FILE = "evaluation.json"


def run(job: Job) -> dict[str, Any]:
    """Train; returns the bits per byte of every proxy on every held-out source."""
    home, mixture = Path(job.spec["home"]), RunFolder(job.run_folder).mixture(job.spec["mixture"])
    tasks = [
        PartTask(
            identity=f"{source} {seed}",
            arguments={
                "mixture": str(mixture),
                "source": source,
                "out": str(home / f"{source}-{seed}"),
                "preset": job.spec["preset"],
                "steps": job.spec["steps"],
                "options": {"seed": seed, "threads": max(1, int(job.cpus))},
            },
        )
        for source in job.spec["sources"]
        for seed in job.spec["seeds"]
    ]
    report = run_parts(job, tasks, train_proxy, total=len(tasks), stage="proxies")
    report.require_all()
    return {"identity": job.spec["identity"], "proxies": [result for result in report.results if result]}


def train_proxy(arguments: dict[str, Any]) -> dict[str, Any]:
    """Train and measure one; `bits_per_byte` by held-out source."""
    out = Path(arguments["out"])
    data = write_subset(Path(arguments["mixture"]), arguments["source"], out / "mixture")
    if not (out / EVALUATION_FILE).is_file():
        train_mixture({**arguments, "data": str(data)})
    evaluation = json.loads((out / EVALUATION_FILE).read_bytes())
    scores = {name: found["bits_per_byte"] for name, found in evaluation["sources"].items()}
    return {
        "documents": 0,
        "source": arguments["source"],
        "seed": arguments["options"]["seed"],
        "tokens": evaluation["tokens"],
        "bits_per_byte": scores,
    }
