"""Greedy tokens after the prompts of a JSON file by vLLM in this process: run by an interpreter that has vLLM."""

from __future__ import annotations

import json
import sys

from vllm import LLM, SamplingParams


def main(asked: str, told: str) -> None:
    with open(asked, encoding="utf-8") as file:
        values = json.load(file)
    model = LLM(
        model=values["model"],
        dtype="float32",
        enforce_eager=True,
        max_model_len=values["length"],
        max_num_seqs=8,
        compilation_config={"custom_ops": values["custom_ops"]},
    )
    greedy = SamplingParams(temperature=0.0, max_tokens=values["tokens"], ignore_eos=True)
    answers = model.generate([{"prompt_token_ids": prompt} for prompt in values["prompts"]], greedy)
    with open(told, "w", encoding="utf-8") as file:
        json.dump([list(answer.outputs[0].token_ids) for answer in answers], file)


if __name__ == "__main__":
    main(*sys.argv[1:])
