"""Ratings by vLLM in this process, for a worker that has GPUs (or, slowly, none): the same rubric, the same answers.

Invariant: a text that does not fit the model's context is halved until it does, so no document stops a batch.
Trade-off: documents are handed over in slices of 1,024, and the engine runs empty at the end of each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from classifiers.annotation.asking import Answer, Failed, Question, Sampling
from classifiers.annotation.rating import Nonsense, Rating, TokenChances, read_rating
from classifiers.annotation.rubric import Rubric
from storage.errors import ModelError, ResourceError
from storage.identity import fingerprint, hash_file

SLICE_ROWS = 1024
TOP_TOKENS = 20
ANSWER_TOKENS = 2
_SAID_CHARACTERS = 300
_SMALL_FILE_BYTES = 64 << 20
_WEIGHTS = ".safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True, kw_only=True)
class OfflineConfig:
    """`tensor_parallel`: GPUs that one copy of the model is spread over. `max_tokens`: the context; None: the model's.
    `dtype` "auto" is the one of the weights."""

    model: str
    tensor_parallel: int = 1
    max_tokens: int | None = None
    dtype: str = "auto"


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


class OfflineAnnotator:
    """An Annotator over `vllm.LLM`. Raises ResourceError where vLLM is not installed, ModelError for no model."""

    def __init__(self, rubric: Rubric, config: OfflineConfig, sampling: Sampling) -> None:
        self._rubric = rubric
        identify_model(config.model)
        self._model = _open_model(config)
        self._parameters = _parameters(rubric, sampling)
        self._tokenizer = self._model.get_tokenizer()
        self._most_tokens = int(self._model.llm_engine.model_config.max_model_len) - ANSWER_TOKENS

    def annotate(self, questions: Iterable[Question]) -> Iterator[Answer]:
        waiting = iter(questions)
        while asked := list(islice(waiting, SLICE_ROWS)):
            yield from self._answer(asked)

    def _answer(self, asked: list[Question]) -> Iterator[Answer]:
        fitted = [(question, *self._fit(question.text)) for question in asked]
        ready = [(question, text, ids) for question, text, ids in fitted if ids]
        for question, _, ids in fitted:
            if not ids:
                yield Answer(key=question.key, outcome=Failed(reason="empty_text", said=""), attempts=0)
        prompts = [{"prompt_token_ids": ids} for _, _, ids in ready]
        outputs = self._model.generate(prompts, self._parameters, use_tqdm=False) if prompts else []
        for (question, text, ids), output in zip(ready, outputs, strict=True):
            yield Answer(
                key=question.key,
                outcome=self._read(output.outputs[0]),
                attempts=1,
                characters=len(text),
                prompt_tokens=len(ids),
                completion_tokens=len(output.outputs[0].token_ids),
            )

    def _fit(self, text: str) -> tuple[str, list[int]]:
        """The text, halved until its prompt fits, and the prompt's ids; none for an empty text."""
        text = text[: self._rubric.text_characters]
        while text.strip():
            ids = self._encode(text)
            if len(ids) <= self._most_tokens:
                return text, ids
            text = text[: len(text) // 2]
        return text, []

    def _encode(self, text: str) -> list[int]:
        messages = list(self._rubric.messages(text))
        if self._tokenizer.chat_template is None:
            joined = "\n\n".join(message["content"] for message in messages)
            return list(self._tokenizer.encode(joined))
        prompt = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(self._tokenizer.encode(prompt, add_special_tokens=False))

    def _read(self, output: Any) -> Rating | Failed:
        places = [
            _place(token, chances) for token, chances in zip(output.token_ids, output.logprobs or (), strict=False)
        ]
        try:
            return read_rating(output.text, places, self._rubric.digits)
        except Nonsense as error:
            return Failed(reason="nonsense", said=str(error)[:_SAID_CHARACTERS])


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
            f"vLLM cannot load the model: {str(error)[:_SAID_CHARACTERS]}", at=config.model, hint="see the job's log"
        ) from error


def _parameters(rubric: Rubric, sampling: Sampling) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    return SamplingParams(
        temperature=sampling.temperature,
        seed=sampling.seed,
        max_tokens=ANSWER_TOKENS,
        logprobs=TOP_TOKENS,
        structured_outputs=StructuredOutputsParams(choice=list(rubric.digits)),
    )
