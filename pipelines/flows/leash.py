"""A leash on Prefect's temporary server, which may not outlive the flow that started it, however that ends.

Prefect stops it when the process exits. Killed without warning a process cannot, and 200 MB of server would stay for
each kill. So a process of 10 MB beside it reads a pipe that closes with the flow, and then ends the server.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

from pipelines.jobs.host import flow_is_there

SERVER = b"prefect.server.api.server"
_ROOT = Path(__file__).resolve().parents[2]
_leashes: list[subprocess.Popen[bytes]] = []


def leash_temporary_servers() -> None:
    """From now on, every temporary server that Prefect starts in this process ends with it. Can be called again."""
    from prefect.server.api.server import SubprocessASGIServer

    start = SubprocessASGIServer._run_uvicorn_command
    if hasattr(start, "__wrapped__"):
        return

    @functools.wraps(start)
    def start_leashed(server: SubprocessASGIServer) -> subprocess.Popen[bytes]:
        process = start(server)
        _leashes.append(_leash(process.pid))
        return process

    SubprocessASGIServer._run_uvicorn_command = start_leashed  # type: ignore[method-assign, assignment]


def _leash(pid: int) -> subprocess.Popen[bytes]:
    """In a session of its own, so that what ends the flow's group does not end the leash before the server."""
    command = [sys.executable, "-m", "pipelines.flows.leash", str(pid)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, cwd=_ROOT, start_new_session=True)


def main(pid: int) -> None:
    """Wait until the flow is gone, then end the server if it is still there."""
    parent = os.getppid()
    while flow_is_there(parent):
        pass
    if _is_server(pid):
        os.kill(pid, signal.SIGTERM)


def _is_server(pid: int) -> bool:
    """Whether that process is still a Prefect server: its number may have gone to another. Linux only."""
    try:
        return SERVER in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


if __name__ == "__main__":
    main(int(sys.argv[1]))
