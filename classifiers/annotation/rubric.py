"""A rubric: what a language model is asked about a text, on which scale, and how much of the text it is shown.

Invariant: `version` is a hash of every character that can change an answer, so labels of two wordings are never mixed.
Trade-off: an answer is one digit. That costs one generated token instead of the some hundred of a justification, and
the score is then read from the probabilities of the digits, which says more than the digit does.
"""

from __future__ import annotations

from dataclasses import dataclass

from classifiers.llm.asking import Messages
from storage.errors import RecipeError
from storage.identity import fingerprint

PLACE = "{text}"


@dataclass(frozen=True, kw_only=True)
class Rubric:
    """`system` and `prompt` are the two messages, the prompt with `{text}` once; the scale is `lowest`-`highest`.

    `text_characters`: what is beyond is not shown. `threshold`: from here on a text counts as good. `best` and `worst`
    say in words what the ends of the scale are.
    """

    name: str
    prompt: str
    system: str = ""
    lowest: int = 0
    highest: int = 5
    threshold: float = 3.0
    text_characters: int = 8192
    best: str
    worst: str

    def __post_init__(self) -> None:
        if not 0 <= self.lowest < self.highest <= 9:
            raise RecipeError(
                f"rubric `{self.name}` rates from {self.lowest} to {self.highest}; a rating is one digit",
                hint="let `lowest` and `highest` be digits, the first the smaller",
            )
        if self.prompt.count(PLACE) != 1:
            raise RecipeError(
                f"the prompt of rubric `{self.name}` has `{PLACE}` {self.prompt.count(PLACE)} times",
                hint=f"write `{PLACE}` once, where the document goes",
            )
        if not self.lowest < self.threshold <= self.highest:
            raise RecipeError(f"the threshold of rubric `{self.name}`, {self.threshold:g}, is not on its scale")
        if self.text_characters < 1:
            raise RecipeError(f"rubric `{self.name}` shows {self.text_characters} characters of a text")

    @property
    def digits(self) -> tuple[str, ...]:
        return tuple(str(digit) for digit in range(self.lowest, self.highest + 1))

    def version(self) -> str:
        """32 hex digits of the wording, the scale and the limit."""
        return fingerprint([self.system, self.prompt, self.lowest, self.highest, self.text_characters])

    def messages(self, text: str) -> Messages:
        """The chat that asks about the text, cut to `text_characters`; what the text says is not interpreted."""
        before, _, after = self.prompt.partition(PLACE)
        asked = {"role": "user", "content": before + text[: self.text_characters] + after}
        return [{"role": "system", "content": self.system}, asked] if self.system else [asked]
