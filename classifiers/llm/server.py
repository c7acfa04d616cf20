"""A language model behind any OpenAI-compatible server: bounded requests in flight, deadlines, retries, no exceptions.

Invariant: a request ends whether the server stalls, dribbles its answer or cuts the stream (only a header that comes
byte by byte is waited for), an answer may have a megabyte, and the key is in nothing that is returned or raised. When
as many attempts in a row as all talks in flight have find no server, the rest are answered `server_gone` unasked.
Trade-off: threads, a talk each, and one request a prompt cost 1.0 ms of CPU (texts of 8 KB), so that one client can ask
about less than a thousand documents a second; 398 were measured on two busy cores, the server's among them.
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import httpx

from classifiers.llm.asking import (
    SAID_CHARACTERS,
    TOO_LONG,
    Ended,
    Failed,
    Form,
    OneOf,
    Prompt,
    Reply,
    Talk,
    TokenChances,
    go_on,
)
from storage.errors import InputError, ResourceError

Constraint = Literal["structured_outputs", "guided_choice", "response_format", "none"]

MOST_ANSWER_BYTES = 1 << 20
TOP_TOKENS = 20
"""As many as OpenAI's interface and vLLM's default allow."""
STRUCTURED_SINCE = (0, 10, 2)
"""The vLLM that took `structured_outputs`; it ignores fields that it does not know, so asking wrongly goes unseen."""
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_NOT_ALLOWED = frozenset({401, 403, 404})
_TOO_LONG = re.compile(r"context.{0,20}length|maximum.{0,40}token|too long|max_model_len", re.IGNORECASE)
_SECRET_MARK = "[key]"


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """`url` ends in `/v1`, as OpenAI's clients want it. `timeout_seconds` is for one request, `attempts` for one
    prompt, `unreadable_attempts` for one whose answers are no chat completions; waits between them double from
    `backoff_seconds` to `most_backoff_seconds`. `template_options` go to the model's chat template (vLLM, SGLang)."""

    url: str
    model: str
    constraint: Constraint = "structured_outputs"
    concurrency: int = 64
    timeout_seconds: float = 120.0
    attempts: int = 5
    unreadable_attempts: int = 2
    backoff_seconds: float = 1.0
    most_backoff_seconds: float = 30.0
    template_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_url(self.url)
        if min(self.concurrency, self.attempts, self.unreadable_attempts) < 1 or self.timeout_seconds <= 0:
            raise InputError(
                f"concurrency {self.concurrency}, attempts {self.attempts} and timeout {self.timeout_seconds:g} s "
                "must be above 0"
            )


def check_url(url: str) -> None:
    """Raises InputError for what is no http address, and for one with a password in it, which would be recorded."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InputError(f"the server's address is no URL: {error}", hint="write http://host:8000/v1") from error
    if parsed.userinfo or parsed.query:
        raise InputError(
            "the server's address holds a password or a query, and addresses are recorded",
            hint="put the key into an environment variable and name that with `--api-key-env`",
        )
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InputError("the server's address is no http address", at=url, hint="write http://host:8000/v1")


def open_client(url: str, key: str | None, timeout_seconds: float, connections: int = 1) -> httpx.Client:
    """A client for the server below `url`; the key travels in the header alone. Proxies of the environment are not
    asked for addresses on this machine."""
    host = httpx.URL(url).host
    local = host in ("localhost", "::1") or host.startswith("127.")
    return httpx.Client(
        base_url=url.rstrip("/"),
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(timeout_seconds, connect=min(10.0, timeout_seconds)),
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        trust_env=not local,
    )


def find_served_model(url: str, key: str | None, wanted: str | None, timeout_seconds: float = 30.0) -> str:
    """The model to ask for: `wanted`, or the only one that the server has.

    Raises ResourceError where no server answers, InputError where it has no such model or does not let us in.
    """
    served = [str(row.get("id")) for row in _get(url, key, "/models", timeout_seconds).get("data", [])]
    if wanted in served or (wanted and not served):
        return wanted
    if wanted is None and len(served) == 1:
        return served[0]
    what = f"does not serve `{wanted}`" if wanted else f"serves {len(served)} models"
    raise InputError(
        f"the server {what}", at=url, hint=f"name one with `--model`: {', '.join(served[:10]) or 'it lists none'}"
    )


def choose_constraint(url: str, key: str | None, timeout_seconds: float = 30.0) -> Constraint:
    """How this server wants to be told what form the answer has: vLLM by its version, others OpenAI's way."""
    root = str(httpx.URL(url).copy_with(path="/"))
    try:
        version = str(_get(root, key, "version", timeout_seconds).get("version", ""))
    except InputError:
        return "response_format"
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    return "structured_outputs" if numbers >= STRUCTURED_SINCE else "guided_choice" if numbers else "response_format"


