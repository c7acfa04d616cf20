"""lm-eval on our checkpoints: a model for EleutherAI's harness, which is imported here alone and only when asked for.

Likelihoods come from `LikelihoodModel`, texts from `generate`. With `plain`, an end-of-document before a text is seen
like any token and none is put before a prompt, as in the exported model under transformers, so that both give the same
figures; without it contexts are laid out as in training. The two differ for empty contexts and whole texts only, where
documents are kept apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from storage.errors import InputError, ResourceError
from trainer.checkpoints.trained import Trained, open_trained
from trainer.evaluation.likelihood import Ids, LikelihoodModel
from trainer.serving.generate import generate_texts
from trainer.serving.sampling import Sampling

TOKENS_IF_NOT_TOLD = 256
LENGTH_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


@dataclass(frozen=True, kw_only=True)
class HarnessScore:
    """A task's figures and their standard errors, as the harness computed them; items asked."""

    figures: dict[str, float]
    errors: dict[str, float]
    items: int
    shots: int


class HarnessModel:
    """What the harness asks of a model, over our own scoring and writing."""

    def __init__(self, trained: Trained, *, plain: bool = False, window: int | None = None) -> None:
        seen = replace(trained.training, reset_attention_mask=False, reset_position_ids=False)
        bare = replace(trained.training, reset_attention_mask=True, reset_position_ids=True)
        self.trained = replace(trained, training=seen) if plain else trained
        self.writing = bare if plain else trained.training
        self.model = LikelihoodModel(self.trained, window=window)

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """(nats, greedy) of each continuation; an empty context is one end-of-document."""
        end = (self.trained.vocabulary.end_of_document,)
        encoded = []
        for context, continuation in pairs:
            before, after = self.model.encode_pair(context, continuation)
            encoded.append((before or end, after))
        return [(found.nats, found.greedy) for found in self.model.score_tokens(encoded)]

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[float]:
        """Σ nats of each text's tokens, in windows that do not overlap, as the harness cuts them."""
        windows = [self._windows(self.model.encode(text)) for text in texts]
        found = iter(self.model.score_tokens([window for row in windows for window in row]))
        return [sum(next(found).nats for _ in row) for row in windows]

    def generate_until(self, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """Continuations up to a stop text; greedy unless the task samples."""
        prompts, samplings = [context for context, _ in requests], [_read_sampling(given) for _, given in requests]
        trained = self.trained
        return generate_texts(trained.model, self.model.tokenizer, prompts, trained.vocabulary, self.writing, samplings)

    def _windows(self, ids: Ids) -> list[tuple[Ids, Ids]]:
        """(context, what is scored): every id once, the last window with as much before it as it has room for."""
        size, windows = self.model.window, []
        for start in range(0, len(ids), size):
            stop = min(start + size, len(ids))
            before = ids[stop - size - 1 : start] if start else (self.trained.vocabulary.end_of_document,)
            windows.append((before, ids[start:stop]))
        return windows


@cache
def harness_class() -> Any:
    """The class that the harness knows as `--model gristmill`, with `checkpoints`, `plain` and `window` as arguments.

    Raises ResourceError where lm-eval is not installed.
    """
    try:
        from lm_eval.api.model import LM
        from lm_eval.api.registry import register_model
    except ImportError as error:
        raise ResourceError(
            f"lm-eval cannot be imported: {error}", hint="install it beside Gristmill: `pip install lm_eval`"
        ) from error

    @register_model("gristmill")
    class GristmillLM(LM):  # type: ignore[misc]
        def __init__(
            self, checkpoints: str | Trained, plain: bool = False, window: int | None = None, **_: Any
        ) -> None:
            super().__init__()
            trained = checkpoints if isinstance(checkpoints, Trained) else open_trained(Path(checkpoints))
            self.inner = HarnessModel(trained, plain=plain, window=window)

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            return self.inner.loglikelihood([request.args for request in requests])

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            return self.inner.loglikelihood_rolling([request.args[0] for request in requests])

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            return self.inner.generate_until([request.args for request in requests])

    return GristmillLM


def run_harness(
    trained: Trained,
    tasks: Sequence[str],
    *,
    include: Path | None = None,
    shots: int | None = None,
    limit: int | None = None,
) -> dict[str, HarnessScore]:
    """The harness's own figures for its tasks, which may be of the user's in `include`. Raises InputError."""
    model = harness_class()(trained)
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    try:
        found = simple_evaluate(
            model=model,
            tasks=list(tasks),
            num_fewshot=shots,
            limit=limit,
            task_manager=TaskManager(include_path=str(include) if include else None),
            bootstrap_iters=100,
            log_samples=False,
        )
    except (KeyError, ValueError, ConnectionError, FileNotFoundError) as error:
        raise InputError(
            f"the harness could not run: {str(error)[:300]}",
            hint="its tasks download their data; give tasks over local files with `--include`",
        ) from error
    return {name: _read_score(found, name) for name in found["results"]}


def _read_score(found: Mapping[str, Any], name: str) -> HarnessScore:
    """The harness names figures `acc,none` and their errors `acc_stderr,none`."""
    row = {key.partition(",")[0]: value for key, value in found["results"][name].items()}
    numbers = {key: float(value) for key, value in row.items() if isinstance(value, int | float)}
    errors = {key.removesuffix("_stderr"): value for key, value in numbers.items() if key.endswith("_stderr")}
    return HarnessScore(
        figures={key: value for key, value in numbers.items() if not key.endswith("_stderr")},
        errors=errors,
        items=int(found.get("n-samples", {}).get(name, {}).get("effective", 0)),
        shots=int(found.get("n-shot", {}).get(name, 0)),
    )


def _read_sampling(given: Mapping[str, Any]) -> Sampling:
    """The harness's generation arguments; temperature counts only where a task samples."""
    until = given.get("until") or ()
    temperature = float(given.get("temperature") or 0.0)
    samples = bool(given.get("do_sample", temperature > 0))
    return Sampling(
        max_tokens=int(next((given[name] for name in LENGTH_NAMES if name in given), TOKENS_IF_NOT_TOLD)),
        temperature=temperature if samples else 0.0,
        top_k=int(given.get("top_k") or 0),
        top_p=float(given.get("top_p") or 1.0),
        stop=tuple([until] if isinstance(until, str) else until),
    )
