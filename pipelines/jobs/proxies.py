"""The proxies job: small models, each trained on the sources of one mixture in shares of its own.

Each has the cores or the GPU of one part, so as many train at a time as the cluster takes. All see the same number of
tokens and are measured on all held-out texts of the mixture. A proxy that is finished is not trained again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mixtures.variant import write_variant
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
            identity=f"{proxy['name']} {proxy['seed']}",
            arguments={
                "mixture": str(mixture),
                "proxy": proxy,
                "out": str(home / f"{proxy['name']}-{proxy['seed']}"),
                "preset": job.spec["preset"],
                "steps": job.spec["steps"],
                "options": {"seed": proxy["seed"], "threads": max(1, int(job.cpus))},
            },
        )
        for proxy in job.spec["proxies"]
    ]
    report = run_parts(job, tasks, train_proxy, total=len(tasks), stage="proxies")
    report.require_all()
    return {"identity": job.spec["identity"], "proxies": [result for result in report.results if result]}


def train_proxy(arguments: dict[str, Any]) -> dict[str, Any]:
    """Train and measure one; `bits_per_byte` by held-out source."""
    out = Path(arguments["out"])
    proxy = arguments["proxy"]
    data = write_variant(Path(arguments["mixture"]), proxy["weights"], out / "mixture")
    if not (out / EVALUATION_FILE).is_file():
        train_mixture({**arguments, "data": str(data)})
    evaluation = json.loads((out / EVALUATION_FILE).read_bytes())
    scores = {name: found["bits_per_byte"] for name, found in evaluation["sources"].items()}
    return {"documents": 0, **proxy, "tokens": evaluation["tokens"], "bits_per_byte": scores}
