"""One training by two processes on a real embedded Ray: as one, refused as one, and started again when one is lost."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from pipelines.jobs.cluster import local_cluster
from pipelines.jobs.submission import submission_id, submit_stage
from storage.errors import CurationError
from tests.trainer.conftest import write_mixture

PRESET = """\
model: {hidden_size: 32, num_layers: 2, num_heads: 4, num_kv_heads: 2, ffn_size: 48, max_positions: 64}
training: {steps: 400, sequence_length: 32, global_batch: 4, micro_batch: 1, learning_rate: 1.0e-2, save_every: 20,
  precision: fp32, device: cpu, threads: 1}
"""


def trainer_processes(out: Path) -> list[int]:
    """Process ids of the trainers that write to `out`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if entry.name.isdigit() and b"trainer" in words and str(out).encode() in words:
            found.append(int(entry.name))
    return found


def kill_one_after(out: Path, steps: int) -> None:
    metrics, deadline = out / "metrics.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline:
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= steps:
            os.kill(max(trainer_processes(out)), signal.SIGKILL)
            return
        time.sleep(0.01)


@pytest.mark.slow
def test_two_processes_train_together_and_survive_the_loss_of_one(tmp_path: Path) -> None:
    write_mixture(tmp_path / "mixture")
    (tmp_path / "preset.yaml").write_text(PRESET)
    out = tmp_path / "out"
    words = ["train", "--data", str(tmp_path / "mixture"), "--preset", str(tmp_path / "preset.yaml"), "--out", str(out)]
    killer = threading.Thread(target=kill_one_after, args=(out, 30))
    with local_cluster(tmp_path / "run", cpus=2, dashboard_port=0) as cluster:

        def submit(words: list[str], name: str) -> dict[str, int]:
            return submit_stage(
                cluster, job="train_group", spec={"words": words, "processes": 2}, run_folder=tmp_path / "run",
                submission_id=submission_id(run="run", stage=name, identity="beef"), cpus=1.0,
            ).result  # fmt: skip

        killer.start()
        assert submit(words, "train") == {"restarts": 1}
        killer.join()
        evaluation = json.loads((out / "evaluation.json").read_text())
        assert evaluation["step"] == 400
        steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").open()]
        assert steps == list(range(1, 401))
        with pytest.raises(CurationError, match="a step of 4 samples cannot be shared by 2 processes"):
            submit([*words[:-1], str(tmp_path / "other"), "--micro-batch", "4"], "refused")
    assert trainer_processes(out) == []
