"""A checkpoint behind HTTP: `/generate`, OpenAI's `/v1/completions` and `/v1/models`, and `/health`.

Python's own server, a thread a connection, bound to loopback unless told otherwise: for trying models and for judges
that speak OpenAI's protocol, not for the open internet (no TLS, no accounts). Every answer is JSON, errors too, in
OpenAI's form; a body may have so many bytes, a text so many tokens, a client so many seconds to send them.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from storage.errors import CurationError, InputError, ResourceError
from trainer.checkpoints.folders import checkpoint_folder
from trainer.checkpoints.trained import Trained
from trainer.serving.desk import Desk, Order
from trainer.serving.requests import Asked, Limits, read_completion, read_generate

SECONDS_TO_SEND = 30.0
LOOPBACK = "127.0.0.1"


class ModelServer(ThreadingHTTPServer):
    """One desk for all connections."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], desk: Desk, limits: Limits) -> None:
        self.desk, self.limits, self.started = desk, limits, int(time.time())
        self.model_name = name_of(desk.trained)
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no event."""


@contextmanager
def open_server(
    trained: Trained, *, host: str = LOOPBACK, port: int = 0, limits: Limits | None = None
) -> Iterator[ModelServer]:
    """A server that is bound and has its desk; `serve_forever` is the caller's. Port 0 takes a free one.

    Raises ResourceError when the port is taken.
    """
    with Desk(trained) as desk:
        try:
            server = ModelServer((host, port), desk, limits or Limits())
        except OSError as error:
            raise ResourceError(
                f"cannot listen on {host}:{port}: {error.strerror}", hint="choose another with `--port`"
            ) from error
        with server:
            yield server


def name_of(trained: Trained) -> str:
    """What clients call the model: the run's folder and the step."""
    return f"{trained.folder.resolve().name}/{checkpoint_folder(trained.folder, trained.step).name}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "gristmill"
    sys_version = ""
    timeout = SECONDS_TO_SEND
    server: ModelServer

    def log_message(self, format: str, *arguments: Any) -> None:
        """Prompts stand in query strings: nothing is logged."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What Python's server refuses itself (methods, lines that are no HTTP), in the same form."""
        self._say(code, _error(message or "this is no request"), close=True)

    def do_GET(self) -> None:
        self._guarded(self._get)

    def do_POST(self) -> None:
        self._guarded(self._post)

    def _guarded(self, work: Any) -> None:
        try:
            work()
        except ResourceError as error:
            self._refuse(503, error)
        except CurationError as error:
            self._refuse(400, error)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True
        except Exception as error:  # ours: the client is told so, and no more
            self._say(500, _error(f"the server failed: {type(error).__name__}"), close=True)

    def _get(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/health":
            self._say(200, {"status": "ok", "model": self.server.model_name})
        elif url.path == "/v1/models":
            row = {"id": self.server.model_name, "object": "model", "created": self.server.started, "owned_by": "local"}
            self._say(200, {"object": "list", "data": [row]})
        elif url.path == "/generate":
            self._generate(dict(parse_qsl(url.query, keep_blank_values=True)))
        else:
            self._refuse_path(url.path, ("/generate", "/v1/models", "/v1/completions", "/health"))

    def _post(self) -> None:
        url = urlsplit(self.path)
        fields = self._body()
        if fields is None:
            return
        if url.path == "/generate":
            self._generate(fields)
        elif url.path == "/v1/completions":
            self._complete(read_completion(fields, self.server.limits, self.server.model_name))
        else:
            self._refuse_path(url.path, ("/generate", "/v1/completions"))

    def _body(self) -> dict[str, Any] | None:
        """The body's fields; None where it was refused."""
        length, limit = self.headers.get("Content-Length", ""), self.server.limits.body_bytes
        if not length.isdecimal():
            self._say(411, _error("`Content-Length` is missing"), close=True)
            return None
        if int(length) > limit:
            self._say(413, _error(f"the body has {int(length):,} bytes; the limit is {limit:,}"), close=True)
            return None
        try:
            fields = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise InputError(f"the body is not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise InputError("the body must be a JSON object")
        return fields

    def _generate(self, fields: Mapping[str, Any]) -> None:
        order = self._order(read_generate(fields, self.server.limits))[0]
        text = "".join(order.follow())
        self._raise_faults([order])
        prompt = fields["input"]
        self._say(
            200,
            {
                "input": prompt,
                "output": prompt + text,
                "text": text,
                "finish_reason": order.continuation.finish,
                "tokens": len(order.continuation.ids),
            },
        )

    def _complete(self, asked: Asked) -> None:
        orders = self._order(asked)
        head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": self.server.model_name,
        }
        if asked.stream:
            self._stream(head, orders)
            return
        texts = ["".join(order.follow()) for order in orders]
        self._raise_faults(orders)
        choices = [
            _choice(number, text, order.continuation.finish)
            for number, (text, order) in enumerate(zip(texts, orders, strict=True))
        ]
        self._say(200, {**head, "choices": choices, "usage": _usage(orders)})

    def _stream(self, head: Mapping[str, Any], orders: Sequence[Order]) -> None:
        """Server-sent events, one text after the other, as OpenAI's clients read them."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            for number, order in enumerate(orders):
                for piece in order.follow():
                    self._event({**head, "choices": [_choice(number, piece, None)]})
                self._event({**head, "choices": [_choice(number, "", order.continuation.finish)]})
            self.wfile.write(b"data: [DONE]\n\n")
        finally:
            for order in orders:
                order.given_up = True

    def _event(self, row: Mapping[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(row, ensure_ascii=False)}\n\n".encode())
        self.wfile.flush()

    def _order(self, asked: Asked) -> list[Order]:
        orders: list[Order] = []
        try:
            for prompt, sampling in zip(asked.prompts, asked.samplings, strict=True):
                orders.append(self.server.desk.order(prompt, sampling))
        except ResourceError:
            for order in orders:
                order.given_up = True
            raise
        return orders

    def _raise_faults(self, orders: Sequence[Order]) -> None:
        """A fault of ours while writing is told as such."""
        for order in orders:
            if (order.continuation.finish or "").startswith("error"):
                raise ResourceError(f"the model could not go on: {order.continuation.finish}")

    def _refuse(self, status: int, error: CurationError) -> None:
        self._say(status, _error(f"{error.what} ({error.hint})" if error.hint else error.what))

    def _refuse_path(self, path: str, known: Sequence[str]) -> None:
        self._say(404, _error(f"there is no `{path[:80]}` for {self.command}; there are {', '.join(known)}"))

    def _say(self, status: int, row: Mapping[str, Any], *, close: bool = False) -> None:
        body = json.dumps(row, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        if close:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


def _choice(number: int, text: str, finish: str | None) -> dict[str, Any]:
    return {"index": number, "text": text, "logprobs": None, "finish_reason": finish}


def _usage(orders: Sequence[Order]) -> dict[str, int]:
    prompt = sum(len(order.continuation.prompt) for order in orders)
    written = sum(len(order.continuation.ids) for order in orders)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
