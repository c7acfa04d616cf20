"""A language model in this process by vLLM, for a worker that has GPUs (or, slowly, none): the same talks and forms.

Invariant: a prompt that does not fit the model's context is answered with `too_long` and never reaches the engine, so
no document stops a batch. Trade-off: 1,024 talks are held in rounds, a prompt each, and the engine runs empty at the
end of a round.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from classifiers.llm.asking import (
    SAID_CHARACTERS,
    TOO_LONG,
    Ended,
    Failed,
    Messages,
    OneOf,
    Prompt,
    Reply,
    Talk,
    TokenChances,
    go_on,
)
from storage.errors import ModelError, ResourceError
from storage.identity import fingerprint, hash_file

SLICE_ROWS = 1024
TOP_TOKENS = 20
ANSWER_TOKENS = 2
_SMALL_FILE_BYTES = 64 << 20
_WEIGHTS = ".safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class OfflineConfig:
    """`tensor_parallel`: GPUs that one copy of the model is spread over. `max_tokens`: the context; None: the model's.
    `dtype` "auto" is the one of the weights. `template_options` go to the model's chat template."""

    model: str
    tensor_parallel: int = 1
    max_tokens: int | None = None
    dtype: str = "auto"
    template_options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Take the lists that JSON makes of tuples."""
        object.__setattr__(self, "template_options", tuple((name, value) for name, value in self.template_options))


def identify_model(path: str) -> str:
    """A hash of the model's small files, and of the names and sizes of its weights, which may be a terabyte.

    Raises ModelError for what is no model folder, and where the weights are pickles.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise ModelError("there is no model folder with a config.json", at=path, hint="give the folder of a model")
    files = sorted(file for file in folder.iterdir() if file.is_file())
    if not any(file.suffix == _WEIGHTS for file in files):
        pickles = [file.name for file in files if file.suffix in _PICKLES]
        what = f"the weights are pickles ({', '.join(pickles[:3])})" if pickles else "there are no weights"
        raise ModelError(what, at=path, hint="give a folder whose weights are safetensors")
    weights = [[file.name, file.stat().st_size] for file in files if file.suffix == _WEIGHTS]
    small = [file for file in files if file.suffix != _WEIGHTS and file.stat().st_size < _SMALL_FILE_BYTES]
    return fingerprint({"weights": weights, "files": [[file.name, hash_file(file)] for file in small]})


class OfflineModel:
    """A LanguageModel over `vllm.LLM`. Raises ResourceError where vLLM is not installed, ModelError for no model."""

    def __init__(self, config: OfflineConfig) -> None:
        identify_model(config.model)
        self._model = _open_model(config)
        self._template_options = dict(config.template_options)
        self._tokenizer = self._model.get_tokenizer()
        self._context = int(self._model.llm_engine.model_config.max_model_len)

    def hold(self, talks: Iterable[Talk[T]]) -> Iterator[T]:
        """In rounds: every talk that is open has one prompt in each, and those that end make room for others."""
        waiting = iter(talks)
        due: list[tuple[Talk[T], Reply | Failed | None]] = []
        while due := due + [(talk, None) for talk in islice(waiting, SLICE_ROWS - len(due))]:
            steps = [(talk, go_on(talk, came)) for talk, came in due]
            yield from (step.outcome for _, step in steps if isinstance(step, Ended))
            asked = [(talk, step) for talk, step in steps if not isinstance(step, Ended)]
            replies = self._answer([prompt for _, prompt in asked])
            due = [(talk, came) for (talk, _), came in zip(asked, replies, strict=True)]

    def _answer(self, prompts: Sequence[Prompt]) -> list[Reply | Failed]:
        """What came of each prompt; one that does not fit the context is not asked."""
        encoded = [self._encode(prompt.messages) for prompt in prompts]
        fits = [
            len(ids) + _answer_tokens(prompt) <= self._context for ids, prompt in zip(encoded, prompts, strict=True)
        ]
        ready = [i for i, does_fit in enumerate(fits) if does_fit]
        inputs = [{"prompt_token_ids": encoded[i]} for i in ready]
        parameters = [sampling_parameters(prompts[i]) for i in ready]
        outputs = self._model.generate(inputs, parameters, use_tqdm=False) if ready else []
        said = {i: _read(output, len(encoded[i])) for i, output in zip(ready, outputs, strict=True)}
        return [said.get(i) or self._refuse(len(ids)) for i, ids in enumerate(encoded)]

    def _refuse(self, tokens: int) -> Failed:
        return Failed(reason=TOO_LONG, said=f"the prompt has {tokens:,} tokens, the context {self._context:,}")

    def _encode(self, messages: Messages) -> list[int]:
        if self._tokenizer.chat_template is None:
            joined = "\n\n".join(message["content"] for message in messages)
            return list(self._tokenizer.encode(joined))
        prompt = self._tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True, **self._template_options
        )
        return list(self._tokenizer.encode(prompt, add_special_tokens=False))


def _answer_tokens(prompt: Prompt) -> int:
    return ANSWER_TOKENS if isinstance(prompt.form, OneOf) else prompt.form.max_tokens


def _read(output: Any, prompt_tokens: int) -> Reply:
    first = output.outputs[0]
    return Reply(
        said=first.text,
        places=[_place(token, chances) for token, chances in zip(first.token_ids, first.logprobs or (), strict=False)],
        is_cut=first.finish_reason == "length",
        prompt_tokens=prompt_tokens,
        completion_tokens=len(first.token_ids),
    )


def _place(token: int, chances: Mapping[int, Any]) -> TokenChances:
    """The token that was taken first, then all others."""
    ordered = sorted(chances.items(), key=lambda item: item[0] != token)
    return [(chance.decoded_token or "", float(chance.logprob)) for _, chance in ordered]


def _open_model(config: OfflineConfig) -> Any:
    try:
        from vllm import LLM
    except ImportError as error:
        raise ResourceError(
            f"vLLM cannot be imported: {error}",
            hint="install it beside Gristmill (`pip install -e '.[vllm]'`), or name a server with `--server`",
        ) from error
    try:
        return LLM(
            config.model,
            tensor_parallel_size=config.tensor_parallel,
            max_model_len=config.max_tokens,
            dtype=config.dtype,
            trust_remote_code=False,
            max_logprobs=TOP_TOKENS,
        )
    except (ValueError, OSError, json.JSONDecodeError) as error:
        raise ModelError(
            f"vLLM cannot load the model: {str(error)[:SAID_CHARACTERS]}", at=config.model, hint="see the job's log"
        ) from error


def sampling_parameters(prompt: Prompt) -> Any:
    """vLLM's own parameters of a prompt."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    form = prompt.form
    if isinstance(form, OneOf):
        held, chances = StructuredOutputsParams(choice=list(form.options)), TOP_TOKENS
    else:
        held, chances = StructuredOutputsParams(json=dict(form.schema)), None
    return SamplingParams(
        temperature=prompt.temperature,
        seed=prompt.seed,
        max_tokens=_answer_tokens(prompt),
        logprobs=chances,
        structured_outputs=held,
    )
