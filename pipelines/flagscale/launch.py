"""An experiment's folder as FlagScale lays it out, and the process that trains in it: started, looked at, stopped.

`logs/scripts/host_0_localhost_run.sh` is what runs, `logs/pids/host_0_localhost.pid` its process (a session of its
own, so that stopping ends its children too), `logs/host_0_localhost.output` what it says, `checkpoints/` what it
saves. Beside them lie our own: `preset.yaml` and `mixture/`. One node: for several there is `gristmill train --ray`.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipelines.flagscale.arguments import folders
from pipelines.flagscale.config import FlagScaleConfig
from pipelines.flagscale.settings import Settings
from storage.commit import write_atomically
from storage.errors import InputError

HOST = "host_0_localhost"
STOP_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Places:
    """The files of an experiment."""

    home: Path
    logs: Path
    checkpoints: Path

    @property
    def script(self) -> Path:
        return self.logs / "scripts" / f"{HOST}_run.sh"

    @property
    def pid(self) -> Path:
        return self.logs / "pids" / f"{HOST}.pid"

    @property
    def output(self) -> Path:
        return self.logs / f"{HOST}.output"

    @property
    def preset(self) -> Path:
        return self.home / "preset.yaml"

    @property
    def blend(self) -> Path:
        return self.home / "blend.json"

    @property
    def mixture(self) -> Path:
        return self.home / "mixture"


def places_of(config: FlagScaleConfig) -> Places:
    filled = folders(config)
    return Places(
        home=config.exp_dir, logs=Path(filled["logging"]["log_dir"]), checkpoints=Path(filled["checkpoint"]["save"])
    )


def processes_of(config: FlagScaleConfig) -> int:
    """Processes of this node; FlagScale's `8` or `auto`, which is the number of visible devices."""
    told = (config.experiment.get("runner") or {}).get("nproc_per_node", 1)
    if str(told).isdigit():
        return max(1, int(told))
    visible = str((config.experiment.get("envs") or {}).get("VISIBLE_DEVICES", "0"))
    return len([device for device in visible.split(",") if device.strip()]) or 1


def trainer_command(config: FlagScaleConfig) -> list[str]:
    """What runs: the trainer, by torchrun where there are several processes."""
    from pipelines.commands.train import launch_words

    places = places_of(config)
    words = ["train", "--data", str(places.mixture), "--preset", str(places.preset), "--out", str(places.checkpoints)]
    return launch_words(words, processes_of(config))


def write_script(config: FlagScaleConfig, settings: Settings) -> Path:
    """Write the preset and the script, as FlagScale would; nothing runs yet."""
    places = places_of(config)
    preset = {"model": settings.model, "training": settings.training}
    write_atomically(places.preset, yaml.safe_dump(preset, sort_keys=False).encode())
    experiment = config.experiment
    before = str((experiment.get("cmds") or {}).get("before_start") or "")
    envs = {str(name): str(value) for name, value in (experiment.get("envs") or {}).items()}
    if "VISIBLE_DEVICES" in envs:
        envs.setdefault("CUDA_VISIBLE_DEVICES", envs["VISIBLE_DEVICES"])
    made = [places.logs, places.pid.parent, places.checkpoints]
    lines = [
        "#!/bin/bash", "", before, *(f"mkdir -p {shlex.quote(str(folder))}" for folder in made),
        *(f"export {name}={shlex.quote(value)}" for name, value in envs.items()), "",
        f"nohup setsid {shlex.join(trainer_command(config))} >> {shlex.quote(str(places.output))} 2>&1 "
        f"& echo $! > {shlex.quote(str(places.pid))}", "",
    ]  # fmt: skip
    write_atomically(places.script, "\n".join(lines).encode())
    places.script.chmod(0o755)
    return places.script


def start(config: FlagScaleConfig) -> int:
    """Run the script; returns the trainer's process id. Raises InputError where one runs already."""
    places = places_of(config)
    if running := running_process(places):
        raise InputError(
            f"this experiment runs already, as process {running}",
            at=str(places.home),
            hint=f"stop it: `gristmill flagscale stop {config.path}`",
        )
    subprocess.run(["bash", str(places.script)], check=True, env=_environment())
    return int(places.pid.read_text())


def running_process(places: Places) -> int | None:
    """The process id of the experiment's trainer, None where it does not run."""
    try:
        pid = int(places.pid.read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return None
    return pid if str(places.checkpoints).encode() in words and state != "Z" else None


def stop(places: Places) -> int | None:
    """End the experiment's processes, politely first; returns the process id, None where none ran."""
    pid = running_process(places)
    if pid is None:
        return None
    _signal(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while running_process(places) and time.monotonic() < deadline:
        time.sleep(0.1)
    _signal(pid, signal.SIGKILL)
    return pid


def _signal(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass


def _environment() -> dict[str, str]:
    """Ours, with the folder of this package among those that Python imports from."""
    found: Sequence[str] = [str(Path(__file__).resolve().parents[2]), *os.environ.get("PYTHONPATH", "").split(":")]
    return {**os.environ, "PYTHONPATH": ":".join(path for path in found if path), "PYTHONUNBUFFERED": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"}  # fmt: skip
