"""Rates the texts of a JSON file by vLLM in this process: run by an interpreter that has vLLM."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from classifiers.annotation.asking import Question, rate_texts
from classifiers.annotation.rubric import Rubric
from classifiers.llm.asking import Sampling
from classifiers.llm.offline import OfflineConfig, OfflineModel


def main(asked: str, told: str) -> None:
    with open(asked, encoding="utf-8") as file:
        values = json.load(file)
    config = OfflineConfig(model=values["model"], max_tokens=values["max_tokens"], dtype="float32")
    model, rubric = OfflineModel(config), Rubric(**values["rubric"])
    questions = (Question(key=key, text=text) for key, text in enumerate(values["texts"]))
    with open(told, "w", encoding="utf-8") as file:
        json.dump([asdict(answer) for answer in rate_texts(model, rubric, Sampling(), questions)], file)


if __name__ == "__main__":
    main(*sys.argv[1:])
