"""A real model rates through `vllm serve` and in vLLM's own process: both ways say the same of the same texts."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from classifiers.annotation.asking import Answer, Question, rate_texts
from classifiers.annotation.rating import Rating
from classifiers.llm.asking import Sampling
from classifiers.llm.server import ServerConfig, ServerModel, choose_constraint, find_served_model
from pipelines.rubrics import load_rubric
from tests.corpus import chinese, english
from tests.vllm.conftest import CONTEXT, run

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]

RUBRIC = load_rubric("educational_direct_en")
TEXTS = ["\n".join(english(seed, 8)) for seed in range(20)] + ["\n".join(chinese(1, 8)), "word " * 4000, "  "]
LONG, EMPTY = len(TEXTS) - 2, len(TEXTS) - 1
TOLERANCE = 0.02
"""Of an expected value on 0-5: batches of other sizes sum in another order."""


@pytest.fixture(scope="module")
def served(vllm_server: str) -> dict[int, Answer]:
    assert choose_constraint(vllm_server, None) == "structured_outputs"
    config = ServerConfig(url=vllm_server, model=find_served_model(vllm_server, None, None), timeout_seconds=600)
    questions = (Question(key=key, text=text) for key, text in enumerate(TEXTS))
    return {answer.key: answer for answer in rate_texts(ServerModel(config), RUBRIC, Sampling(), questions)}


@pytest.fixture(scope="module")
def offline(
    vllm_python: Path, small_model: Path, vllm_environment: dict[str, str], project_root: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[int, dict[str, Any]]:  # fmt: skip
    folder = tmp_path_factory.mktemp("offline")
    asked = {"model": str(small_model), "max_tokens": CONTEXT, "rubric": asdict(RUBRIC), "texts": TEXTS}
    (folder / "asked.json").write_text(json.dumps(asked))
    script = project_root / "tests" / "vllm" / "offline_ratings.py"
    run(vllm_python, script, folder / "asked.json", folder / "told.json", env=vllm_environment)
    return {answer["key"]: answer for answer in json.loads((folder / "told.json").read_text())}


def test_a_server_rates_every_text_by_one_digit(served: dict[int, Answer]) -> None:
    for key in range(EMPTY):
        rating = served[key].outcome
        assert isinstance(rating, Rating), served[key]
        assert rating.probabilities and sum(rating.probabilities) == pytest.approx(1)
        assert 0 <= rating.score <= 5 and rating.mass and 0 < rating.mass <= 1
        assert served[key].completion_tokens <= 2 and served[key].prompt_tokens > 100
    assert served[LONG].characters < 8192 and served[LONG].prompt_tokens <= CONTEXT
    assert not isinstance(served[EMPTY].outcome, Rating)


def test_both_ways_to_vllm_agree(served: dict[int, Answer], offline: dict[int, dict[str, Any]]) -> None:
    assert set(served) == set(offline)
    for key, answer in served.items():
        theirs = offline[key]["outcome"]
        if isinstance(answer.outcome, Rating):
            assert theirs["score"] == pytest.approx(answer.outcome.score, abs=TOLERANCE), key
            assert offline[key]["prompt_tokens"] == answer.prompt_tokens, key
            assert offline[key]["characters"] == answer.characters
        else:
            assert theirs["reason"] == answer.outcome.reason
