"""The talks: a passage in, what the model wrote of it out, or why there is nothing.

Invariant: a talk has an outcome for all of its passage: one that does not fit the model's context is cut in two, and
each half has its own. The chain names sentences by their numbers and never copies text, so the segments that abstracts
are made of are exact slices of the source. Tokens are counted by step, those of failures too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from classifiers.llm.asking import SAID_CHARACTERS, TOO_LONG, Failed, Nonsense, Prompt, Reply, Talk
from classifiers.synthesis.answers import Abstract, Facts, Pairs, Reasoning, S, Segments, Text, form_of, read_answer
from classifiers.synthesis.brief import Brief
from classifiers.synthesis.passages import Passage, Span, cut_passages, cut_sentences, estimate_tokens, trim

ASKED = 2
"""Times that a step is asked whose answer is not what was asked for; the seed goes up by one."""
SHORT_ANSWER = 256
"""Tokens of a list of numbers or of an abstract."""


@dataclass
class Tokens:
    """What a step took, over all of its requests."""

    requests: int = 0
    prompt: int = 0
    completion: int = 0


@dataclass(frozen=True, kw_only=True)
class Written:
    """A text that the model wrote. `query` and `chain` are parts of a chain's; `spans` what it was made from, in order;
    `tokens` are those of the answer that it stands in."""

    text: str
    spans: tuple[Span, ...]
    tokens: int
    query: str | None = None
    chain: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of the bytes of a passage. `step` is the last one that was asked."""

    passage: Passage
    result: Written | Failed
    step: str = ""
    tokens: Mapping[str, Tokens] = field(default_factory=dict)

    @property
    def attempts(self) -> int:
        return sum(tokens.requests for tokens in self.tokens.values())


class _Unanswered(Exception):
    """A step that has no answer."""

    def __init__(self, step: str, failed: Failed) -> None:
        super().__init__(step)
        self.step, self.failed = step, failed


def write(passage: Passage, language: str | None, brief: Brief, seed: int) -> Talk[list[Outcome]]:
    """The talk about one passage: an outcome, or one for each piece that it had to be cut into."""
    size = estimate_tokens(passage.text)
    if size < brief.least_tokens:
        return [Outcome(passage=passage, result=_too_short(size, brief))]
    writer = _Writer(brief, language, seed)
    try:
        result: Written | Failed = yield from writer.write(passage)
        step = ""
    except _Unanswered as error:
        result, step = error.failed, error.step
    outcome = Outcome(passage=passage, result=result, step=step, tokens=dict(writer.tokens))
    if isinstance(result, Failed) and result.reason == TOO_LONG and size >= 2 * brief.least_tokens:
        return (yield from _halve(outcome, language, brief, seed))
    return [outcome]


def _too_short(tokens: int, brief: Brief) -> Failed:
    if not tokens:
        return Failed(reason="empty_text", said="")
    return Failed(reason="too_short", said=f"{tokens} tokens at most, of at least {brief.least_tokens}")


