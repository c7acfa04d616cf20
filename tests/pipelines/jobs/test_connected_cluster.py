"""A cluster of two nodes that was there before: checked first, used by a flow that is killed, rejoined by the next."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipelines.jobs.cluster import connect
from pipelines.jobs.embedded import free_port
from storage.errors import ResourceError
from tests.pipelines.jobs.test_train_group import trainer_processes
from tests.pipelines.jobs.toy import count_tries
from tests.pipelines.test_stopping import start_training

FLOW = Path(__file__).with_name("flow.py")
ROOT = FLOW.parents[3]
PARTS = 12
START_SECONDS = 60


@contextmanager
def ray_node(folder: Path, name: str, environment: dict[str, str], *options: str) -> Iterator[None]:
    """One Ray node of the test's own, held by a host: closing its input ends what it started, and no other Ray.

    It has a folder of its own, as on a machine of its own: Ray's nodes overwrite each other's working directories.
    """
    scratch = tempfile.mkdtemp(prefix="gmt-", dir="/tmp")
    command = [
        sys.executable, "-m", "pipelines.jobs.host", scratch,
        sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--num-gpus=0",
        "--object-store-memory=100000000", "--dashboard-agent-listen-port=0", "--metrics-export-port=0",
        "--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats", f"--temp-dir={scratch}", *options,
    ]  # fmt: skip
    with open(folder / f"{name}.log", "w") as log:
        node = subprocess.Popen(
            command, env={**environment, "TOY_NODE": name}, stdout=log, stderr=log, stdin=subprocess.PIPE,
        )  # fmt: skip
    try:
        yield
    finally:
        assert node.stdin
        node.stdin.close()
        node.wait(30)


@pytest.fixture
def two_nodes(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a cluster of two nodes with one CPU each, and the environment for those who talk to it."""
    token = tmp_path / "token"
    token.write_text("5" * 64)
    token.chmod(0o600)
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
    }  # fmt: skip
    host, port, dashboard = address_of_this_machine(), free_port(), free_port()
    with ExitStack() as stack:
        stack.enter_context(ray_node(
            tmp_path, "head", environment, "--head", f"--port={port}", f"--dashboard-port={dashboard}",
            f"--ray-client-server-port={free_port()}", f"--node-ip-address={host}",
        ))  # fmt: skip
        wait_for_port(host, port)
        stack.enter_context(ray_node(tmp_path, "second", environment, f"--address={host}:{port}"))
        wait_for_port("127.0.0.1", dashboard)
        wait_for_text(tmp_path / "second.log", "Ray runtime started")
        yield f"{host}:{port}", environment


def address_of_this_machine() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def wait_for_port(host: str, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"nobody listens on {host}:{port}")


def wait_for_text(path: Path, text: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while text not in path.read_text():
        if time.monotonic() > deadline:
            raise TimeoutError(path.read_text())
        time.sleep(0.1)


def start_flow(address: str, folder: Path, environment: dict[str, str], **spec: Any) -> subprocess.Popen[str]:
    command = [sys.executable, str(FLOW), address, str(folder), json.dumps(spec)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_killed_flow_rejoins_its_job_which_runs_on_both_nodes(
    two_nodes: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    address, environment = two_nodes
    folder = tmp_path / "first"
    killed = start_flow(address, folder, environment, parts=PARTS, seconds=1.0)
    try:
        deadline = time.monotonic() + START_SECONDS
        while count_tries(folder / "toy", 1) == 0 and killed.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert killed.poll() is None, killed.communicate()[0]
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    restarted = start_flow(address, folder, environment, parts=PARTS, seconds=1.0)
    answer = json.loads(restarted.communicate(timeout=90)[0].splitlines()[-1])
    assert answer.get("rejoined") is True and answer["attempt"] == 1, answer
    results = answer["result"]["results"]
    assert [result["index"] for result in results] == list(range(PARTS))
    assert {result["node"] for result in results} == {"head", "second"}
    assert [count_tries(folder / "toy", i) for i in range(PARTS)] == [1] * PARTS


@pytest.mark.slow
def test_a_command_that_is_told_to_end_stops_its_job_on_the_cluster(
    two_nodes: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    address, environment = two_nodes
    options = ["--ray", "--ray-address", address, "--processes", "2"]
    process, out = start_training(tmp_path, *options, environment=environment)
    assert len(trainer_processes(out)) == 2
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 143 and errors.splitlines()[-1].startswith("stopped")
    assert trainer_processes(out) == []


def test_nobody_at_the_address_is_said_within_seconds(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(ResourceError, match="no Ray cluster answers") as caught, connect(address, run_folder=tmp_path):
        pass
    assert caught.value.at == address and "ray start --head" in (caught.value.hint or "")
    assert time.monotonic() - started < 10
