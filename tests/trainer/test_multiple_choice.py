"""Multiple choice: an oracle knows all, chance is chance, and transformers' log-likelihoods of the export are ours."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from storage.errors import InputError
from trainer.checkpoints.trained import Trained, open_trained
from trainer.cli import main
from trainer.evaluation.likelihood import Likelihood, LikelihoodModel
from trainer.evaluation.multiple_choice import answer_benchmark, word_prompts
from trainer.evaluation.questions import Benchmark, Question
from trainer.evaluation.texts import score_texts
from trainer.exchange.export import export_model
from trainer.parallel.world import World

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
Pairs = Sequence[tuple[str, str]]


def ask(count: int, choices: int = 4, seed: int = 0) -> Benchmark:
    chance = random.Random(seed)
    questions = [
        Question(
            prompt=f"{number} is",
            choices=tuple(f"{number}{'x' * (2 * place + 1)}" for place in range(choices)),
            gold=chance.randrange(choices),
        )
        for number in range(count)
    ]
    return Benchmark(name="made-up", format="plain", questions=tuple(questions))


def say(nats: Sequence[float]) -> list[Likelihood]:
    return [Likelihood(nats=value, greedy=False, tokens=1) for value in nats]


def test_an_oracle_is_always_right_and_its_opposite_never() -> None:
    benchmark = ask(50)
    truth = {f" {question.choices[question.gold]}" for question in benchmark.questions}

    def know(pairs: Pairs) -> list[Likelihood]:
        return say([0.0 if continuation in truth else -50.0 for _, continuation in pairs])

    def lie(pairs: Pairs) -> list[Likelihood]:
        return say([-50.0 if continuation in truth else -1.0 for _, continuation in pairs])

    right = answer_benchmark(benchmark, know)
    assert (right.acc, right.acc_norm, right.acc_bytes, right.acc_error, right.chance) == (1.0, 1.0, 1.0, 0.0, 0.25)
    assert answer_benchmark(benchmark, lie).acc == 0.0


def test_guessing_is_right_by_chance_within_its_own_error() -> None:
    dice = random.Random(1)
    result = answer_benchmark(ask(4000), lambda pairs: say([dice.random() for _ in pairs]))
    assert result.acc_error == pytest.approx((0.25 * 0.75 / 4000) ** 0.5, rel=0.05)
    assert abs(result.acc - 0.25) < 4 * result.acc_error


def test_lengths_are_characters_or_bytes_without_the_space() -> None:
    """`水水` has 2 characters and 6 bytes, `wide` 4 of each: each figure prefers another choice."""
    question = Question(prompt="q", choices=("水水", "wide"), gold=0)
    result = answer_benchmark(Benchmark(name="b", format="plain", questions=(question,)), lambda _: say([-6.0, -5.0]))
    assert (result.acc, result.acc_norm, result.acc_bytes, result.acc_error) == (0.0, 0.0, 1.0, None)


def test_examples_are_of_the_same_subject_and_never_the_question_itself() -> None:
    questions = [
        Question(prompt=f"{number}?", choices=("A", "B"), gold=number % 2, subject=subject)
        for number, subject in enumerate(["law", "art", "art", "law", "art"])
    ]
    benchmark = Benchmark(name="b", format="mmlu", questions=tuple(questions), opening="About {subject}.\n\n")
    prompts = word_prompts(benchmark, questions, benchmark, shots=1)
    assert prompts[0] == "About law.\n\n3? B\n\n0?"
    assert prompts[1] == "About art.\n\n2? A\n\n1?"
    assert word_prompts(benchmark, questions, benchmark, shots=2)[4] == "About art.\n\n1? B\n\n2? A\n\n4?"
    with pytest.raises(InputError, match="5 examples are asked for, `b` has 4"):
        word_prompts(benchmark, questions, benchmark, shots=5)


@pytest.fixture(scope="module")
def opened(trained: Path) -> Trained:
    return open_trained(trained)


PAIRS = [
    ("The miller", " grinds rye."),
    ("The miller", " grinds 42."),
    ("The miller ", "carries"),
    ("", "A river mahlt 粮食."),
    ("水车 grinds rye. A river carries rye. " * 9, "The miller grinds"),
    ("Die Mühle", " mahlt 粮食. Die Mühle"),
    ("Die", " M"),
    ("Die", " A"),
]


def test_likelihoods_are_those_of_transformers_for_the_exported_model(opened: Trained, tmp_path: Path) -> None:
    """Each pair alone and unpadded there, all together here; the model's window cuts the long one in front."""
    from transformers import AutoModelForCausalLM

    export_model(opened, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ours = LikelihoodModel(opened, window=64)
    found = ours.score(PAIRS)
    for (context, continuation), likelihood in zip(PAIRS, found, strict=True):
        if not context:  # transformers' model sees the end-of-document, ours has learned not to
            continue
        before, after = ours.encode_pair(context, continuation)
        ids = torch.tensor([*before, *after])[-65:]
        with torch.no_grad():
            chances = torch.log_softmax(model(ids[None, :-1]).logits[0].double(), -1)[-len(after) :]
        assert likelihood.nats == pytest.approx(float(chances.gather(1, ids[-len(after) :, None]).sum()), abs=1e-4)
        assert likelihood.greedy == (chances.argmax(-1).tolist() == list(after))
        assert likelihood.tokens == len(after)


def test_a_score_does_not_depend_on_company(opened: Trained) -> None:
    model = LikelihoodModel(opened)
    together = model.score(PAIRS)
    for pair, likelihood in zip(PAIRS, together, strict=True):
        assert model.score([pair])[0].nats == pytest.approx(likelihood.nats, abs=1e-5)
    assert model.score([]) == [] and model.score([("a", "")])[0].nats == 0.0


def test_the_model_knows_its_own_sentences(opened: Trained) -> None:
    """Trained on three verbs, it holds them likelier than other words: far above chance."""
    questions = [
        Question(prompt=subject, choices=(f"{verb} rye.", "knows eleven owls.", "... ## ?! ##"), gold=0)
        for subject in ("The miller", "A river", "水车")
        for verb in ("grinds", "carries", "mahlt")
    ]
    benchmark = Benchmark(name="own", format="plain", questions=tuple(questions))
    result = answer_benchmark(benchmark, LikelihoodModel(opened).score, shots=2)
    assert result.acc == 1.0 and result.chance == pytest.approx(1 / 3)


def test_the_command_scores_files_and_keeps_what_it_found_before(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks, texts = tmp_path / "own.jsonl", tmp_path / "lines.jsonl"
    rows = [{"query": "The miller", "choices": ["grinds rye.", "zzz"], "gold": 0}] * 3
    tasks.write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts.write_text(json.dumps({"text": "The miller grinds rye."}) + "\n" + json.dumps({"text": "水车"}) + "\n")
    command = ["evaluate", "--checkpoints", str(trained), "--device", "cpu"]
    assert main([*command, "--tasks", str(tasks), "--limit", "2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["results"]["own@0"]["acc"] == 1.0 and printed["results"]["own@0"]["questions"] == 2
    assert main([*command, "--texts", str(texts)]) == 0
    assert "bits_per_byte" in capsys.readouterr().out
    kept = json.loads((trained / "evaluation" / "iter_0000150.json").read_text())["results"]
    assert kept["own@0"] == printed["results"]["own@0"] and kept["lines"]["documents"] == 2
    assert main(command) == 2 and "nothing to evaluate on" in capsys.readouterr().err


def test_texts_in_files_have_the_bits_per_byte_of_their_own_likelihood(opened: Trained, tmp_path: Path) -> None:
    """One short document: Σ nats of its tokens and the end-of-document, from the likelihoods of single steps."""
    text = "The miller grinds rye. 水车 mahlt 42."
    (tmp_path / "one.txt").write_text(text)
    score = score_texts(opened, tmp_path / "one.txt", ALONE)
    model, end = LikelihoodModel(opened), opened.vocabulary.end_of_document
    ids = model.encode(text)
    nats = [model.score_tokens([((end,), ids[:1])])[0].nats]
    nats += [model.score_tokens([(ids[:n], (*ids, end)[n : n + 1])])[0].nats for n in range(1, len(ids) + 1)]
    assert score.loss == pytest.approx(-np.mean(nats), rel=1e-5)
    assert score.bits_per_byte == pytest.approx(-np.sum(nats) / np.log(2) / len(text.encode()), rel=1e-5)
    assert (score.tokens, score.bytes, score.documents) == (len(ids) + 1, len(text.encode()), 1)
