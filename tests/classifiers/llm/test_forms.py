"""How an answer is held to its form, for each way of telling a server, and talks that vLLM's rounds hold."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from classifiers.llm.asking import Failed, JsonObject, OneOf, Prompt, Reply, Talk
from classifiers.llm.offline import OfflineModel
from classifiers.llm.server import Constraint, _form_fields

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
JSON = JsonObject(name="thing", schema=SCHEMA, max_tokens=7)


@pytest.mark.parametrize(
    ("constraint", "fields"),
    [
        ("structured_outputs", {"structured_outputs": {"json": SCHEMA}}),
        ("guided_choice", {"guided_json": SCHEMA}),
        ("none", {}),
        (
            "response_format",
            {"response_format": {
                "type": "json_schema", "json_schema": {"name": "thing", "strict": True, "schema": SCHEMA}}},
        ),
    ],
)  # fmt: skip
def test_json_is_asked_for_as_the_server_knows_it(constraint: Constraint, fields: dict[str, Any]) -> None:
    assert _form_fields(constraint, JSON) == {**fields, "max_tokens": 7}


def counting(number: int, steps: int) -> Talk[tuple[int, int]]:
    """Asks `steps` times, each time for what the last reply said and one more."""
    last = 0
    for _ in range(steps):
        came = yield Prompt(messages=[{"role": "user", "content": f"{number}"}], form=OneOf(options=("1",)))
        last += len(came.said) if isinstance(came, Reply) else -1
    return number, last


class Rounds(OfflineModel):
    """vLLM's rounds over an engine that says `x`, except to 3, which does not fit."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def _answer(self, prompts: Any) -> list[Reply | Failed]:
        self.sizes.append(len(prompts))
        said = [prompt.messages[0]["content"] for prompt in prompts]
        return [Failed(reason="too_long", said="") if number == "3" else Reply(said="x") for number in said]


def test_talks_of_any_length_are_held_in_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classifiers.llm.offline.SLICE_ROWS", 4)
    model, pulled = Rounds(), []

    def talks() -> Any:
        for number in range(11):
            pulled.append(number)
            yield counting(number, number % 5)

    found = {}
    for number, last in model.hold(talks()):
        found[number] = last
        assert len(pulled) <= len(found) + 4 + 4
    assert found == {n: -(n % 5) if n == 3 else n % 5 for n in range(11)}
    assert max(model.sizes) <= 4 and sum(model.sizes) == sum(n % 5 for n in range(11))


def test_prompts_that_do_not_fit_never_reach_the_engine() -> None:
    asked: list[int] = []

    def generate(inputs: Any, parameters: Any, use_tqdm: bool) -> Any:
        asked.extend(len(one["prompt_token_ids"]) for one in inputs)
        output = SimpleNamespace(text="1", token_ids=[5], logprobs=[{}], finish_reason="stop")
        return [SimpleNamespace(outputs=[output]) for _ in inputs]

    model = OfflineModel.__new__(OfflineModel)
    model._context = 20
    model._model = SimpleNamespace(generate=generate)
    model._encode = lambda messages: list(range(len(messages[0]["content"])))  # type: ignore[method-assign]
    prompts = [Prompt(messages=[{"content": "x" * size}], form=JSON) for size in (13, 14, 5)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("classifiers.llm.offline.sampling_parameters", lambda prompt: None)
        came = model._answer(prompts)
    assert asked == [13, 5]
    assert [one.reason if isinstance(one, Failed) else one.prompt_tokens for one in came] == [13, "too_long", 5]


def test_options_of_the_chat_template_reach_it() -> None:
    told: dict[str, Any] = {}

    def apply(messages: Any, **options: Any) -> str:
        told.update(options)
        return "prompt"

    model = OfflineModel.__new__(OfflineModel)
    model._template_options = {"enable_thinking": False}
    model._tokenizer = SimpleNamespace(
        chat_template="a template", apply_chat_template=apply, encode=lambda text, **_: [len(text)]
    )
    assert model._encode([{"role": "user", "content": "x"}]) == [6]
    assert told == {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
