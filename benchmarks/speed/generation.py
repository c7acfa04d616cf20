"""Text and likelihoods from a checkpoint, beside transformers with the same weights: tokens/s, questions/s, one thread.

Invariant: both write the same tokens greedily and choose the same answers, or the benchmark fails. The weights are made
up (speed does not depend on them) and both sides compute in float32; transformers uses its own cache, and its batches
are padded as lm-eval pads them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from benchmarks.table import Row, least_cpu_seconds, publish
from trainer.checkpoints.trained import Trained
from trainer.data.mixture import read_vocabulary
from trainer.evaluation.likelihood import Ids, LikelihoodModel
from trainer.exchange.export import export_model
from trainer.models.kinds import build_model, count_parameters
from trainer.serving.continuation import Continuation
from trainer.serving.generate import continue_all
from trainer.serving.sampling import Sampling
from trainer.settings import load_preset

TOKENS = 96
PROMPT_TOKENS = 32
QUESTIONS, CHOICES, CONTEXT_TOKENS, CHOICE_TOKENS = 24, 4, 150, 10
TURNS = 3


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench-generation", description=__doc__)
    parser.add_argument("--preset", default="tiny", help="shape of the model")
    preset = parser.parse_args(arguments).preset
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        trained = _make(Path(folder), preset)
        theirs = _export(trained, Path(folder) / "exported")
        rows = [*_write(trained, theirs, texts=1), *_write(trained, theirs, texts=32), *_answer(trained, theirs)]
        told = f"preset {preset}, {count_parameters(trained.model):,} parameters, float32, one thread"
    publish("generation", rows, packages=["torch", "transformers"], notes=[told, f"{PROMPT_TOKENS} + {TOKENS} tokens"])
    return 0


def _make(folder: Path, preset_name: str) -> Trained:
    """A model of random weights that writes to the end: its end-of-document is never likeliest."""
    vocabulary = _write_vocabulary(folder)
    preset = load_preset(preset_name, {})
    model = build_model(preset.model_config(8192))
    model.initialize(1)
    with torch.no_grad():
        model.embedding.weight.mul_(8)
        model.embedding.weight[0] = 0
    training = replace(preset.training, precision="fp32", sequence_length=model.config.max_positions)
    return Trained(
        folder=folder,
        checkpoint=folder,
        model=model.eval(),
        training=training,
        vocabulary=replace(vocabulary, size=8192, padded_size=8192),
        step=1,
        tokens=1,
    )


def _write_vocabulary(folder: Path) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learner = trainers.BpeTrainer(special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["the mill grinds"], learner)
    tokenizer.save(str(folder / "tokenizer.json"))
    row = {
        "format_version": 1,
        "size": tokenizer.get_vocab_size(),
        "padded_size": 8192,
        "end_of_document": 0,
        "dtype": "uint16",
        "sha256": hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest(),
    }
    (folder / "vocabulary.json").write_text(json.dumps(row))
    return read_vocabulary(folder)


def _export(trained: Trained, folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    export_model(trained, folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def _write(trained: Trained, theirs: Any, *, texts: int) -> list[Row]:
    """Greedy text after prompts of equal length, all at once."""
    chance = random.Random(0)
    prompts = [[chance.randrange(1, 8192) for _ in range(PROMPT_TOKENS)] for _ in range(texts)]
    sampling = Sampling(max_tokens=TOKENS, temperature=0)

    def ours() -> list[list[int]]:
        written = [Continuation(prompt, sampling) for prompt in prompts]
        return [it.ids for it in continue_all(trained.model, written, trained.vocabulary, trained.training)]

    def transformers() -> list[list[int]]:
        ids = torch.tensor(prompts)
        with torch.no_grad():
            found = theirs.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=TOKENS, min_new_tokens=TOKENS
            )
        return [row[PROMPT_TOKENS:] for row in found.tolist()]

    seconds, written = least_cpu_seconds(ours, turns=TURNS)
    their_seconds, their_text = least_cpu_seconds(transformers, turns=TURNS)
    assert written == their_text, "the two models write different texts"
    what = "one text" if texts == 1 else f"{texts} texts at once"
    count = texts * TOKENS
    return [
        Row(
            what=f"greedy, {what}", figure=count / seconds, unit="tokens/s",
            peer="transformers generate", peer_figure=count / their_seconds,
        )
    ]  # fmt: skip


def _answer(trained: Trained, theirs: Any) -> list[Row]:
    """Multiple choice: contexts of CONTEXT_TOKENS, four choices each."""
    chance = random.Random(1)

    def draw(count: int) -> Ids:
        return tuple(chance.randrange(1, 8192) for _ in range(count))

    pairs = [
        (context, draw(CHOICE_TOKENS))
        for context in [draw(CONTEXT_TOKENS) for _ in range(QUESTIONS)]
        for _ in range(CHOICES)
    ]
    model = LikelihoodModel(trained)
    seconds, found = least_cpu_seconds(lambda: [it.nats for it in model.score_tokens(pairs)], turns=TURNS)
    their_seconds, their_nats = least_cpu_seconds(lambda: _score_padded(theirs, pairs), turns=TURNS)
    assert max(abs(a - b) for a, b in zip(found, their_nats, strict=True)) < 1e-2, "the likelihoods differ"
    return [
        Row(
            what=f"multiple choice, {CHOICES} choices after {CONTEXT_TOKENS} tokens", figure=QUESTIONS / seconds,
            unit="questions/s", peer="transformers, batches of 16", peer_figure=QUESTIONS / their_seconds,
        )
    ]  # fmt: skip


def _score_padded(theirs: Any, pairs: Sequence[tuple[Ids, Ids]]) -> list[float]:
    """Whole texts in batches of 16, as lm-eval's transformers model scores them."""
    nats: list[float] = []
    for start in range(0, len(pairs), 16):
        batch = pairs[start : start + 16]
        ids = torch.tensor([[*context, *choice] for context, choice in batch])
        with torch.no_grad():
            chances = torch.log_softmax(theirs(ids[:, :-1]).logits.float(), dim=-1)
        tail = chances[:, -CHOICE_TOKENS:].gather(2, ids[:, -CHOICE_TOKENS:, None])
        nats += tail.double().sum(dim=(1, 2)).tolist()
    return nats
