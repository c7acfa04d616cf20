"""The training job: the bundled trainer as a process of its own on the cores that Ray reserved, watched by its metrics.

The trainer meets the data side through files only; a job that is started again resumes from the last checkpoint.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.jobs.driver import PartTask, run_parts
from pipelines.jobs.job import Job
from pipelines.jobs.train_group import share_of_node, train_group
from pipelines.jobs.trainer_process import USER_ERROR, die_with_parent, user_error
from pipelines.run_folder import RunFolder
from storage.errors import GristmillError

POLL_SECONDS = 1.0
RATE_LEFT = 0.1


def run(job: Job) -> dict[str, Any]:
    """Train on a mixture and evaluate on its held-out sets."""
    folder = RunFolder(job.run_folder)
    checkpoints = folder.checkpoints(job.spec["identity"])
    arguments = {**job.spec, "data": str(folder.mixture(job.spec["mixture"])), "out": str(checkpoints)}
    if parent := job.spec.get("parent"):
        arguments["parent"] = str(folder.checkpoints(parent))
    finished = threading.Event()
    watcher = threading.Thread(
        target=_watch, args=(job, checkpoints, job.spec["expected_steps"], finished), daemon=True
    )
    watcher.start()
    try:
        if (processes := job.spec.get("processes", 1)) > 1:
            train_group(job, trainer_words(arguments), processes, cpus=share_of_node(job, processes))
        else:
            task = PartTask(identity=job.spec["identity"], arguments=arguments)
            run_parts(job, [task], train_mixture, total=1, stage="train", retries=1).require_all()
    finally:
        finished.set()
        watcher.join()
    evaluation = json.loads((checkpoints / "evaluation.json").read_bytes())
    return {"identity": job.spec["identity"], "checkpoints": checkpoints.name, **evaluation}


def train_mixture(arguments: dict[str, Any]) -> dict[str, Any]:
    """Run `python -m trainer train`, or `anneal` for a stage that goes on; its output goes to the job's log."""
    command = [sys.executable, "-m", "trainer", *trainer_words(arguments)]
    process = subprocess.Popen(
        command,
        stdout=sys.stdout.fileno() if hasattr(sys.stdout, "fileno") else None,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    _, errors = process.communicate()
    sys.stderr.write(errors)
    if process.returncode == USER_ERROR:
        raise user_error(errors)
    if process.returncode:
        raise GristmillError(f"the trainer ended with exit code {process.returncode}", at=errors.strip()[-2000:])
    return {"documents": 0}


def trainer_words(arguments: Mapping[str, Any]) -> list[str]:
    """The command of the trainer and its options: `options` are by name, `parent` is the run that it goes on from."""
    options = dict(arguments.get("options", {}))
    if parent := arguments.get("parent"):
        words = ["anneal", "--from", parent]
        if not {"schedule-of", "learning-rate"} & set(options):
            options |= _rate_after_zero(Path(parent))
    else:
        words = ["train", "--preset", arguments["preset"]]
    words += ["--data", arguments["data"], "--out", arguments["out"]]
    if arguments.get("steps"):
        words += ["--steps", str(arguments["steps"])]
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    return words


def _rate_after_zero(parent: Path) -> dict[str, float]:
    """Where the stage before fell to zero, the rate that OLMo's stages leave: a tenth of the highest."""
    rows = [json.loads(path.read_bytes()) for path in (parent / "registry").glob("iter_*.json")]
    last = max(rows, key=lambda row: int(row["step"]), default=None)
    if last is None or last["lr"] > 0:
        return {}
    highest = float(json.loads((parent / "run.json").read_bytes())["training"]["learning_rate"])
    print(f"the stage before stopped at a learning rate of 0: going on from {RATE_LEFT:g} of its highest", flush=True)
    return {"learning-rate": RATE_LEFT * highest}


def _watch(job: Job, checkpoints: Path, steps: int | None, finished: threading.Event) -> None:
    """Report the last step in the metrics file as progress."""
    while not finished.wait(POLL_SECONDS):
        try:
            with open(checkpoints / "metrics.jsonl", "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 2000))
                last = json.loads(file.read().splitlines()[-1])
        except (OSError, ValueError, IndexError):
            continue
        job.note(done=last["step"], total=steps or last["step"], documents=0, bytes=0)
