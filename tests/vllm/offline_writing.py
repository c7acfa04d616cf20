"""Writes from the texts of a JSON file by vLLM in this process: run by an interpreter that has vLLM."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from classifiers.llm.offline import OfflineConfig, OfflineModel
from classifiers.synthesis.brief import brief_from_json
from classifiers.synthesis.passages import trim
from classifiers.synthesis.writing import write


def main(asked: str, told: str) -> None:
    with open(asked, encoding="utf-8") as file:
        values = json.load(file)
    model = OfflineModel(OfflineConfig(model=values["model"], max_tokens=values["max_tokens"], dtype="float32"))
    brief = brief_from_json(values["brief"])
    talks = (write(trim(text, 0), "en", brief, 0) for text in values["texts"])
    with open(told, "w", encoding="utf-8") as file:
        json.dump([asdict(outcome) for outcomes in model.hold(talks) for outcome in outcomes], file)


if __name__ == "__main__":
    main(*sys.argv[1:])
