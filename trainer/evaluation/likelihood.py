"""How likely a model holds a text to be after another one: the number that multiple choice, chains and needles rest on.

Texts are laid out as in training. Where context and continuation meet they are encoded together, as lm-eval does, so
that both programs score the same tokens. Invariant: a score does not depend on what else is scored. A context is read
once for all that may follow it, and only states that matter are turned into logits: four choices of 20 tokens after
600 cost a quarter of four whole texts. Batches hold up to `BATCH_TOKENS` tokens, the longest first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from tokenizers import Tokenizer
from torch import Tensor

from trainer.checkpoints.trained import Trained
from trainer.models.memory import Memory
from trainer.serving.context import Context, lay_out, logits_of, read_rows
from trainer.serving.generate import open_tokenizer

BATCH_TOKENS = 8192

Ids = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """`nats`: logarithm of the continuation's probability, never above 0; `greedy`: each token was the likeliest."""

    nats: float
    greedy: bool
    tokens: int


Score = Callable[[Sequence[tuple[str, str]]], list[Likelihood]]
"""Likelihoods of (context, continuation) pairs, in their order."""


@dataclass(frozen=True)
class _Task:
    """A context and what is scored after it: ids of continuations, and the numbers of the pairs that they stand for."""

    context: Ids
    continuations: dict[Ids, list[int]] = field(default_factory=dict)

    @property
    def cost(self) -> int:
        """Tokens that it takes to read them all."""
        return len(self.context) + sum(map(len, self.continuations))


class LikelihoodModel:
    """A trained model as a scorer of texts. `window`: tokens that it is shown at most, what training showed it."""

    def __init__(self, trained: Trained, *, window: int | None = None) -> None:
        self.trained, self.model = trained, trained.model
        self.tokenizer: Tokenizer = open_tokenizer(trained.tokenizer_file)
        longest = trained.model.config.max_positions
        self.window = min(longest, window or trained.training.sequence_length)

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Likelihood]:
        """A `Score` over texts."""
        return self.score_tokens([self.encode_pair(context, continuation) for context, continuation in pairs])

    def encode(self, text: str) -> Ids:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_pair(self, context: str, continuation: str) -> tuple[Ids, Ids]:
        """Tokens of both; spaces at the context's end belong to the continuation."""
        start = self.encode(context.rstrip())
        rest = self.encode(context + continuation)[len(start) :]
        return start, rest or self.encode(continuation)

    def score_tokens(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[Likelihood]:
        """Likelihoods of (context, continuation) ids; what does not fit the window is cut off in front."""
        self.model.eval()
        found: dict[int, Likelihood] = {
            number: Likelihood(nats=0.0, greedy=True, tokens=0) for number, (_, ids) in enumerate(pairs) if not ids
        }
        for tasks in self._batches(pairs):
            found |= self._score(tasks)
        return [found[number] for number in range(len(pairs))]

    def _batches(self, pairs: Sequence[tuple[Ids, Ids]]) -> Iterator[list[_Task]]:
        """Contexts of like length, the longest first, so that memory runs out at once or never."""
        tasks: dict[Ids, _Task] = {}
        for number, (context, continuation) in enumerate(pairs):
            if continuation:
                tail = continuation[-self.window :]
                kept = self.window + 1 - len(tail)
                short = (*context, *continuation[: len(continuation) - len(tail)])[-kept:]
                tasks.setdefault(short, _Task(short)).continuations.setdefault(tail, []).append(number)
        batch: list[_Task] = []
        for task in sorted(tasks.values(), key=lambda task: -task.cost):
            if batch and (len(batch) + 1) * batch[0].cost > BATCH_TOKENS:
                yield batch
                batch = []
            batch.append(task)
        if batch:
            yield batch

    def _score(self, tasks: Sequence[_Task]) -> Iterator[tuple[int, Likelihood]]:
        """Contexts are read once each; then their continuations, but for the last token, that nothing follows."""
        config, end = self.trained.training, self.trained.vocabulary.end_of_document
        contexts = [lay_out(task.context, end, config) for task in tasks]
        memory = Memory()
        states = read_rows(self.model, memory, [(it.ids, it.places, it.positions) for it in contexts], config)
        firsts = states[range(len(tasks)), [len(it.ids) - 1 for it in contexts]]
        owners = [number for number, task in enumerate(tasks) for _ in task.continuations]
        scored = [ids for task in tasks for ids in task.continuations]
        later = self._read_on(memory, [contexts[owner] for owner in owners], owners, scored)
        numbers = [numbers for task in tasks for numbers in task.continuations.values()]
        for ids, owner, states_TD, pairs in zip(scored, owners, later, numbers, strict=True):
            logits = logits_of(self.model, torch.cat([firsts[owner : owner + 1], states_TD[: len(ids) - 1]]), config)
            likelihood = _read_off(ids, logits)
            yield from ((pair, likelihood) for pair in pairs)

    def _read_on(
        self, memory: Memory, contexts: Sequence[Context], owners: Sequence[int], scored: Sequence[Ids]
    ) -> Sequence[Tensor]:
        """The states of all tokens of each continuation but its last."""
        longer = [number for number, ids in enumerate(scored) if len(ids) > 1]
        found = [torch.empty(0, self.model.config.hidden_size, device=self.device)] * len(scored)
        if longer:
            rows = []
            for number in longer:
                ids, context = scored[number][:-1], contexts[number]
                steps = range(len(ids))
                rows.append((ids, [context.place + it for it in steps], [context.position + it for it in steps]))
            branched = memory.rows([owners[number] for number in longer])
            states = read_rows(self.model, branched, rows, self.trained.training)
            for number, states_TD in zip(longer, states, strict=True):
                found[number] = states_TD
        return found

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def _read_off(ids: Ids, logits_TV: Tensor) -> Likelihood:
    """The likelihood of ids, each under its row of logits."""
    chances_TV = torch.log_softmax(logits_TV, dim=-1)
    nats = float(chances_TV[range(len(ids)), list(ids)].double().sum())
    return Likelihood(nats=nats, greedy=chances_TV.argmax(-1).tolist() == list(ids), tokens=len(ids))
