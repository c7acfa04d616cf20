"""`gristmill train`: the trainer's own command line as one process, as several by torchrun, or as actors on Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from pipelines.jobs.trainer_process import end_with_parent
from storage.identity import fingerprint

STOP_SECONDS = 5.0


def train_here(words: Sequence[str], processes: int) -> None:
    """Run the trainer's command on this machine and end as it does: 0 done, 2 the user's to mend."""
    process = subprocess.Popen(
        launch_words(words, processes),
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,  # Ctrl-C reaches it through us
        preexec_fn=end_with_parent,
    )
    try:
        code = process.wait()
    except BaseException:
        end(process)
        raise
    if code:
        sys.exit(code)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, and with it what it started; politely first."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def launch_words(words: Sequence[str], processes: int) -> list[str]:
    """The command that starts the trainer by so many processes of this machine."""
    if processes == 1:
        return [sys.executable, "-m", "trainer", *words]
    torchrun = ["trainer.parallel.launch", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, "-m", *torchrun, "-m", "trainer", *words]


def train_on_ray(
    words: Sequence[str], out: Path, processes: int, *, ray_address: str | None, workers: int | None
) -> None:
    """Run it as a job of the cluster at `ray_address`, or of a Ray started here; its log comes here when it ends."""
    from pipelines.jobs.cluster import Cluster, connect, local_cluster
    from pipelines.jobs.submission import submission_id, submit_stage

    out.mkdir(parents=True, exist_ok=True)
    opened: AbstractContextManager[Cluster]
    opened = connect(ray_address, run_folder=out) if ray_address else local_cluster(workdir=out, cpus=workers)
    with opened as cluster:
        outcome = submit_stage(
            cluster,
            job="train_group",
            spec={"words": list(words), "processes": processes},
            run_folder=out,
            submission_id=submission_id(run=out.name, stage="train", identity=fingerprint(list(words))),
            cpus=max(1.0, cluster.cpus // processes),
            gpus=1.0 if cluster.gpus >= processes else 0.0,
        )
    restarts = outcome.result["restarts"]
    again = f", started {restarts} times again" if restarts else ""
    print(f"trained by {processes} processes on Ray{again}; log: {outcome.log}", flush=True)
