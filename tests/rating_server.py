"""A small OpenAI-compatible server on loopback that rates as its texts say, and misbehaves as they say.

`say` makes its answers other than ratings.

`grade=4` in a text is its rating; without one its length decides. Words in capitals make the server go wrong on the
requests about that text: BUSY (429 twice), BROKEN (500 always), NONSENSE, PROSE (a digit in a sentence, no
probabilities), STALL, DRIBBLE (a byte now and then), CUT (the stream ends in the middle), LONG (the text is above the
context until it has been cut), GARBAGE (no JSON), KEY (an error that repeats the key).
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "toy-rater"
CONTEXT_CHARACTERS = 400


@dataclass
class RatingServer:
    """What the server was asked so far, and what it is to do from now on."""

    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    payloads: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    key: str | None = None
    version: str | None = "0.32.0"
    dead_after: int | None = None
    delay: float = 0.0
    say: Callable[[dict[str, Any], str], dict[str, Any]] | None = None
    most_at_once: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, text: str, payload: dict[str, Any], key: str) -> int:
        """How many times this text was asked about, this time included."""
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self.asked[text] += 1
            self.payloads.append(payload)
            self.keys.add(key)
            return self.asked[text]

    def leave(self) -> None:
        with self._lock:
            self._at_once -= 1

    @property
    def is_dead(self) -> bool:
        return self.dead_after is not None and self.asked.total() >= self.dead_after


def text_of(payload: dict[str, Any]) -> str:
    """The document in a question."""
    content = payload["messages"][-1]["content"]
    return re.split(r"\n-{10}\n", content)[1] if "-" * 10 in content else content


def answer(grade: int, *, said: str | None = None, chances: bool = True) -> dict[str, Any]:
    """A chat completion; the grade has 0.6 of the probability, its neighbours 0.2 and 0.1, another token 0.1."""
    shares = {f"{grade}": 0.6, f"{(grade + 1) % 6}": 0.2, f" {(grade + 5) % 6}": 0.1, "The": 0.1}
    top = [{"token": token, "logprob": math.log(share), "bytes": None} for token, share in shares.items()]
    content = [{**top[0], "top_logprobs": top}] if chances else []
    return {
        "choices": [
            {"message": {"role": "assistant", "content": said or str(grade)}, "logprobs": {"content": content}}
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 1},
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: RatingServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/version" and self.state.version:
            self._say(200, {"version": self.state.version})
        elif self.path == "/v1/models":
            self._guarded(lambda: self._say(200, {"data": [{"id": MODEL}]}))
        else:
            self._say(404, {"error": "no such place"})

    def do_POST(self) -> None:
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.state.is_dead:
            self.close_connection = True
            return
        self._guarded(lambda: self._rate(payload))

    def _guarded(self, work: Any) -> None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.state.key is not None and given != self.state.key:
            self._say(401, {"error": f"wrong key {given}"})
        else:
            work()

    def _rate(self, payload: dict[str, Any]) -> None:
        text = text_of(payload)
        time_asked = self.state.enter(text, payload, self.headers.get("Authorization", ""))
        try:
            time.sleep(self.state.delay)
            self._misbehave(text, time_asked, payload)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            self.state.leave()

    def _misbehave(self, text: str, time_asked: int, payload: dict[str, Any]) -> None:
        found = re.search(r"grade=(\d)", text)
        good = answer(int(found[1]) if found else len(text) % 6)
        if self.state.say:
            good = self.state.say(payload, text)
        if "BUSY" in text and time_asked <= 2:
            self._say(429, {"error": "slow down"}, {"Retry-After": "0.01"})
        elif "BROKEN" in text:
            self._say(500, {"error": "it fell over"})
        elif "NONSENSE" in text:
            self._say(200, answer(0, said="I would rather not grade this."))
        elif "PROSE" in text:
            self._say(200, answer(4, said="I give it a 4.", chances=False))
        elif "STALL" in text:
            time.sleep(3.0)
            self._say(200, good)
        elif "DRIBBLE" in text:
            self._dribble(json.dumps(good).encode())
        elif "CUT" in text:
            self._head(200, 5000)
            self.wfile.write(b'{"choices": [{"mess')
            self.close_connection = True
        elif "LONG" in text and len(text) > CONTEXT_CHARACTERS:
            self._say(400, {"error": "This model's maximum context length is 100 tokens"})
        elif "GARBAGE" in text:
            self._say(200, ["<html>"])
        elif "KEY" in text:
            self._say(500, {"error": f"the key {self.headers.get('Authorization')} made me fall over"})
        else:
            self._say(200, good)

    def _dribble(self, body: bytes) -> None:
        self._head(200, len(body))
        for byte in body:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.05)

    def _say(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self._head(status, len(body), headers)
        self.wfile.write(body)

    def _head(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


@contextmanager
def rating_server() -> Iterator[RatingServer]:
    """A server of one's own, on a free port, until the end of the block."""
    state = RatingServer()
    handler = type("Handler", (_Handler,), {"state": state})
    with _Server(("127.0.0.1", 0), handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
