"""A brief: what a language model is asked to write from a text, in which languages, and how much of the text it sees.

Invariant: `version` is a hash of all that can change what is written, so texts of two wordings are never mixed. A text
is asked about in its own language where the brief has a wording for it, else in the first wording of the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from classifiers.llm.asking import Messages
from storage.errors import RecipeError
from storage.identity import fingerprint

Kind = Literal["text", "pairs", "list", "chain"]
SourceText = Literal["none", "before", "after"]
PLACES: Mapping[Kind, Mapping[str, tuple[str, ...]]] = {
    "text": {"write": ("text",)},
    "pairs": {"write": ("text",)},
    "list": {"write": ("text",)},
    "chain": {"segment": ("sentences",), "abstract": ("text",), "question": ("text", "abstracts")},
}
"""The steps of each kind, and what stands in their prompts, once each and in braces."""
_PLACE = re.compile(r"\{(text|sentences|abstracts)\}")


@dataclass(frozen=True, kw_only=True)
class Wording:
    """A brief in one language: a prompt for each step, and what stands before questions and answers of pairs."""

    prompts: Mapping[str, str]
    system: str = ""
    question_label: str = "Question: "
    answer_label: str = "Answer: "


@dataclass(frozen=True, kw_only=True)
class Brief:
    """`where`: the documents that it is for, an SQL condition. `source_text`: where the source stands beside what was
    written. `passage_tokens`, `least_tokens`: longer texts are cut, shorter ones left out. `most_copied`: the share of
    the source's own 8-grams above which a text is no new one; None: any share is."""

    name: str
    kind: Kind
    wordings: Mapping[str, Wording]
    where: str | None = None
    source_text: SourceText = "none"
    passage_tokens: int = 1000
    least_tokens: int = 30
    answer_tokens: int = 1000
    temperature: float = 0.7
    most_copied: float | None = 0.5

    def __post_init__(self) -> None:
        if not self.wordings:
            raise RecipeError(f"brief `{self.name}` has no wording")
        for language, wording in self.wordings.items():
            self._check_prompts(language, wording)
        if not 0 < self.least_tokens <= self.passage_tokens or self.answer_tokens < 1:
            raise RecipeError(
                f"brief `{self.name}` shows from {self.least_tokens} to {self.passage_tokens} tokens and takes "
                f"{self.answer_tokens}",
                hint="let `least_tokens` be above 0 and at most `passage_tokens`, `answer_tokens` above 0",
            )

    def _check_prompts(self, language: str, wording: Wording) -> None:
        steps = PLACES[self.kind]
        if set(wording.prompts) != set(steps):
            raise RecipeError(
                f"wording `{language}` of brief `{self.name}` has the prompts {', '.join(sorted(wording.prompts))}",
                hint=f"a brief of kind `{self.kind}` has {', '.join(steps)}",
            )
        for step, places in steps.items():
            found = sorted(match[1] for match in _PLACE.finditer(wording.prompts[step]))
            if found != sorted(places):
                held = ", ".join(f"`{{{name}}}`" for name in found) or "no place"
                wanted = " and ".join(f"`{{{name}}}`" for name in places)
                raise RecipeError(
                    f"the prompt `{step}` of wording `{language}` has {held}", hint=f"write {wanted}, once"
                )

    def version(self) -> str:
        """32 hex digits of the wordings and of all else that can change what is written."""
        asked = [self.kind, self.wordings, self.source_text, self.passage_tokens, self.least_tokens]
        return fingerprint([*asked, self.answer_tokens, self.temperature])

    def wording(self, language: str | None) -> Wording:
        """The wording for a language (`zh`), else the first."""
        return self.wordings.get(language or "") or next(iter(self.wordings.values()))

    def messages(self, language: str | None, step: str, values: Mapping[str, str]) -> Messages:
        """The chat of a step; what the values say is not interpreted."""
        wording = self.wording(language)
        asked = _PLACE.sub(lambda match: values[match[1]], wording.prompts[step])
        user = {"role": "user", "content": asked}
        return [{"role": "system", "content": wording.system}, user] if wording.system else [user]


def brief_from_json(values: Mapping[str, Any]) -> Brief:
    """A Brief again from `dataclasses.asdict` through JSON."""
    wordings = {language: Wording(**wording) for language, wording in values["wordings"].items()}
    return Brief(**{**values, "wordings": wordings})
