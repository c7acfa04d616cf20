"""A command that is told to end closes what it has open, says how to go on, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.pipelines.jobs.test_train_group import PRESET, trainer_processes
from tests.trainer.conftest import write_mixture

ROOT = Path(__file__).resolve().parents[2]
WAITING = """
import sys, time
from pipelines import cli

def wait():
    try:
        print("waiting", flush=True)
        time.sleep(60)
    finally:
        print("closed", flush=True)

{how}

sys.argv[1:] = ["wait"]
cli.main()
"""
ALONE = "cli.cli.command('wait')(wait)"
IN_A_FLOW = """
import os
os.environ['PREFECT_LOGGING_LEVEL'] = os.environ['PREFECT_SERVER_LOGGING_LEVEL'] = 'CRITICAL'
from prefect import flow
cli.cli.command('wait')(lambda: flow(wait, name='waiting')())
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("how", [ALONE, pytest.param(IN_A_FLOW, marks=pytest.mark.slow)], ids=["alone", "in a flow"])
def test_what_is_open_is_closed_and_the_exit_code_says_why(
    how: str, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    script = tmp_path / "waiting.py"
    script.write_text(WAITING.replace("{how}", how))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout and process.stdout.readline() == "waiting\n"
    process.send_signal(number)
    said, errors = process.communicate(timeout=30)
    assert (said, process.returncode) == ("closed\n", code)
    assert errors.splitlines()[-1] == "stopped; run the same command to go on where it was"


def start_training(
    folder: Path, *options: str, environment: Mapping[str, str] = os.environ
) -> tuple[subprocess.Popen[str], Path]:
    """`gristmill train` of many steps, when the first of them are done; and its folder."""
    write_mixture(folder / "mixture")
    (folder / "preset.yaml").write_text(PRESET.replace("steps: 400", "steps: 1000000"))
    out = folder / "out"
    words = ["--data", str(folder / "mixture"), "--preset", str(folder / "preset.yaml"), "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "train", *words, *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**environment, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    deadline = time.monotonic() + 150
    while not (out / "metrics.jsonl").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)
    return process, out


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("options", [["--processes", "2"], ["--ray", "--processes", "2", "--workers", "2"]])
def test_a_training_ends_with_its_command(number: signal.Signals, options: list[str], tmp_path: Path) -> None:
    process, out = start_training(tmp_path, *options)
    assert trainer_processes(out)
    told = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}.get(number, -number)
    if number != signal.SIGKILL:
        assert errors.splitlines()[-1] == "stopped; run the same command to go on where it was"
    while trainer_processes(out):
        assert time.monotonic() < told + 15
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--preset", "none-such"], "error: no preset `none-such`"),
        (["--micro-batch", "3"], "error: this layout cannot be"),
        (["--global-batch", "many"], "invalid int value: 'many'"),
    ],
)
def test_several_processes_say_once_what_the_user_can_mend(words: list[str], told: str, tmp_path: Path) -> None:
    write_mixture(tmp_path / "mixture")
    (tmp_path / "preset.yaml").write_text(PRESET)
    given = ["--data", str(tmp_path / "mixture"), "--preset", str(tmp_path / "preset.yaml"), *words]
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "train", *given, "--out", str(tmp_path / "out"), "--processes", "2"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=100,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.count(told) == 1 and "Traceback" not in done.stderr and "torch" not in done.stderr
