"""Stories for a judge: several completions of each prompt, as TinyStories' GPT-Eval has ten (2305.07759, section 4).

The file is all that the judge needs: a JSON line a completion with its prompt, its number and who wrote it. Grading is
the data side's business (`gristmill grade-stories`), which asks a language model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from storage.commit import write_atomically
from storage.errors import InputError
from trainer.checkpoints.trained import Trained
from trainer.evaluation.rows import kind_of, read_rows, read_texts
from trainer.serving.continuation import Continuation
from trainer.serving.generate import continue_all, open_tokenizer
from trainer.serving.sampling import Sampling

FORMAT_VERSION = 1


def complete_stories(trained: Trained, prompts: Path, out: Path, sampling: Sampling, completions: int) -> int:
    """Write `completions` texts a prompt to `out`; returns how many there are. Raises InputError."""
    if completions < 1:
        raise InputError(f"{completions} completions a prompt; there must be at least 1")
    rows = list(_tell(trained, read_prompts(prompts), sampling, completions))
    write_atomically(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    return len(rows)


def read_prompts(path: Path) -> list[str]:
    """Column `prompt` of a table, or the lines of a plain file."""
    if not kind_of(path) or kind_of(path) == ".txt":
        lines = [line for text in read_texts(path) for line in text.splitlines() if line.strip()]
    else:
        lines = [str(row.get("prompt") or "") for row in read_rows(path)]
    if not lines or not all(lines):
        raise InputError("there are rows without a `prompt`" if lines else "there are no prompts", at=str(path))
    return lines


def _tell(trained: Trained, prompts: list[str], sampling: Sampling, completions: int) -> Iterator[dict[str, Any]]:
    tokenizer = open_tokenizer(trained.tokenizer_file)
    told = {name: value for name, value in asdict(sampling).items() if name != "seed"}
    texts = [
        Continuation(
            tokenizer.encode(prompt, add_special_tokens=False).ids,
            replace(sampling, seed=sampling.seed + number),
            tokenizer,
        )
        for prompt in prompts
        for number in range(completions)
    ]
    continue_all(trained.model, texts, trained.vocabulary, trained.training)
    for place, text in enumerate(texts):
        yield {
            "format_version": FORMAT_VERSION,
            "prompt": prompts[place // completions],
            "completion": text.text,
            "number": place % completions,
            "seed": text.sampling.seed,
            "sampling": told,
            "model": trained.folder.resolve().name,
            "step": trained.step,
        }
