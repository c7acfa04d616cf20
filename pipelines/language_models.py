"""Which language model a request means and how a worker reaches it: behind a server, or by vLLM in a worker of its own.

Invariant: a key is never held, only the name of the variable that it is in; where the model runs is no part of what it
is: its identity is a hash of its files, or its name where a server serves it, and the options of its chat template.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from classifiers.llm.asking import Failed, LanguageModel
from classifiers.llm.offline import OfflineConfig, OfflineModel, identify_model
from classifiers.llm.server import (
    Constraint,
    ServerConfig,
    ServerModel,
    check_url,
    choose_constraint,
    find_served_model,
)
from storage.errors import InputError, ResourceError
from storage.identity import fingerprint

CLIENTS = 2
"""Tasks that share the requests in flight: while one of them ends, the other keeps the server busy."""


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """With `server` (an address that ends in /v1) `model` is a name there, else a folder; None is the only model that
    the server has. `key_variable` names the environment variable with the server's key. `template_options` are
    `NAME=VALUE`, for the model's chat template."""

    server: str | None = None
    model: str | None = None
    key_variable: str | None = None
    constraint: Constraint | Literal["auto"] = "auto"
    concurrency: int = 64
    timeout_seconds: float = 120.0
    tensor_parallel: int = 1
    max_tokens: int | None = None
    dtype: str = "auto"
    template_options: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.server is None and self.model is None:
            raise InputError(
                "no language model is named",
                hint="name a server with `--server http://localhost:8000/v1`, or a model folder with `--model PATH`",
            )


@dataclass(frozen=True, kw_only=True)
class FoundModel:
    """A model that was looked up: its name, what stands for it in an identity, the GPUs of one copy, and what a worker
    is told (JSON values)."""

    name: str
    identity: str
    gpus: int
    told: Mapping[str, Any]


def read_key(variable: str | None) -> str | None:
    """The key in that variable. Raises InputError where it is named but not set."""
    if variable is None:
        return None
    if key := os.environ.get(variable, "").strip():
        return key
    raise InputError(
        f"the environment variable `{variable}` is not set",
        hint=f"`export {variable}=…` where this is started; on a cluster, on the nodes of it",
    )


def find_model(request: ModelRequest) -> FoundModel:
    """Look the model up. Raises a CurationError for a server that does not answer, or a folder that is no model."""
    options = parse_template_options(request.template_options)
    found = _in_folder(request, options) if request.server is None else _served(request, options)
    identity = fingerprint({"model": found.identity, "template": options}) if options else found.identity
    return replace(found, identity=identity)


def parse_template_options(given: Sequence[str]) -> dict[str, Any]:
    """`enable_thinking=false` as {"enable_thinking": False}: values are JSON where they can be, else text."""
    options: dict[str, Any] = {}
    for option in given:
        name, equals, value = option.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(
                f"the option of a chat template is `{option}`", hint="write NAME=VALUE: `enable_thinking=false`"
            )
        options[name] = _scalar(value)
    return options


def _scalar(value: str) -> str | int | float | bool | None:
    """JSON's `false` is one, `[1]` and what is no JSON stay text."""
    try:
        read = json.loads(value)
    except ValueError:
        return value
    return value if isinstance(read, list | dict) else read


def _in_folder(request: ModelRequest, options: Mapping[str, Any]) -> FoundModel:
    assert request.model is not None, "refused before"
    path = str(Path(request.model).expanduser().absolute())
    offline = OfflineConfig(
        model=path,
        tensor_parallel=request.tensor_parallel,
        max_tokens=request.max_tokens,
        dtype=request.dtype,
        template_options=tuple(sorted(options.items())),
    )
    told = {"server": None, "offline": asdict(offline), "key_variable": None}
    return FoundModel(name=Path(path).name, identity=identify_model(path), gpus=request.tensor_parallel, told=told)


def _served(request: ModelRequest, options: Mapping[str, Any]) -> FoundModel:
    assert request.server is not None, "asked before"
    check_url(request.server)
    key = read_key(request.key_variable)
    name = find_served_model(request.server, key, request.model)
    asked = request.constraint
    server = ServerConfig(
        url=request.server,
        model=name,
        constraint=choose_constraint(request.server, key) if asked == "auto" else asked,
        concurrency=request.concurrency,
        timeout_seconds=request.timeout_seconds,
        template_options=options,
    )
    told = {"server": asdict(server), "offline": None, "key_variable": request.key_variable}
    return FoundModel(name=name, identity=fingerprint({"served": name}), gpus=0, told=told)


def open_model(told: Mapping[str, Any]) -> LanguageModel:
    """The model in a worker; one of CLIENTS has its share of the requests in flight."""
    server = told["server"]
    if server is None:
        return _offline(OfflineConfig(**told["offline"]))
    config = ServerConfig(**{**server, "concurrency": max(1, server["concurrency"] // CLIENTS)})
    return ServerModel(config, key=read_key(told["key_variable"]))


@lru_cache(maxsize=1)
def _offline(config: OfflineConfig) -> OfflineModel:
    """The model stays in this worker for its next task."""
    return OfflineModel(config)


def task_resources(told: Mapping[str, Any], *, cpus: float, gpus: float) -> dict[str, Any]:
    """What one task takes: a client half a core, a model on GPUs a core, one without GPUs all that the machine has."""
    if told["server"]:
        return {"cpus": 0.5, "gpus": 0.0, "max_in_flight": min(CLIENTS, told["server"]["concurrency"])}
    if gpus:
        return {"cpus": 1.0, "gpus": float(told["offline"]["tensor_parallel"])}
    return {"cpus": cpus, "gpus": 0.0, "max_in_flight": 1}


def require_server(outcomes: Sequence[object], told: Mapping[str, Any]) -> None:
    """Raises ResourceError where the server was given up, so that no other task waits for it."""
    reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, Failed)]
    if told["server"] and "server_gone" in reasons:
        raise ResourceError(
            f"the server does not answer any more (last seen: {reasons[0].replace('_', ' ')})",
            at=told["server"]["url"],
            hint="start it, then give the same command: what is done is kept and not asked about again",
        )
