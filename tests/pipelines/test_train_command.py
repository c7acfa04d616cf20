"""`gristmill train` hands on what is typed, and ends as the trainer ends."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli import cli
from pipelines.commands import train as command
from pipelines.commands.train import launch_words


def test_several_processes_are_started_by_torchrun() -> None:
    assert launch_words(["train", "--steps", "3"], 1) == [sys.executable, "-m", "trainer", "train", "--steps", "3"]
    several = launch_words(["train"], 4)
    assert several[1:] == [
        "-m", "trainer.parallel.launch", "--standalone", "--nproc-per-node", "4", "-m", "trainer", "train",
    ]  # fmt: skip


def test_options_of_the_trainer_are_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[list[str], int]] = []
    monkeypatch.setattr(command, "train_here", lambda words, processes: heard.append((words, processes)))
    given = ["--data", str(tmp_path / "m"), "--out", str(tmp_path / "o"), "--processes", "2"]
    result = CliRunner().invoke(cli, ["train", *given, "--steps", "5", "--no-reset-attention-mask"])
    assert result.exit_code == 0, result.output
    words = ["train", "--data", str(tmp_path / "m"), "--out", str(tmp_path / "o"), "--preset", "tiny"]
    assert heard == [([*words, "--steps", "5", "--no-reset-attention-mask"], 2)]


def test_the_trainers_refusal_is_the_commands(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = CliRunner().invoke(cli, ["train", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "error: `blend.json` is missing" in capfd.readouterr().err