def _halve(outcome: Outcome, language: str | None, brief: Brief, seed: int) -> Talk[list[Outcome]]:
    """The same of two halves or more; the first outcome has the tokens of the try that was too long."""
    passage = outcome.passage
    half = -(-estimate_tokens(passage.text) // 2)
    outcomes: list[Outcome] = []
    for piece in cut_passages(passage.text, half, passage.span.start):
        outcomes += yield from write(piece, language, brief, seed)
    first = outcomes[0]
    tokens = {
        step: _add(outcome.tokens.get(step), first.tokens.get(step)) for step in {**outcome.tokens, **first.tokens}
    }
    return [Outcome(passage=first.passage, result=first.result, step=first.step, tokens=tokens), *outcomes[1:]]


def _add(one: Tokens | None, other: Tokens | None) -> Tokens:
    one, other = one or Tokens(), other or Tokens()
    return Tokens(one.requests + other.requests, one.prompt + other.prompt, one.completion + other.completion)


class _Writer:
    """One try at one passage."""

    def __init__(self, brief: Brief, language: str | None, seed: int) -> None:
        self._brief, self._language, self._seed = brief, language, seed
        self.tokens: dict[str, Tokens] = defaultdict(Tokens)
        self._last = 0

    def write(self, passage: Passage) -> Talk[Written]:
        """Raises _Unanswered where a step has no answer."""
        if self._brief.kind == "chain":
            return (yield from self._reason(passage))
        text = yield from self._rewrite(passage.text)
        return Written(text=text, spans=(passage.span,), tokens=self._last)

    def _rewrite(self, source: str) -> Talk[str]:
        values, limit = {"text": source}, self._brief.answer_tokens
        if self._brief.kind == "text":
            return (yield from self._ask("write", values, Text, limit)).text.strip()
        if self._brief.kind == "list":
            facts = (yield from self._ask("write", values, Facts, limit)).facts
            return "\n".join(f"- {' '.join(fact.split())}" for fact in facts)
        wording = self._brief.wording(self._language)
        pairs = (yield from self._ask("write", values, Pairs, limit)).pairs
        return "\n\n".join(
            f"{wording.question_label}{pair.question.strip()}\n{wording.answer_label}{pair.answer.strip()}"
            for pair in pairs
        )

    def _reason(self, passage: Passage) -> Talk[Written]:
        segments = yield from self._segment(passage)
        abstracts = []
        for segment in segments:
            said = yield from self._ask("abstract", {"text": segment.text}, Abstract, SHORT_ANSWER)
            abstracts.append(" ".join(said.abstract.split()))
        values = {"text": passage.text, "abstracts": _numbered(abstracts)}
        reasoning = yield from self._ask("question", values, Reasoning, self._brief.answer_tokens)
        query, chain = reasoning.question.strip(), _numbered([step.strip() for step in reasoning.steps])
        spans = tuple(segment.span for segment in segments)
        return Written(text=f"{query}\n\n{chain}", spans=spans, tokens=self._last, query=query, chain=chain)

    def _segment(self, passage: Passage) -> Talk[list[Passage]]:
        """The passage in the segments that the model names by their first sentences."""
        sentences = cut_sentences(passage.text)
        if len(sentences) == 1:
            return [passage]
        values = {"sentences": "\n".join(f"[{i}] {sentence.strip()}" for i, sentence in enumerate(sentences, 1))}
        for again in range(ASKED):
            said = yield from self._ask("segment", values, Segments, SHORT_ANSWER, more=again)
            if fault := segments_fault(said.starts, len(sentences)):
                continue
            return take_segments(passage, sentences, said.starts)
        raise _Unanswered("segment", Failed(reason="bad_segments", said=fault))

    def _ask(self, step: str, values: Mapping[str, str], kind: type[S], max_tokens: int, more: int = 0) -> Talk[S]:
        """The answer to a step. Raises _Unanswered where there is none."""
        failed = Failed(reason="nonsense", said="")
        for again in range(ASKED):
            came = yield Prompt(
                messages=self._brief.messages(self._language, step, values),
                form=form_of(kind, max_tokens),
                temperature=self._brief.temperature,
                seed=self._seed + again + more,
            )
            self._count(step, came)
            if isinstance(came, Failed):
                raise _Unanswered(step, came)
            try:
                return read_answer(came, kind)
            except Nonsense as error:
                failed = Failed(reason="cut_off" if came.is_cut else "nonsense", said=str(error))
        raise _Unanswered(step, failed)

    def _count(self, step: str, came: Reply | Failed) -> None:
        tokens = self.tokens[step]
        tokens.requests += came.attempts
        if isinstance(came, Reply):
            tokens.prompt += came.prompt_tokens
            tokens.completion += came.completion_tokens
            self._last = came.completion_tokens


def _numbered(lines: list[str]) -> str:
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))


def segments_fault(starts: list[int], sentences: int) -> str:
    """What is wrong with segments that begin at these sentences, counted from 1; nothing: an empty string."""
    said = f"segments begin at {starts} of {sentences} sentences"[:SAID_CHARACTERS]
    if starts[0] != 1:
        return f"{said}: the first begins elsewhere"
    if any(later <= earlier for earlier, later in pairwise(starts)):
        return f"{said}: they overlap or are out of order"
    return f"{said}: there is no such sentence" if starts[-1] > sentences else ""


def take_segments(passage: Passage, sentences: list[str], starts: list[int]) -> list[Passage]:
    """The slices of a passage from each start to the next."""
    segments, first = [], passage.span.start
    for start, end in pairwise([*starts, len(sentences) + 1]):
        piece = "".join(sentences[start - 1 : end - 1])
        segments.append(trim(piece, first))
        first += len(piece.encode())
    return segments
