"""The server as clients meet it: both routes, streams, several at once, limits, and errors in JSON."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from storage.errors import ResourceError
from trainer.checkpoints.trained import Trained, open_trained
from trainer.serving.desk import Desk
from trainer.serving.generate import generate_text, open_tokenizer
from trainer.serving.requests import Limits
from trainer.serving.sampling import Sampling
from trainer.serving.server import ModelServer, open_server


@pytest.fixture(scope="module")
def opened(trained: Path) -> Trained:
    return open_trained(trained)


@pytest.fixture(scope="module")
def server(opened: Trained) -> Iterator[ModelServer]:
    with open_server(opened, limits=Limits(body_bytes=4096, max_tokens=64)) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(server: ModelServer, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request(method, path, data, {"Content-Type": "application/json"})
    response = connection.getresponse()
    found = json.loads(response.read())
    connection.close()
    return response.status, found


def alone(opened: Trained, prompt: str, **sampling: Any) -> str:
    tokenizer = open_tokenizer(opened.tokenizer_file)
    return generate_text(opened.model, tokenizer, prompt, opened.vocabulary, opened.training, Sampling(**sampling))


def test_generate_by_query_and_by_body(server: ModelServer, opened: Trained) -> None:
    status, got = ask(server, "GET", "/generate?input=The+miller&max_length=12&temperature=0")
    expected = alone(opened, "The miller", max_tokens=12, temperature=0)
    assert (status, got["text"], got["output"]) == (200, expected, f"The miller{expected}")
    assert ask(server, "POST", "/generate", {"input": "The miller", "max_length": 12, "temperature": 0})[1] == got
    assert got["tokens"] == 12 and got["finish_reason"] == "length"


def test_completions_have_openais_form(server: ModelServer, opened: Trained) -> None:
    fields = {"model": server.model_name, "prompt": ["A river", "水车"], "n": 2, "max_tokens": 8, "seed": 5}
    status, got = ask(server, "POST", "/v1/completions", fields)
    assert status == 200 and got["object"] == "text_completion" and got["model"] == server.model_name
    assert [choice["index"] for choice in got["choices"]] == [0, 1, 2, 3]
    expected = [
        alone(opened, prompt, max_tokens=8, temperature=1.0, top_k=0, seed=5 + number)
        for number, prompt in enumerate(["A river", "A river", "水车", "水车"])
    ]
    assert [choice["text"] for choice in got["choices"]] == expected
    assert {choice["finish_reason"] for choice in got["choices"]} <= {"stop", "length"}
    usage = got["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] and usage["prompt_tokens"] > 0
    models = ask(server, "GET", "/v1/models")[1]
    assert [row["id"] for row in models["data"]] == [server.model_name] and models["object"] == "list"


def test_a_stream_is_the_same_text_in_pieces(server: ModelServer) -> None:
    fields = {"prompt": "Die Mühle", "max_tokens": 30, "seed": 2, "stop": "42"}
    whole = ask(server, "POST", "/v1/completions", fields)[1]["choices"][0]
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request("POST", "/v1/completions", json.dumps({**fields, "stream": True}))
    response = connection.getresponse()
    assert response.headers["Content-Type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in response.read().decode().split("\n\n") if line]
    assert events[-1] == "[DONE]"
    choices = [json.loads(event)["choices"][0] for event in events[:-1]]
    assert "".join(choice["text"] for choice in choices) == whole["text"]
    assert choices[-1]["finish_reason"] == whole["finish_reason"] and len(choices) > 2
    assert "42" not in whole["text"]


def test_many_at_once_get_what_each_would_alone(server: ModelServer, opened: Trained) -> None:
    def complete(seed: int) -> str:
        fields = {"prompt": "The miller" * (seed % 3), "max_tokens": 20 + seed, "seed": seed, "temperature": 0.9}
        return str(ask(server, "POST", "/v1/completions", fields)[1]["choices"][0]["text"])

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(complete, range(24)))
    for seed in (0, 7, 23):
        expected = alone(opened, "The miller" * (seed % 3), max_tokens=20 + seed, seed=seed, temperature=0.9, top_k=0)
        assert found[seed] == expected


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "told"),
    [
        ("GET", "/generate", None, 400, "`input` is missing"),
        ("GET", "/generate?input=a&max_length=65", None, 400, "between 0 and 64"),
        ("GET", "/generate?input=a&max_length=many", None, 400, "must be a whole number"),
        ("GET", "/generate?input=a&temperature=-1", None, 400, "temperature is -1.0"),
        ("GET", "/generate?input=a&temperature=nan", None, 400, "temperature is nan"),
        ("GET", "/nowhere", None, 404, "there is no `/nowhere`"),
        ("DELETE", "/generate", None, 501, "Unsupported method"),
        ("POST", "/v1/chat/completions", {}, 404, "/v1/completions"),
        ("POST", "/v1/completions", b"{", 400, "not JSON"),
        ("POST", "/v1/completions", b"[" * 3000, 400, "not JSON"),
        ("POST", "/v1/completions", b"[]", 400, "JSON object"),
        ("POST", "/v1/completions", b"x" * 5000, 413, "the limit is 4,096"),
        ("POST", "/v1/completions", {"prompt": [1, 2]}, 400, "token ids are not taken"),
        ("POST", "/v1/completions", {"model": "gpt-4"}, 400, "no model `gpt-4`"),
        ("POST", "/v1/completions", {"n": 17}, 400, "17 texts"),
        ("POST", "/v1/completions", {"logprobs": 5}, 400, "`logprobs` is not supported"),
        ("POST", "/v1/completions", {"stop": [""]}, 400, "`stop` must be"),
        ("POST", "/v1/completions", {"top_p": 0}, 400, "top_p is 0"),
        ("POST", "/v1/completions", {"seed": -1}, 400, "`seed` is -1"),
    ],
)
def test_errors_are_json_with_the_reason(
    server: ModelServer, method: str, path: str, body: Any, status: int, told: str
) -> None:
    found, row = ask(server, method, path, body)
    assert found == status and told in row["error"]["message"]


def test_a_client_that_leaves_or_sends_nothing_costs_nothing(server: ModelServer) -> None:
    for sent in (b"", b"GET /", b"POST /v1/completions HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"):
        with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
            connection.sendall(sent)
    assert ask(server, "GET", "/health") == (200, {"status": "ok", "model": server.model_name})


def test_who_stops_listening_is_not_written_for(opened: Trained) -> None:
    with Desk(opened, at_once=1) as desk:
        left = desk.order("The miller", Sampling(max_tokens=100_000, temperature=0.8))
        listening = left.follow()
        next(listening)
        listening.close()
        assert "".join(desk.order("A river", Sampling(max_tokens=5, temperature=0)).follow())
        assert left.continuation.finish == "given up"


def test_too_many_waiting_is_told(opened: Trained) -> None:
    desk = Desk(opened, waiting=2)
    for _ in range(2):
        desk.order("a", Sampling())
    with pytest.raises(ResourceError, match="2 requests are waiting"):
        desk.order("a", Sampling())


@pytest.mark.slow
def test_the_command_serves_until_it_is_stopped(trained: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "trainer",
        "serve",
        "--checkpoints",
        str(trained),
        "--port",
        "0",
        "--device",
        "cpu",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    port = int(line.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/generate?input=The&max_length=3")
    assert json.loads(connection.getresponse().read())["tokens"] <= 3
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0 and "stopped" in process.stdout.read()
