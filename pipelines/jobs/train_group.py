"""One training run by several processes on a Ray cluster: an actor each, wherever the cluster has room for it.

The processes are those that torchrun would start (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), and run the same
`python -m trainer`. When one of them is lost, with its node or alone, the others are stopped and all start again from
the last checkpoint: a process cannot go on without the sums of the others.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from pipelines.jobs.job import Job, JobFailed
from pipelines.jobs.trainer_process import USER_ERROR, die_with_parent, user_error
from storage.errors import ResourceError

RESTARTS = 3
PLACE_SECONDS = 120.0
KEPT_LINES = 60


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How one process ended: its exit code, and the last lines that it wrote to stderr."""

    code: int
    errors: str


def run(job: Job) -> dict[str, Any]:
    """The job of `gristmill train --ray`: `words` of the trainer's command, by `processes`."""
    restarts = train_group(job, job.spec["words"], job.spec["processes"])
    return {"restarts": restarts}


def share_of_node(job: Job, processes: int) -> float:
    """CPUs of each process where `job.cpus` are those of a whole node, and all nodes take as many processes."""
    nodes = sum(bool(node["Alive"]) for node in ray.nodes()) or 1
    return max(1.0, job.cpus // -(-processes // nodes))


def train_group(job: Job, words: Sequence[str], processes: int, *, cpus: float | None = None) -> int:
    """Run the trainer's command by `processes` processes until all of them end well; returns how often all restarted.

    `cpus` are those of each (default: the job's).

    Raises the CurationError that the trainer refused its input with, ResourceError where the cluster has no room for
    all of them, JobFailed when they were lost RESTARTS times.
    """
    for restarts in range(RESTARTS + 1):
        lost = _attempt(words, processes, cpus or job.cpus, job.gpus)
        if lost is None:
            return restarts
        print(f"a process of the training was lost ({lost}); all start again from the last checkpoint", flush=True)
    raise JobFailed(f"the training was lost {RESTARTS + 1} times", at=str(lost))


def _attempt(words: Sequence[str], processes: int, cpus: float, gpus: float) -> str | None:
    """Start all processes and wait for them: None when all ended well, else what became of the first that did not."""
    bundles = [{"CPU": cpus, **({"GPU": gpus} if gpus else {})} for _ in range(processes)]
    group = placement_group(bundles, strategy="PACK")
    try:
        ready, _ = ray.wait([group.ready()], timeout=PLACE_SECONDS)
        if not ready:
            raise ResourceError(
                f"the cluster has no room for {processes} processes of {cpus:g} CPUs and {gpus:g} GPUs each",
                hint="give fewer `--processes`, or connect to a larger cluster with `--ray-address`",
            )
        return _follow(_start(group, words, processes, cpus, gpus))
    finally:
        remove_placement_group(group)


def _start(group: Any, words: Sequence[str], processes: int, cpus: float, gpus: float) -> list[Any]:
    kind = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)(TrainerProcess)
    actors = [
        kind.options(
            scheduling_strategy=PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=i)
        ).remote()
        for i in range(processes)
    ]
    address, port = ray.get(actors[0].rendezvous.remote())
    threads = max(1, int(cpus))
    return [actor.train.remote(list(words), i, processes, address, port, threads) for i, actor in enumerate(actors)]


def _follow(running: list[Any]) -> str | None:
    """Wait for all; the first that ends badly ends the waiting. Raises what the trainer refused its input with."""
    while running:
        done, running = ray.wait(running, num_returns=1)
        try:
            ended: Ended = ray.get(done[0])
        except RayError as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0]}"
        if ended.code == USER_ERROR:
            raise user_error(ended.errors)
        if ended.code:
            return f"exit code {ended.code}: {ended.errors.strip()[-500:]}"
    return None


class TrainerProcess:
    """An actor's body: one process of the trainer, which dies with it."""

    def rendezvous(self) -> tuple[str, int]:
        """This node's address, and a port that is free on it now."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def train(self, words: list[str], rank: int, size: int, address: str, port: int, threads: int) -> Ended:
        """Run the command as process `rank` of `size`; Ray shows an actor its own GPU only, so that is number 0."""
        place = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": 0, "MASTER_ADDR": address, "MASTER_PORT": port}
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(threads)}
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer", *words],
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,
            env={**environment, **{name: str(value) for name, value in place.items()}},
        )
        last = deque[str](maxlen=KEPT_LINES)
        assert process.stderr is not None
        for line in process.stderr:
            sys.stderr.write(line)
            last.append(line)
        return Ended(code=process.wait(), errors="".join(last))
