"""A web server on loopback that misbehaves as told: files by path, and for each request a way to fail."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OK = "ok"


@dataclass
class BadServer:
    """`moods` are taken one a request: `ok`, `503`, `503 0` (with Retry-After), `403`, `truncate`, `stall`, `reset`,
    `no ranges`, `other range`; when they are used up, all goes well. `asked` are (path, Range) of the requests."""

    files: dict[str, bytes] = field(default_factory=dict)
    moods: list[str] = field(default_factory=list)
    ranges: bool = True
    etags: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""
    lock: Any = field(default_factory=threading.Lock)

    def mood(self) -> str:
        with self.lock:
            return self.moods.pop(0) if self.moods else OK


@contextmanager
def bad_server() -> Iterator[BadServer]:
    state = BadServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def _handler(state: BadServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append((self.path, wanted))
            mood = state.mood()
            if mood[0].isdigit():
                status, *pause = mood.split()
                self._answer(int(status), b"", {"Retry-After": pause[0]} if pause else {})
                return
            data = state.files.get(self.path)
            if data is None:
                self._answer(404, b"", {})
            else:
                self._send(data, wanted, mood)

        def _send(self, data: bytes, wanted: str | None, mood: str) -> None:
            headers = dict(state.headers)
            if state.etags:
                headers["ETag"] = f'"{hashlib.md5(data).hexdigest()}"'
            status, body = 200, data
            if wanted and state.ranges and mood != "no ranges":
                first, last = wanted.removeprefix("bytes=").split("-")
                start, stop = int(first), min(int(last) + 1, len(data))
                if mood == "other range":
                    start, stop = start + 1, stop + 1
                status, body = 206, data[start:stop]
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            self._answer(status, body, headers, mood)

        def _answer(self, status: int, body: bytes, headers: dict[str, str], mood: str = OK) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if mood in ("truncate", "stall", "reset"):
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                if mood == "stall":
                    time.sleep(2.0)
                self.close_connection = True
                self.connection.close()
                return
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return None

    return Handler