def _get(url: str, key: str | None, path: str, timeout_seconds: float) -> dict[str, Any]:
    try:
        with open_client(url, key, timeout_seconds) as client:
            status, body, _ = _exchange(client, "GET", path, None, timeout_seconds)
    except (httpx.HTTPError, _CutShort) as error:
        raise ResourceError(
            f"no server answers: {_hide(str(error) or type(error).__name__, key)}",
            at=url,
            hint="is it running? `vllm serve MODEL` listens on port 8000: `--server http://localhost:8000/v1`",
        ) from None
    if status in _NOT_ALLOWED or status >= 400:
        said = _hide(body.decode("utf-8", "replace"), key)[:SAID_CHARACTERS]
        raise InputError(
            f"the server answers {status} to {path}: {said}", at=url, hint="check the address, and `--api-key-env`"
        )
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


class _CutShort(Exception):
    """An answer that did not end in time, or did not end at all."""


def _exchange(
    client: httpx.Client, method: str, path: str, payload: Mapping[str, Any] | None, timeout_seconds: float
) -> tuple[int, bytes, httpx.Headers]:
    """Status, body and headers of one request, within the time and MOST_ANSWER_BYTES. Raises _CutShort, HTTPError."""
    deadline = time.monotonic() + timeout_seconds
    body = bytearray()
    with client.stream(method, path, json=payload) as response:
        for chunk in response.iter_bytes():
            body += chunk
            if time.monotonic() > deadline:
                raise _CutShort(f"the answer had not ended after {timeout_seconds:g} s")
            if len(body) > MOST_ANSWER_BYTES:
                raise _CutShort(f"the answer has more than {MOST_ANSWER_BYTES:,} bytes")
        return response.status_code, bytes(body), response.headers


def _hide(text: str, key: str | None) -> str:
    return text.replace(key, _SECRET_MARK) if key else text


T = TypeVar("T")


@dataclass
class _Trial:
    """What is known of one prompt so far."""

    prompt: Prompt
    attempts: int = 0
    unreadable: int = 0
    came: Reply | Failed = Failed(reason="not_asked", said="")


