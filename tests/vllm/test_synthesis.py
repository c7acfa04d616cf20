"""A real model writes through `vllm serve` and in vLLM's own process, held to JSON: texts, or failures with a reason.

A model of 135 M parameters writes nothing worth reading; that its answers have the form, are traceable and are counted
is what is tested.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from classifiers.llm.asking import Failed
from classifiers.llm.server import ServerConfig, ServerModel, find_served_model
from classifiers.synthesis.brief import Brief
from classifiers.synthesis.passages import trim
from classifiers.synthesis.writing import Outcome, Written, write
from pipelines.briefs import load_brief
from tests.corpus import english
from tests.vllm.conftest import CONTEXT, run

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]

TEXTS = [" ".join(english(seed, 6)) for seed in range(6)]
LONG = "\n".join(english(9, 60))
REASONS = {"nonsense", "cut_off", "bad_segments", "too_long"}


def small(name: str) -> Brief:
    """A shipped brief whose answers fit the small context; a small model repeats itself until it is stopped."""
    return replace(load_brief(name), answer_tokens=160, least_tokens=10, temperature=0.0)


def serve(url: str, brief: Brief, texts: list[str]) -> list[Outcome]:
    model = ServerModel(ServerConfig(url=url, model=find_served_model(url, None, None), timeout_seconds=600))
    talks = (write(trim(text, 0), "en", brief, 0) for text in texts)
    return [outcome for outcomes in model.hold(talks) for outcome in outcomes]


@pytest.mark.parametrize("name", ["distill", "knowledge_list", "diverse_qa", "chain_of_thought"])
def test_every_text_is_written_from_or_has_a_reason(vllm_server: str, name: str) -> None:
    outcomes = serve(vllm_server, small(name), TEXTS)
    assert len(outcomes) == len(TEXTS)
    for outcome in outcomes:
        assert sum(tokens.prompt for tokens in outcome.tokens.values()) > 100
        if isinstance(outcome.result, Failed):
            assert outcome.result.reason in REASONS, outcome
        else:
            assert outcome.result.text and 0 < outcome.result.tokens <= 160
    print(name, [getattr(outcome.result, "reason", "written") for outcome in outcomes])


def test_a_text_above_the_context_is_written_from_in_pieces(vllm_server: str) -> None:
    outcomes = serve(vllm_server, small("distill"), [LONG])
    spans = sorted(outcome.passage.span for outcome in outcomes)
    assert len(spans) > 1 and spans[0].start == 0 and spans[-1].end == len(LONG.encode())
    assert outcomes[0].attempts >= 2


def test_both_ways_to_vllm_write(
    vllm_server: str, vllm_python: Path, small_model: Path, vllm_environment: dict[str, str], project_root: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    brief = small("knowledge_list")
    asked = {"model": str(small_model), "max_tokens": CONTEXT, "brief": asdict(brief), "texts": [*TEXTS, LONG]}
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    script = project_root / "tests" / "vllm" / "offline_writing.py"
    run(vllm_python, script, tmp_path / "asked.json", tmp_path / "told.json", env=vllm_environment)
    offline: list[dict[str, Any]] = json.loads((tmp_path / "told.json").read_text())
    served = serve(vllm_server, brief, [*TEXTS, LONG])
    assert {_place(found["passage"]["span"]) for found in offline} == {_place(vars(o.passage.span)) for o in served}
    written = [found["result"]["text"] for found in offline if "spans" in found["result"]]
    said = [outcome.result.text for outcome in served if isinstance(outcome.result, Written)]
    print(len(offline), "outcomes,", len(written), "written offline,", len(said), "by the server")
    assert written and said and all(text.startswith("- ") for text in written + said)


def _place(span: dict[str, int]) -> tuple[int, int]:
    return span["start"], span["end"]
