"""The proxies job: small models, each trained on the sources of a mixture in shares of its own.

Each has the cores or the GPU of one part, so as many train at a time as the cluster takes. All see the same number of
tokens and are measured on all held-out texts of the job's mixture, also those that train on another one or by a preset
of their own. A proxy that is finished is not trained again.
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
    tasks = [_task(job, proxy) for proxy in job.spec["proxies"]]
    report = run_parts(job, tasks, train_proxy, total=len(tasks), stage="proxies")
    report.require_all()
    return {"identity": job.spec["identity"], "proxies": [result for result in report.results if result]}


def _task(job: Job, proxy: dict[str, Any]) -> PartTask:
    folder = RunFolder(job.run_folder)
    measured = folder.mixture(job.spec["mixture"])
    own = folder.mixture(proxy["mixture"]) if proxy.get("mixture") else measured
    place = Path(job.spec["home"]) / f"{proxy['name']}-{proxy['seed']}"
    if "folder" in proxy:
        place = folder.root / proxy["folder"]
    return PartTask(
        identity=f"{proxy['name']} {proxy['seed']}",
        arguments={
            "mixture": str(own),
            "heldout": None if own == measured else str(measured),
            "proxy": proxy,
            "out": str(place),
            "preset": proxy.get("preset", job.spec["preset"]),
            "steps": proxy.get("steps", job.spec["steps"]),
            "options": {"seed": proxy["seed"], "threads": max(1, int(job.cpus))},
        },
    )


def train_proxy(arguments: dict[str, Any]) -> dict[str, Any]:
    """Train and measure one; `bits_per_byte` by held-out source, `parameters` with the embeddings."""
    out = Path(arguments["out"])
    proxy = arguments["proxy"]
    heldout = Path(arguments["heldout"]) if arguments["heldout"] else None
    data = write_variant(Path(arguments["mixture"]), proxy.get("weights"), out / "mixture", heldout=heldout)
    if not (out / EVALUATION_FILE).is_file():
        train_mixture({**arguments, "data": str(data)})
    evaluation = json.loads((out / EVALUATION_FILE).read_bytes())
    scores = {name: found["bits_per_byte"] for name, found in evaluation["sources"].items()}
    told = {name: evaluation[name] for name in ("tokens", "parameters")}
    return {"documents": 0, **proxy, **told, "bits_per_byte": scores}
