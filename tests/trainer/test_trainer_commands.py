"""The command line as a person and the flows use it: real processes, killed, resumed and several at once."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from trainer.cli import main
from trainer.metrics import read_metrics
from trainer.settings import Preset
from trainer.train import train

ROOT = Path(__file__).resolve().parents[2]
MakePreset = Callable[..., Preset]
TRAIN_AND_LIST_THREADS = """
import sys
from pathlib import Path
from trainer.cli import main
code = main(sys.argv[1:])
print("threads left:", {(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()})
sys.exit(code)
"""


def write_preset(path: Path, preset: Preset) -> str:
    path.write_text(yaml.safe_dump({"model": dict(preset.model), "training": vars_of(preset)}))
    return str(path)


def vars_of(preset: Preset) -> dict[str, object]:
    return {name: getattr(preset.training, name) for name in preset.training.__dataclass_fields__}


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def trained_losses(out: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(out / "metrics.jsonl")]


def test_a_killed_process_resumes_to_the_same_bits(
    mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    preset = make_preset(steps=60, save_every=7)
    train(mixture_folder, preset, tmp_path / "whole", tell=lambda _: None)
    out = tmp_path / "killed"
    words = ["train", "--data", str(mixture_folder), "--out", str(out)]
    words += ["--preset", write_preset(tmp_path / "smallest.yaml", preset)]
    process = subprocess.Popen([sys.executable, "-m", "trainer", *words], env=environment(), stdout=subprocess.DEVNULL)
    while len(read_metrics(out / "metrics.jsonl")) < 17 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert main(words) == 0
    for name in ("model.safetensors", "training.safetensors"):
        assert (out / "iter_0000060" / name).read_bytes() == (tmp_path / "whole/iter_0000060" / name).read_bytes()
    assert trained_losses(out) == trained_losses(tmp_path / "whole")
    assert (out / "evaluation.json").read_bytes() == (tmp_path / "whole/evaluation.json").read_bytes()


def test_two_processes_train_and_score_as_one(mixture_folder: Path, tmp_path: Path, make_preset: MakePreset) -> None:
    preset = make_preset(steps=8, micro_batch=1, eod_mask_loss=True)
    train(mixture_folder, preset, tmp_path / "one", tell=lambda _: None)
    script = tmp_path / "train_and_list_threads.py"
    script.write_text(TRAIN_AND_LIST_THREADS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    command += ["train", "--data", str(mixture_folder), "--out", str(tmp_path / "two")]
    command += ["--preset", write_preset(tmp_path / "smallest.yaml", preset)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert trained_losses(tmp_path / "two") == pytest.approx(trained_losses(tmp_path / "one"), rel=1e-5)
    one, two = (json.loads((tmp_path / n / "evaluation.json").read_text())["sources"] for n in ("one", "two"))
    for name, score in one.items():
        assert two[name] == pytest.approx(score, rel=1e-5)
    assert done.stdout.count("consumed samples") == 2  # the first and the last step, once
    assert done.stdout.count("threads left:") == 2
    assert "gloo" not in done.stdout  # one that outlives the interpreter aborts its process, now and then


def test_the_log_line_is_megatrons(
    mixture_folder: Path, tmp_path: Path, make_preset: MakePreset, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = write_preset(tmp_path / "smallest.yaml", make_preset(steps=5))
    assert main(["train", "--data", str(mixture_folder), "--out", str(tmp_path / "out"), "--preset", preset]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "iteration" in line]
    number = r"-?\d+\.\d+"
    assert len(lines) == 2
    assert re.fullmatch(
        rf" \[\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\] iteration +1/ +5 \| consumed samples: +4 \| "
        rf"elapsed time per iteration \(ms\): {number} \| throughput per GPU \(TFLOP/s/GPU\): {number} \| "
        rf"learning rate: {number}E[+-]\d+ \| global batch size: +4 \| lm loss: {number}E[+-]\d+ \| loss scale: 1.0 \| "
        rf"grad norm: {number} \| params norm: {number} \| number of skipped iterations: +0 \| "
        r"number of nan iterations: +0 \|",
        lines[0],
    )


def test_what_the_user_can_mend_ends_with_two_and_three_lines(
    fresh_mixture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (fresh_mixture / "train/a-0000.idx").unlink()
    assert main(["train", "--data", str(fresh_mixture), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: this mixture cannot be trained on:\n    missing: ")
    assert "\n  at: " in told and "\n  hint: " in told and "Traceback" not in told
    assert main(["generate", "--checkpoints", str(tmp_path)]) == 2
    assert main(["train", "--data", str(tmp_path), "--out", str(tmp_path), "--preset", "huge"]) == 2


def test_a_checkpoint_is_evaluated_written_from_and_exported(
    trained: Path, mixture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "evaluation.json").read_bytes()
    assert main(["evaluate", "--checkpoints", str(trained), "--data", str(mixture_folder), "--device", "cpu"]) == 0
    assert (trained / "evaluation.json").read_bytes() == before
    assert "bits/byte" in capsys.readouterr().out
    assert main(["generate", "--checkpoints", str(trained), "--prompt", "The miller", "--max-tokens", "5"]) == 0
    assert capsys.readouterr().out.startswith("The miller")
    assert main(["export", "--checkpoints", str(trained / "iter_0000150"), "--out", str(tmp_path / "hf")]) == 0
    assert "model.safetensors" in capsys.readouterr().out


def test_a_mixture_of_another_vocabulary_is_not_evaluated(
    trained: Path, fresh_mixture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = fresh_mixture / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    row = json.loads((fresh_mixture / "vocabulary.json").read_text())
    row["sha256"] = hashlib.sha256(tokenizer.read_bytes()).hexdigest()
    (fresh_mixture / "vocabulary.json").write_text(json.dumps(row))
    assert main(["evaluate", "--checkpoints", str(trained), "--data", str(fresh_mixture)]) == 2
    assert "the model learned tokenizer" in capsys.readouterr().err
