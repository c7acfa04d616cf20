"""The process that holds an embedded Ray: starts it, waits for the flow to go, and leaves nothing behind.

Ray may never outlive its flow, however that ends. The host reads its standard input, which closes when the flow dies
(kill -9 too), and watches its parent, in case a forked child of the flow still holds the other end. On Linux every
process of Ray is then killed and reaped in 0.2 s, where Ray's own shutdown drains for up to 30. Should the host itself
be killed, the kernel kills Ray with it (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

POLL_SECONDS = 0.5
GRACE_SECONDS = 10
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main(scratch: Path, command: list[str]) -> int:
    """Run `command` until it ends or the flow does; then remove `scratch`, Ray's own folder."""
    parent = os.getppid()
    _linux_prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphans of Ray become children of this process, which can end them
    ray = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_host)
    try:
        while ray.poll() is None and flow_is_there(parent):
            pass
        return ray.poll() or 0
    finally:
        _end(ray)
        shutil.rmtree(scratch, ignore_errors=True)


def flow_is_there(parent: int) -> bool:
    """Whether the process that started this one still is; waits up to half a second for its end."""
    return os.getppid() == parent and not _input_closed()


def _input_closed() -> bool:
    ready, _, _ = select.select([sys.stdin], [], [], POLL_SECONDS)
    return bool(ready) and not os.read(sys.stdin.fileno(), 1)


def _end(ray: subprocess.Popen[bytes]) -> None:
    if not sys.platform.startswith("linux"):
        ray.terminate()
        try:
            ray.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            ray.kill()
        return
    ray.kill()
    deadline = time.monotonic() + GRACE_SECONDS
    while (children := _children()) and time.monotonic() < deadline:
        for child in children:
            _kill(child)
        time.sleep(0.02)
        while _reap():
            pass


def _children() -> list[int]:
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _reap() -> bool:
    """Collect one child that has ended."""
    try:
        pid, _ = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return pid > 0


def _die_with_host() -> None:
    _linux_prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _linux_prctl(option: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
