"""Needles and paired chains, with models that are known: one that copies, one that prefers, one that guesses."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from storage.errors import InputError
from tests.trainer.mixtures import write_texts
from trainer.checkpoints.trained import Trained, open_trained
from trainer.cli import main
from trainer.evaluation.chains import compare_chains, read_chains
from trainer.evaluation.likelihood import Ids, Likelihood, LikelihoodModel
from trainer.evaluation.needle import NeedleGrid, find_needles
from trainer.settings import Preset, TrainingConfig
from trainer.train import train

HAY = ["The miller grinds rye. A river carries 42. " * 20]


@pytest.fixture(scope="module")
def opened(trained: Path) -> Trained:
    return open_trained(trained)


class Seeing(LikelihoodModel):
    """Holds likely what stands word for word among the last `sight` tokens of the context."""

    def __init__(self, trained: Trained, sight: int) -> None:
        super().__init__(trained, window=64)
        self.sight = sight
        self.lengths: set[int] = set()

    def score_tokens(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[Likelihood]:
        found = []
        for context, answer in pairs:
            self.lengths.add(len(context) + len(answer))
            seen = context[-self.sight :]
            hit = any(seen[start : start + len(answer)] == answer for start in range(len(seen)))
            found.append(Likelihood(nats=-1.0 if hit else -9.0 - sum(answer) / 1e6, greedy=hit, tokens=len(answer)))
        return found


def test_who_sees_everything_finds_every_needle(opened: Trained) -> None:
    model = Seeing(opened, sight=64)
    score = find_needles(model, HAY, NeedleGrid(lengths=(61, 64), depths=(0.0, 0.5, 1.0), trials=3))
    assert score.mean_found == score.mean_written == 1.0 and score.chance == 0.1
    assert set(score.found) == {"61", "64"} and set(score.found["64"]) == {"0", "0.5", "1"}
    assert max(model.lengths) == 64


def test_who_is_short_sighted_finds_those_at_the_end_only(opened: Trained) -> None:
    score = find_needles(Seeing(opened, sight=31), HAY, NeedleGrid(lengths=(64,), depths=(0.0, 1.0), trials=8))
    assert score.written["64"] == {"0": 0.0, "1": 1.0} and score.found["64"]["0"] < 0.6


WORDS = ["rye", "mill", "river", "stone", "grain", "wheel", "flour", "water", "road", "bread"]


def repeat_a_number(dice: random.Random) -> str:
    """A text that tells its number seven times: only who looks back can know it."""
    sentence = f"\nThe secret number is {dice.randrange(10_000, 100_000)}.\n"
    fillings = [dice.choices(WORDS, k=dice.choice((0, 0, 0, 1, 2, 4, 20))) for _ in range(7)]
    return "".join(sentence + " ".join(filling) for filling in fillings)


@pytest.mark.slow
def test_two_layers_that_learned_to_copy_find_needles(tmp_path: Path) -> None:
    """An induction head takes two layers; it comes after some 400 steps, and reaches as far as it was trained to."""
    dice = random.Random(1)
    texts = [repeat_a_number(dice) for _ in range(8000)]
    mixture = write_texts(tmp_path / "mixture", texts, texts[:20])
    shape = {"hidden_size": 64, "num_layers": 2, "num_heads": 4, "num_kv_heads": 4, "ffn_size": 128}
    settings = TrainingConfig(
        steps=1200, sequence_length=96, global_batch=16, micro_batch=16, learning_rate=3e-3, schedule="constant",
        warmup_steps=50, precision="fp32", threads=1, device="cpu", save_every=2000,
    )  # fmt: skip
    preset = Preset(name="copy", model={**shape, "max_positions": 96}, training=settings)
    model = LikelihoodModel(open_trained(train(mixture, preset, tmp_path / "out", tell=lambda _: None)), window=96)
    hay = [" ".join(dice.choices(WORDS, k=400))]
    score = find_needles(model, hay, NeedleGrid(lengths=(64,), depths=(0.5, 1.0), trials=8))
    assert score.mean_found >= 0.8 and score.mean_written >= 0.6


def test_impossible_grids_are_refused(opened: Trained) -> None:
    model = LikelihoodModel(opened, window=64)
    with pytest.raises(InputError, match="the model's 64 positions"):
        find_needles(model, HAY, NeedleGrid(lengths=(128,)))
    with pytest.raises(InputError, match="the haystack has"):
        find_needles(model, ["short"], NeedleGrid(lengths=(64,)))


def test_chains_pass_by_perplexity_not_by_length(tmp_path: Path) -> None:
    rows = [
        {"question": "q", "correct": "long and right", "incorrect": "no"},
        {"question": "q", "correct": "wrong", "incorrect": "better"},
    ]
    nats = {"\nlong and right": (-6.0, 6), "\nno": (-2.0, 1), "\nwrong": (-4.0, 2), "\nbetter": (-2.0, 2)}

    def score(pairs: Sequence[tuple[str, str]]) -> list[Likelihood]:
        return [Likelihood(nats=nats[text][0], greedy=False, tokens=nats[text][1]) for _, text in pairs]

    result = compare_chains(read_chains(tmp_path / "pairs.jsonl", rows), score, parameters=100)
    assert (result.passed, result.items, result.passed_error) == (0.5, 2, pytest.approx(0.5))
    assert result.correct_perplexity == pytest.approx(math.exp(10 / 8))
    assert result.flops == 6 * 100 * 11
    with pytest.raises(InputError, match="row 2 has no text"):
        read_chains(tmp_path / "pairs.jsonl", [rows[0], {"question": "q", "correct": "", "incorrect": "x"}])


def test_the_command_knows_chains_needles_and_programs(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chains, hay, programs = tmp_path / "pairs.jsonl", tmp_path / "hay.txt", tmp_path / "programs.jsonl"
    row = {"question": "The miller", "correct": "grinds rye.", "incorrect": "## ?! ##"}
    chains.write_text(json.dumps(row))
    hay.write_text(HAY[0])
    problem = {"prompt": "def one():\n", "test": "def check(f):\n    assert f() == 1", "entry_point": "one"}
    programs.write_text(json.dumps(problem))
    command = ["evaluate", "--checkpoints", str(trained), "--device", "cpu", "--json"]
    needle = ["--needle", "64", "--depths", "0.5", "--trials", "2", "--haystack", str(hay)]
    assert main([*command, "--tasks", str(chains), *needle]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert results["pairs"]["passed"] == 1.0 and results["needle"]["trials"] == 2
    assert main([*command, "--tasks", str(programs)]) == 2
    assert "--run-code" in capsys.readouterr().err
    code = ["--run-code", "--samples", "2", "--pass-at", "1", "2", "--code-tokens", "8", "--unguarded"]
    assert main([*command, "--tasks", str(programs), *code]) == 0
    assert json.loads(capsys.readouterr().out)["results"]["programs"]["pass_at"] == {"1": 0.0, "2": 0.0}
    assert main([*command, "--needle", "64"]) == 2 and "haystack" in capsys.readouterr().err


def test_completions_are_written_for_judges(trained: Path, tmp_path: Path) -> None:
    prompts, out = tmp_path / "prompts.txt", tmp_path / "stories.jsonl"
    prompts.write_text("The miller\nA river\n")
    command = ["complete", "--checkpoints", str(trained), "--prompts", str(prompts), "--out", str(out)]
    assert main([*command, "--completions", "3", "--max-tokens", "9", "--device", "cpu"]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["prompt"], row["number"]) for row in rows] == [
        (prompt, number) for prompt in ("The miller", "A river") for number in range(3)
    ]
    assert len({row["completion"] for row in rows}) > 1 and rows[0]["step"] == 150
    assert main([*command, "--completions", "0"]) == 2
