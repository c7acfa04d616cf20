"""Text from a model: what it writes after prompts, whole or token by token.

What is sampled is what was learned: the context is laid out as in training (see `continuation`), and only ids of the
vocabulary are drawn, never its padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from storage.errors import ModelError
from trainer.data.mixture import Vocabulary
from trainer.models.contract import LanguageModel
from trainer.serving.continuation import Continuation, Continuations
from trainer.serving.sampling import Sampling
from trainer.settings import TrainingConfig

AT_ONCE = 32


def open_tokenizer(path: Path) -> Tokenizer:
    """The `tokenizer.json` at `path`. Raises ModelError when it is not one."""
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ModelError(f"not a tokenizer: {error}", at=str(path)) from error


def generate_tokens(
    model: LanguageModel, prompt: Sequence[int], vocabulary: Vocabulary, config: TrainingConfig, sampling: Sampling
) -> list[int]:
    """The ids that follow `prompt`, up to end-of-document (left out) or `max_tokens`."""
    return continue_all(model, [Continuation(prompt, sampling)], vocabulary, config)[0].ids


def continue_all(
    model: LanguageModel, continuations: Iterable[Continuation], vocabulary: Vocabulary, config: TrainingConfig
) -> list[Continuation]:
    """Write all of them to their ends, `AT_ONCE` at a time, and return them in their order."""
    waiting, running = list(continuations), Continuations(model, vocabulary, config)
    everything = list(waiting)
    while waiting or len(running):
        free = AT_ONCE - len(running)
        running.add(waiting[:free])
        waiting = waiting[free:]
        running.step()
    return everything


def generate_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    vocabulary: Vocabulary,
    config: TrainingConfig,
    sampling: Sampling,
) -> str:
    """What the model writes after `prompt`; an empty prompt begins a document."""
    return generate_texts(model, tokenizer, [prompt], vocabulary, config, [sampling])[0]


def generate_texts(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    vocabulary: Vocabulary,
    config: TrainingConfig,
    samplings: Sequence[Sampling],
) -> list[str]:
    """What the model writes after each prompt, up to one of its sampling's stop texts (left out)."""
    continuations = [
        Continuation(tokenizer.encode(prompt, add_special_tokens=False).ids, sampling, tokenizer)
        for prompt, sampling in zip(prompts, samplings, strict=True)
    ]
    return [continuation.text for continuation in continue_all(model, continuations, vocabulary, config)]
