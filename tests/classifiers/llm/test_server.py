"""A server that does everything wrong: each document gets its one answer, in time, and the key is nowhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from classifiers.annotation.asking import Answer, Question, rate_texts
from classifiers.annotation.rating import Rating
from classifiers.annotation.rubric import Rubric
from classifiers.llm.asking import Failed, Sampling
from classifiers.llm.server import (
    ServerConfig,
    ServerModel,
    check_url,
    choose_constraint,
    find_served_model,
)
from storage.errors import InputError, ResourceError
from tests.rating_server import MODEL, RatingServer, rating_server

RUBRIC = Rubric(name="toy", prompt="Grade:\n----------\n{text}\n----------\n", best="good", worst="bad")
KEY = "sk-very-secret-0123456789"


@pytest.fixture
def server() -> Iterator[RatingServer]:
    with rating_server() as running:
        yield running


def ask(server: RatingServer, texts: list[str], *, key: str | None = None, **config: Any) -> list[Answer]:
    quick = {"timeout_seconds": 1.0, "attempts": 3, "backoff_seconds": 0.01, "concurrency": 8, **config}
    chosen = ServerConfig(url=server.url, model=MODEL, **quick)
    model = ServerModel(chosen, key=key)
    questions = (Question(key=number, text=text) for number, text in enumerate(texts))
    answers = sorted(rate_texts(model, RUBRIC, Sampling(seed=7), questions), key=lambda found: found.key)
    assert [found.key for found in answers] == list(range(len(texts)))
    return answers


def failed(found: Answer) -> str:
    return found.outcome.reason if isinstance(found.outcome, Failed) else "rated"


def test_good_answers_are_ratings(server: RatingServer) -> None:
    (found,) = ask(server, ["a text, grade=4"])
    assert isinstance(found.outcome, Rating) and found.outcome.argmax == 4
    assert found.outcome.score == pytest.approx((0.6 * 4 + 0.2 * 5 + 0.1 * 3) / 0.9)
    assert (found.prompt_tokens, found.completion_tokens, found.attempts) == (100, 1, 1)
    (payload,) = server.payloads
    assert payload["structured_outputs"] == {"choice": list("012345")}
    assert (payload["seed"], payload["temperature"], payload["model"]) == (7, 0.0, MODEL)


@pytest.mark.parametrize(
    ("text", "reason", "attempts"),
    [
        ("BUSY grade=2", "rated", 3),
        ("PROSE", "rated", 1),
        ("BROKEN", "status_500", 3),
        ("NONSENSE", "nonsense", 2),
        ("GARBAGE", "no_answer", 2),
        ("CUT", "no_connection", 3),
        ("   ", "empty_text", 0),
    ],
)
def test_each_way_to_go_wrong_has_its_reason(server: RatingServer, text: str, reason: str, attempts: int) -> None:
    (found,) = ask(server, [text])
    assert (failed(found), found.attempts) == (reason, attempts)
    assert server.asked.total() == attempts


def test_options_of_the_chat_template_are_told(server: RatingServer) -> None:
    ask(server, ["grade=1"], template_options={"enable_thinking": False})
    ask(server, ["grade=2"])
    assert server.payloads[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert "chat_template_kwargs" not in server.payloads[1]


def test_nonsense_is_on_record(server: RatingServer) -> None:
    (found,) = ask(server, ["NONSENSE"])
    assert isinstance(found.outcome, Failed) and found.outcome.said == "I would rather not grade this."


@pytest.mark.parametrize("word", ["STALL", "DRIBBLE"])
def test_a_server_that_does_not_end_is_left_in_time(server: RatingServer, word: str) -> None:
    started = time.monotonic()
    (found,) = ask(server, [word], timeout_seconds=0.3, attempts=2)
    assert failed(found) == "timeout" and time.monotonic() - started < 2.5


def test_a_text_above_the_context_is_halved(server: RatingServer) -> None:
    (found,) = ask(server, ["LONG grade=5 " + "x" * 1000])
    assert isinstance(found.outcome, Rating) and found.outcome.argmax == 5
    assert found.characters <= 400 and found.attempts == 3


def test_the_bad_ones_do_not_disturb_the_others(server: RatingServer) -> None:
    texts = [f"text {n}, grade={n % 6}" for n in range(60)]
    texts[5], texts[17], texts[40] = "BROKEN", "NONSENSE", "CUT"
    answers = ask(server, texts)
    grades = [found.outcome.argmax for found in answers if isinstance(found.outcome, Rating)]
    assert grades == [n % 6 for n in range(60) if n not in (5, 17, 40)]


def test_no_more_requests_are_in_flight_than_asked_for(server: RatingServer) -> None:
    server.delay = 0.02
    ask(server, [f"text {n}" for n in range(40)], concurrency=4)
    assert 2 <= server.most_at_once <= 4


def test_questions_are_pulled_only_as_they_are_answered(server: RatingServer) -> None:
    pulled: list[int] = []

    def questions() -> Iterator[Question]:
        for number in range(100):
            pulled.append(number)
            yield Question(key=number, text="a text")

    config = ServerConfig(url=server.url, model=MODEL, concurrency=4)
    answers = rate_texts(ServerModel(config), RUBRIC, Sampling(), questions())
    next(answers)
    assert len(pulled) <= 8
    answers.close()  # type: ignore[attr-defined]


def test_a_server_that_dies_is_not_asked_for_ever(server: RatingServer) -> None:
    server.dead_after = 10
    answers = ask(server, [f"text {n}" for n in range(300)], concurrency=4, attempts=2)
    reasons = [failed(found) for found in answers]
    assert reasons.count("rated") >= 7 and reasons.count("server_gone") > 250
    assert server.asked.total() == 10


def test_the_key_goes_to_the_server_and_nowhere_else(server: RatingServer) -> None:
    server.key = KEY
    answers = ask(server, ["grade=3", "KEY"], key=KEY)
    assert server.keys == {f"Bearer {KEY}"}
    assert failed(answers[0]) == "rated" and failed(answers[1]) == "status_500"
    assert KEY not in repr(answers) and "[key]" in repr(answers)


def test_a_wrong_key_stops_everything_and_is_not_repeated(server: RatingServer) -> None:
    server.key = "another"
    with pytest.raises(InputError, match="401") as told:
        ask(server, ["grade=3"] * 20, key=KEY)
    assert KEY not in str(told.value)
    with pytest.raises(InputError) as told:
        find_served_model(server.url, KEY, None)
    assert KEY not in str(told.value)


def test_the_model_is_found_or_named(server: RatingServer) -> None:
    assert find_served_model(server.url, None, None) == MODEL
    with pytest.raises(InputError, match="does not serve `other`"):
        find_served_model(server.url, None, "other")


def test_no_server_is_said_in_one_line() -> None:
    with pytest.raises(ResourceError, match="no server answers"):
        find_served_model("http://127.0.0.1:9/v1", None, None)


@pytest.mark.parametrize(
    ("version", "constraint"),
    [("0.32.0", "structured_outputs"), ("0.10.2", "structured_outputs"), ("0.9.1", "guided_choice"),
     (None, "response_format")],
)  # fmt: skip
def test_the_constraint_is_the_one_that_the_server_knows(
    server: RatingServer, version: str | None, constraint: str
) -> None:
    server.version = version
    assert choose_constraint(server.url, None) == constraint


@pytest.mark.parametrize("url", ["ftp://host/v1", "localhost", "http://me:secret@host/v1", "http://host/v1?key=secret"])
def test_an_address_that_is_none_or_holds_a_secret_is_refused(url: str) -> None:
    with pytest.raises(InputError) as told:
        check_url(url)
    assert "secret" not in str(told.value)
