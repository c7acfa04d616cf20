"""A session: one run folder and, from the first step that needs it, one Ray cluster that all flows inside share.

A flow called inside another joins its session, so the whole path starts Ray once; a path whose steps are all done
starts none.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from prefect import get_run_logger

from pipelines.disk import explain_full_disk
from pipelines.environment import prepare_environment
from pipelines.flows.leash import leash_temporary_servers
from pipelines.jobs.cluster import Cluster, connect, local_cluster
from pipelines.progress import LogObserver, observe, observer
from pipelines.request import REQUEST_FILE, RunRequest
from pipelines.run_folder import RunFolder
from storage.commit import write_atomically
from storage.stage import package_versions

leash_temporary_servers()  # Prefect starts one before the first flow's own code runs

VERSIONED = ("ray", "prefect", "duckdb", "pyarrow", "numpy", "numba", "torch", "transformers", "tokenizers")


@dataclass
class Session:
    """A run in progress."""

    request: RunRequest
    folder: RunFolder
    _stack: ExitStack = field(default_factory=ExitStack)
    _cluster: Cluster | None = None

    def cluster(self) -> Cluster:
        """The cluster of the request's address, or one started here, opened at the first call."""
        if self._cluster is None:
            if self.request.ray_address:
                opened = connect(self.request.ray_address, run_folder=self.folder.root)
            else:
                opened = local_cluster(workdir=self.folder.root, cpus=self.request.workers)
            self._cluster = self._stack.enter_context(opened)
            if self._cluster.dashboard_url:
                observer().said(f"Ray dashboard: {self._cluster.dashboard_url}{_token_note(self._cluster)}")
        return self._cluster


def _token_note(cluster: Cluster) -> str:
    """Where the token lies that the embedded dashboard asks a browser for."""
    return f" (its token: {cluster.embedded_ray.token_path})" if cluster.embedded_ray else ""


_sessions: list[Session] = []


@contextmanager
def session(request: RunRequest) -> Iterator[Session]:
    """Join the session that is open, or open one for `request`."""
    if _sessions and _sessions[-1].folder.root == request.root:
        yield _sessions[-1]
        return
    prepare_environment()
    if isinstance(observer(), LogObserver):  # nobody watches a terminal: the flow run's own log is where to look
        observe(LogObserver(get_run_logger()))
    opened = Session(request, RunFolder(request.root))
    _sessions.append(opened)
    try:
        with explain_full_disk(request), opened._stack:
            save_request(opened)
            yield opened
    finally:
        _sessions.pop()


def save_request(run: Session) -> None:
    """Write `run.json`: the request, when and by what it was run; none of it is part of an identity."""
    values = {
        "format_version": 1,
        "request": run.request.to_json(),
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": sys.version.split()[0],
        "packages": package_versions(VERSIONED),
    }
    write_atomically(run.folder.root / REQUEST_FILE, (json.dumps(values, indent=1) + "\n").encode())
