"""Rates the texts of a JSON file by vLLM in this process: run by an interpreter that has vLLM."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from classifiers.annotation.asking import Question, Sampling
from classifiers.annotation.offline import OfflineAnnotator, OfflineConfig
from classifiers.annotation.rubric import Rubric


def main(asked: str, told: str) -> None:
    with open(asked, encoding="utf-8") as file:
        values = json.load(file)
    config = OfflineConfig(model=values["model"], max_tokens=values["max_tokens"], dtype="float32")
    annotator = OfflineAnnotator(Rubric(**values["rubric"]), config, Sampling())
    questions = (Question(key=key, text=text) for key, text in enumerate(values["texts"]))
    with open(told, "w", encoding="utf-8") as file:
        json.dump([asdict(answer) for answer in annotator.annotate(questions)], file)


if __name__ == "__main__":
    main(*sys.argv[1:])
