"""A run that is killed and started again, with other workers, ends byte for byte where an undisturbed one does."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pipelines.flows.leash import SERVER
from pipelines.run_folder import RunFolder, require_step
from storage.identity import hash_file
from storage.manifests import read_manifest
from tests.flows.conftest import FinishedRun, command_environment, gristmill, run_options

DATASETS = (
    "documents", "failures/ingest", "attributes/measure", "attributes/embeddings", "attributes/quality",
    "duplicates/pairs", "duplicates/copies", "catalogue",
)  # fmt: skip


def fingerprints(folder: RunFolder) -> dict[str, object]:
    """Everything that a run is promised to write identically: parts by checksum, mixtures and vocabularies by file."""
    places = [*DATASETS, *(f"tokens/{path.name}" for path in (folder.root / "tokens").iterdir())]
    decisions = folder.root / "decisions" / require_step(folder, "judge").result["policy"]
    places += [str((decisions / kind).relative_to(folder.root)) for kind in ("verdicts", "reasons")]
    found: dict[str, object] = {}
    for place in places:
        manifest = read_manifest(folder.root / place)
        found[place] = [(part.identity, part.sha256, part.rows) for part in manifest.parts]
    for home in ("mixtures", "vocabularies"):
        for path in sorted((folder.root / home).rglob("*")):
            if path.is_file():
                found[str(path.relative_to(folder.root))] = hash_file(path)
    return found


def start(options: list[str], home: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=command_environment(home),
        cwd=Path(__file__).resolve().parents[2],
    )


def kill_after(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Kill the run without warning; False when it had finished before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return False
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return True


def wait_for_step(process: subprocess.Popen[bytes], folder: Path, step: str) -> None:
    while process.poll() is None and not (folder / "steps" / f"{step}.json").exists():
        time.sleep(0.05)


def servers(home: Path) -> list[int]:
    """Prefect servers that work in this home."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            ours = f"PREFECT_HOME={home}\0".encode() in (process / "environ").read_bytes()
            if ours and SERVER in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def wait_for_no_server(home: Path) -> None:
    """A killed run leaves no temporary server behind."""
    deadline = time.monotonic() + 60
    while found := servers(home):
        assert time.monotonic() < deadline, f"servers still run: {found}"
        time.sleep(0.2)


@pytest.mark.timeout(600)
def test_killed_and_resumed_with_one_worker_it_is_the_same(finished_run: FinishedRun, tmp_path: Path) -> None:
    chance = random.Random()
    out = tmp_path / "killed"
    options = run_options(finished_run.inputs, out, "--workers", "1")
    for step in ("ingest", "judge"):
        process = start(options, finished_run.home)
        wait_for_step(process, out, step)
        delay = chance.uniform(0.0, 6.0)
        print(f"killed {delay:.2f} s after {step}")
        kill_after(process, delay)
    wait_for_no_server(finished_run.home)
    done = gristmill(*options, home=finished_run.home, check=False, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reused" in done.stdout
    assert fingerprints(RunFolder(out)) == fingerprints(finished_run.folder)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workers", [2, 3])
def test_killed_many_times_it_is_the_same(finished_run: FinishedRun, tmp_path: Path, workers: int) -> None:
    chance = random.Random()
    out = tmp_path / "killed"
    options = run_options(finished_run.inputs, out, "--workers", str(workers))
    for _ in range(8):
        delay = chance.uniform(5.0, 40.0)
        print(f"killed after {delay:.2f} s")
        if not kill_after(start(options, finished_run.home), delay):
            break
    done = gristmill(*options, home=finished_run.home, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert fingerprints(RunFolder(out)) == fingerprints(finished_run.folder)
