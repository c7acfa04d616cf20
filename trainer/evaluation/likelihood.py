"""How likely a model holds a text to be after another one: the number that multiple choice, chains and needles rest on.

Texts are laid out as in training; only an empty context is one end-of-document. Where context and continuation meet
they are encoded together, as lm-eval does, so that both programs score the same tokens. Invariant: a score does not
depend on what else is scored. Pairs are sorted by length and batched up to `BATCH_TOKENS`; pairs that differ in their
last token only are one row (MMLU's four letters cost one pass).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from trainer.checkpoints.trained import Trained
from trainer.compute import autocast, separate_documents
from trainer.data.batches import make_batch
from trainer.serving.generate import open_tokenizer

BATCH_TOKENS = 8192
LOGITS_AT_ONCE = 1 << 28

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
class _Row:
    """One row of tokens, and from which label on each of its pairs is scored; `lasts` are the pairs' last tokens."""

    tokens: Ids
    start: int
    pairs: list[int] = field(default_factory=list)
    lasts: list[int] = field(default_factory=list)


class LikelihoodModel:
    """A trained model as a scorer of texts."""

    def __init__(self, trained: Trained) -> None:
        self.trained, self.model = trained, trained.model
        self.tokenizer: Tokenizer = open_tokenizer(trained.tokenizer_file)
        self.window = trained.model.config.max_positions
        self.device = next(trained.model.parameters()).device

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Likelihood]:
        """A `Score` over texts."""
        return self.score_tokens([self.encode_pair(context, continuation) for context, continuation in pairs])

    def encode(self, text: str) -> Ids:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_pair(self, context: str, continuation: str) -> tuple[Ids, Ids]:
        """Tokens of both; spaces at the context's end belong to the continuation."""
        if not context:
            return (self.trained.vocabulary.end_of_document,), self.encode(continuation)
        start = self.encode(context.rstrip())
        rest = self.encode(context + continuation)[len(start) :]
        return start, rest or self.encode(continuation)

    @torch.no_grad()
    def score_tokens(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[Likelihood]:
        """Likelihoods of (context, continuation) ids; what does not fit the model's positions is cut off in front."""
        self.model.eval()
        found: dict[int, Likelihood] = {
            number: Likelihood(nats=0.0, greedy=True, tokens=0) for number, (_, ids) in enumerate(pairs) if not ids
        }
        for rows in self._batches(pairs):
            logits_BTV = self._logits(rows)
            for row, logits_TV in zip(rows, logits_BTV, strict=True):
                found |= zip(row.pairs, _score_row(row, logits_TV), strict=True)
        return [found[number] for number in range(len(pairs))]

    def _batches(self, pairs: Sequence[tuple[Ids, Ids]]) -> Iterator[list[_Row]]:
        """Rows of like length, the longest first, so that memory runs out at once or never."""
        rows: dict[tuple[Ids, int], _Row] = {}
        for number, (context, continuation) in enumerate(pairs):
            if not continuation:
                continue
            tokens = (*context, *continuation)[-(self.window + 1) :]
            start = max(0, len(tokens) - 1 - len(continuation))
            row = rows.setdefault((tokens[:-1], start), _Row(tokens[:-1], start))
            row.pairs.append(number)
            row.lasts.append(tokens[-1])
        ordered = sorted(rows.values(), key=lambda row: -len(row.tokens))
        budget = min(BATCH_TOKENS, LOGITS_AT_ONCE // self.model.config.vocabulary_size)
        while ordered:
            count = max(1, budget // max(1, len(ordered[0].tokens)))
            yield ordered[:count]
            ordered = ordered[count:]

    def _logits(self, rows: Sequence[_Row]) -> Tensor:
        """Logits [B, T, vocabulary]; rows are filled up behind, where no token looks."""
        end, config = self.trained.vocabulary.end_of_document, self.trained.training
        longest = len(rows[0].tokens)
        filled = [np.array([*row.tokens, *[end] * (longest + 1 - len(row.tokens))], dtype=np.int64) for row in rows]
        batch = make_batch(filled, end, config).to(self.device)
        with autocast(self.device, config):
            logits: Tensor = self.model(batch.tokens, batch.positions, separate_documents(batch, config))
        return logits


def _score_row(row: _Row, logits_TV: Tensor) -> Iterable[Likelihood]:
    """One likelihood a pair of the row: the labels that they share, and each one's last."""
    chances_TV = torch.log_softmax(logits_TV[row.start : len(row.tokens)].float(), dim=-1)
    best_T = chances_TV.argmax(-1).tolist()
    shared = row.tokens[row.start + 1 :]
    nats = float(chances_TV[range(len(shared)), list(shared)].double().sum())
    greedy = all(best == token for best, token in zip(best_T, shared, strict=False))
    for last in row.lasts:
        yield Likelihood(
            nats=nats + float(chances_TV[-1, last]), greedy=greedy and best_T[-1] == last, tokens=len(shared) + 1
        )
