"""Foreign programs in a process that can compute and nothing else, with limits on what computing costs.

On Linux (x86-64, arm64; kernel 6.2 or newer) a program has no network, no processes, no signals, no files but those of
its own empty folder, which is deleted: Landlock and seccomp hold that, without root and for root (`jail`). Elsewhere
only limits and the clock hold; then nothing is run unless the user says that the machine may be lost. A program costs
about 60 ms. What is not limited: how many files it writes within its seconds.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from storage.errors import ResourceError
from trainer.compute import usable_threads
from trainer.evaluation import jail

RESULT_BYTES = 1 << 14


@dataclass(frozen=True, kw_only=True)
class SandboxLimits:
    """Seconds by the clock and of CPU, bytes of memory and of each file, open files."""

    seconds: float = 10.0
    memory_bytes: int = 1 << 30
    file_bytes: int = 16 << 20
    open_files: int = 64


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`passed`: the program came to its end without raising. `reason` says otherwise why not."""

    passed: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class Guards:
    """What holds on this machine: Landlock over files, seccomp over system calls (network, processes, signals)."""

    files: bool
    calls: bool


def require_guards(*, accept_none: bool = False) -> Guards:
    """What holds here. Raises ResourceError where a guard is missing, unless that is accepted."""
    line = _run_jail("", SandboxLimits()).partition("\n")[0]
    guards = Guards(**json.loads(line)["guards"]) if line.startswith("{") else Guards(files=False, calls=False)
    if not (guards.files and guards.calls) and not accept_none:
        missing = [name for name, holds in (("Landlock", guards.files), ("seccomp", guards.calls)) if not holds]
        raise ResourceError(
            f"programs cannot be kept from harm here: {' and '.join(missing)} cannot be had",
            hint="use Linux 6.2 or newer, or a machine that may be lost, and say so with `--unguarded`",
        )
    return guards


def run_programs(programs: Sequence[str], limits: SandboxLimits, workers: int | None = None) -> list[Outcome]:
    """How each ended, in their order; as many at once as there are processors."""
    with ThreadPoolExecutor(workers or usable_threads(os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda source: run_program(source, limits), programs))


def run_program(source: str, limits: SandboxLimits) -> Outcome:
    """How one program ended."""
    said = _run_jail(source, limits)
    if not said.endswith("\n"):
        return Outcome(passed=False, reason=said or "it ended the interpreter")
    row = json.loads(said)
    return Outcome(passed=row["passed"], reason=row["reason"])


def _run_jail(source: str, limits: SandboxLimits) -> str:
    """The line that the jail wrote; without one, why there is none."""
    with tempfile.TemporaryDirectory(prefix="gristmill-program-", ignore_cleanup_errors=True) as folder:
        reading, writing = os.pipe()
        process = subprocess.Popen(
            _command(folder, writing, limits),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"},
            pass_fds=[writing],
            start_new_session=True,
        )
        os.close(writing)
        try:
            process.communicate(source.encode("utf-8", "replace"), timeout=limits.seconds)
            reason = f"killed by {signal.Signals(-process.returncode).name}" if process.returncode < 0 else ""
        except subprocess.TimeoutExpired:
            reason = f"not done after {limits.seconds:g} s"
        finally:
            _end(process)
        with open(reading, "rb") as file:
            said = file.read(RESULT_BYTES).decode("utf-8", "replace") if not reason else ""
    return said or reason


def _command(folder: str, writing: int, limits: SandboxLimits) -> list[str]:
    resources = {
        "CPU": int(limits.seconds) + 1,
        "AS": limits.memory_bytes,
        "FSIZE": limits.file_bytes,
        "NOFILE": limits.open_files,
        "NPROC": 64,
    }
    jail_file = str(Path(jail.__file__).resolve())
    return [sys.executable, "-I", "-S", jail_file, folder, str(writing), json.dumps(resources)]


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process and all of its session, where it could make any."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.kill()
    process.wait()
