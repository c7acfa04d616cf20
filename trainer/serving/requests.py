"""What clients may ask of the server, read from queries and JSON bodies: checked fields within limits.

Two forms: `/generate` as mlops-tinystories has it (`input`, `max_length`, `temperature`), and OpenAI's completions.
Fields that would change the text and that this server cannot honour are refused; unknown ones are passed over, as
OpenAI's clients send many.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storage.errors import InputError
from trainer.serving.sampling import Sampling

MOST_PROMPTS = 16
MOST_STOPS = 8
CANNOT = {
    "best_of": 1,
    "echo": False,
    "logprobs": None,
    "suffix": None,
    "logit_bias": None,
    "presence_penalty": 0,
    "frequency_penalty": 0,
}
"""Fields of OpenAI's that are taken with these values only: others would change the text."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that one request may ask for: bytes of its body, tokens of each answer."""

    body_bytes: int = 1 << 20
    max_tokens: int = 1024


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Prompts, how each is continued, and whether the client wants to read along."""

    prompts: tuple[str, ...]
    samplings: tuple[Sampling, ...]
    stream: bool = False


def read_generate(fields: Mapping[str, Any], limits: Limits) -> Asked:
    """`/generate`: one prompt. Raises InputError."""
    sampling = Sampling(
        max_tokens=_tokens(fields, "max_length", 50, limits),
        temperature=_number(fields, "temperature", 0.5),
        top_k=_whole(fields, "top_k", Sampling.top_k),
        top_p=_number(fields, "top_p", 1.0),
        seed=_seed(fields),
        stop=_stops(fields),
    )
    if not isinstance(fields.get("input"), str):
        raise InputError("`input` is missing: the text to continue")
    return Asked(prompts=(fields["input"],), samplings=(sampling,))


def read_completion(fields: Mapping[str, Any], limits: Limits, model: str) -> Asked:
    """`/v1/completions`: one prompt or several, `n` texts each. Raises InputError."""
    if fields.get("model", model) != model:
        raise InputError(f"there is no model `{fields['model']}` here", hint=f"ask for `{model}`")
    for name, neutral in CANNOT.items():
        if fields.get(name) not in (None, neutral):
            raise InputError(f"`{name}` is not supported", hint=f"leave it out, or give {neutral}")
    prompts = _prompts(fields.get("prompt", ""))
    count, seed = _whole(fields, "n", 1), _seed(fields)
    if not 1 <= count * len(prompts) <= MOST_PROMPTS:
        raise InputError(f"{count * len(prompts)} texts are asked for; the limit is {MOST_PROMPTS}")
    common: dict[str, Any] = {
        "max_tokens": _tokens(fields, "max_tokens", 16, limits),
        "temperature": _number(fields, "temperature", 1.0),
        "top_k": _whole(fields, "top_k", 0),
        "top_p": _number(fields, "top_p", 1.0),
        "stop": _stops(fields),
    }
    return Asked(
        prompts=tuple(prompt for prompt in prompts for _ in range(count)),
        samplings=tuple(Sampling(**common, seed=seed + number) for number in range(count * len(prompts))),
        stream=fields.get("stream") is True,
    )


def _prompts(given: Any) -> Sequence[str]:
    prompts = [given] if isinstance(given, str) else given
    if not isinstance(prompts, list) or not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise InputError("`prompt` must be a text or a list of texts; token ids are not taken")
    return prompts


def _tokens(fields: Mapping[str, Any], name: str, default: int, limits: Limits) -> int:
    count = _whole(fields, name, default)
    if not 0 <= count <= limits.max_tokens:
        raise InputError(f"`{name}` is {count}; it must be between 0 and {limits.max_tokens}")
    return count


def _whole(fields: Mapping[str, Any], name: str, default: int) -> int:
    value = fields.get(name)
    if isinstance(value, str) and value.lstrip("-").isdecimal():
        value = int(value)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"`{name}` is {_told(value)}; it must be a whole number")
    return value


def _number(fields: Mapping[str, Any], name: str, default: float) -> float:
    value = fields.get(name)
    if value is None:
        return default
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"`{name}` is {_told(value)}; it must be a number") from None


def _seed(fields: Mapping[str, Any]) -> int:
    """The client's, or one by chance."""
    seed = _whole(fields, "seed", secrets.randbits(32))
    if not 0 <= seed < 1 << 62:
        raise InputError(f"`seed` is {seed}; it must be between 0 and {(1 << 62) - 1}")
    return seed


def _stops(fields: Mapping[str, Any]) -> tuple[str, ...]:
    given = fields.get("stop")
    stops = [] if given is None else [given] if isinstance(given, str) else given
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise InputError("`stop` must be a text or a list of texts, none of them empty")
    if len(stops) > MOST_STOPS:
        raise InputError(f"{len(stops)} stop texts; the limit is {MOST_STOPS}")
    return tuple(stops)


def _told(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