class ServerModel:
    """A LanguageModel behind a server. Raises InputError when the server does not let us in at all."""

    def __init__(
        self, config: ServerConfig, *, key: str | None = None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._config, self._key, self._sleep = config, key, sleep
        self._lost = 0
        self._lock = threading.Lock()

    def hold(self, talks: Iterable[Talk[T]]) -> Iterator[T]:
        config, waiting = self._config, iter(talks)
        running: set[Future[T]] = set()
        client = open_client(config.url, self._key, config.timeout_seconds, config.concurrency)
        with client, ThreadPoolExecutor(config.concurrency) as pool:
            try:
                while True:
                    while len(running) < config.concurrency and (talk := next(waiting, None)):
                        running.add(pool.submit(self._hold, client, talk))
                    if not running:
                        return
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            finally:
                for future in running:
                    future.cancel()

    def _hold(self, client: httpx.Client, talk: Talk[T]) -> T:
        step = go_on(talk, None)
        while not isinstance(step, Ended):
            step = go_on(talk, self._ask(client, step))
        return step.outcome

    def _ask(self, client: httpx.Client, prompt: Prompt) -> Reply | Failed:
        """Attempts until there is a reply, or a failure that another attempt would not mend."""
        if self._is_gone():
            return Failed(reason="server_gone", said="")
        trial = _Trial(prompt)
        while trial.attempts < self._config.attempts:
            trial.attempts += 1
            pause = self._attempt(client, trial)
            if pause is None:
                break
            if trial.attempts < self._config.attempts:
                self._sleep(pause)
        return replace(trial.came, attempts=trial.attempts)

    def _attempt(self, client: httpx.Client, trial: _Trial) -> float | None:
        """One request; the seconds to wait before the next, or None where this was the last."""
        try:
            status, body, headers = _exchange(
                client, "POST", "/chat/completions", self._payload(trial.prompt), self._config.timeout_seconds
            )
        except (httpx.HTTPError, _CutShort) as error:
            self._note_loss(lost=isinstance(error, httpx.TransportError))
            slow = isinstance(error, httpx.TimeoutException | _CutShort)
            trial.came = self._failed("timeout" if slow else "no_connection", str(error) or type(error).__name__)
            return self._backoff(trial.attempts)
        self._note_loss(lost=False)
        if status == 200:
            return self._read(body, trial)
        return self._refused(status, body.decode("utf-8", "replace"), headers, trial)

    def _read(self, body: bytes, trial: _Trial) -> float | None:
        try:
            reply = _open_reply(json.loads(body))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            trial.came = self._failed("no_answer", body[:SAID_CHARACTERS].decode("utf-8", "replace"))
            trial.unreadable += 1
            return self._backoff(1) if trial.unreadable < self._config.unreadable_attempts else None
        trial.came = replace(reply, said=_hide(reply.said, self._key))
        return None

    def _refused(self, status: int, said: str, headers: httpx.Headers, trial: _Trial) -> float | None:
        said = _hide(said, self._key)[:SAID_CHARACTERS]
        if status in _NOT_ALLOWED:
            hint = "check `--server`, `--model`, and the variable that `--api-key-env` names"
            raise InputError(f"the server answers {status}: {said}", at=self._config.url, hint=hint)
        if status in _AGAIN:
            trial.came = Failed(reason=f"status_{status}", said=said)
            return _retry_after(headers, self._config.most_backoff_seconds) or self._backoff(trial.attempts)
        trial.came = Failed(reason=TOO_LONG if _TOO_LONG.search(said) else f"status_{status}", said=said)
        return None

    def _failed(self, reason: str, said: str) -> Failed:
        return Failed(reason=reason, said=_hide(said, self._key)[:SAID_CHARACTERS])

    def _backoff(self, attempts: int) -> float:
        """Doubling, and spread over a half: so that those that failed together do not come back together."""
        longest = min(self._config.backoff_seconds * 2.0 ** (attempts - 1), self._config.most_backoff_seconds)
        return longest * random.uniform(0.5, 1.0)

    def _note_loss(self, *, lost: bool) -> None:
        with self._lock:
            self._lost = self._lost + 1 if lost else 0

    def _is_gone(self) -> bool:
        return self._lost >= self._config.concurrency * self._config.attempts

    def _payload(self, prompt: Prompt) -> dict[str, Any]:
        told = {"chat_template_kwargs": dict(self._config.template_options)} if self._config.template_options else {}
        return {
            "model": self._config.model,
            "messages": list(prompt.messages),
            "temperature": prompt.temperature,
            "seed": prompt.seed,
            **told,
            **_form_fields(self._config.constraint, prompt.form),
        }


def _form_fields(constraint: Constraint, form: Form) -> dict[str, Any]:
    """What holds the answer to its form."""
    if isinstance(form, OneOf):
        return {"logprobs": True, "top_logprobs": TOP_TOKENS, **_choice_fields(constraint, form.options)}
    limit = {"max_tokens": form.max_tokens}
    if constraint == "structured_outputs":
        return {"structured_outputs": {"json": form.schema}, **limit}
    if constraint == "guided_choice":
        return {"guided_json": form.schema, **limit}
    return limit if constraint == "none" else {"response_format": _json_format(form.name, form.schema), **limit}


def _choice_fields(constraint: Constraint, options: Sequence[str]) -> dict[str, Any]:
    """OpenAI's way wraps the choice in an object, which takes some tokens more."""
    if constraint == "structured_outputs":
        return {"structured_outputs": {"choice": list(options)}, "max_tokens": 2}
    if constraint == "guided_choice":
        return {"guided_choice": list(options), "max_tokens": 2}
    if constraint == "none":
        return {"max_tokens": 8}
    score = {"type": "integer", "enum": [int(option) for option in options]}
    schema = {"type": "object", "properties": {"score": score}, "required": ["score"], "additionalProperties": False}
    return {"response_format": _json_format("rating", schema), "max_tokens": 16}


def _json_format(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}


def _open_reply(value: Any) -> Reply:
    """The text of the first choice and, of each of its tokens, what could have stood there, itself first."""
    choice = value["choices"][0]
    usage = value.get("usage") or {}
    prompt, completion = (max(0, int(usage.get(name) or 0)) for name in ("prompt_tokens", "completion_tokens"))
    content = (choice.get("logprobs") or {}).get("content") or []
    return Reply(
        said=str(choice["message"]["content"]),
        places=[_place(token) for token in content],
        is_cut=choice.get("finish_reason") == "length",
        prompt_tokens=prompt,
        completion_tokens=completion,
    )


def _place(token: Mapping[str, Any]) -> TokenChances:
    others = token.get("top_logprobs") or []
    return [(str(one["token"]), float(one["logprob"])) for one in (token, *others)]


def _retry_after(headers: httpx.Headers, most: float) -> float | None:
    """The seconds that the server asks for, bounded; a date is not understood."""
    said = headers.get("retry-after", "")
    return min(float(said), most) if said.replace(".", "", 1).isdecimal() else None
