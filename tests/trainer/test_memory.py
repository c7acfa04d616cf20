"""Reading on from a memory gives the states of reading everything at once, for every kind of model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.checkpoints.trained import Trained, open_trained
from trainer.data.mixture import Vocabulary
from trainer.models.attention import attend, attention_mask
from trainer.models.contract import LanguageModel
from trainer.models.kinds import build_model, read_config
from trainer.models.memory import NOTHING, Memory
from trainer.serving.continuation import Continuation, Continuations
from trainer.serving.generate import continue_all, generate_tokens, open_tokenizer
from trainer.serving.sampling import Sampling, choose_token
from trainer.settings import Preset

LENGTHS = (9, 4, 1)


@pytest.fixture(scope="module", params=["llama", "gpt_neo", "deepseek_v3"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    of_all = {"vocabulary_size": 384, "hidden_size": 32, "num_layers": 3, "num_heads": 4, "max_positions": 64}
    shapes = {
        "llama": {"num_kv_heads": 2, "ffn_size": 48},
        "gpt_neo": {"ffn_size": 64, "window_size": 6},
        "deepseek_v3": {
            "kv_latent_size": 16, "qk_size": 8, "qk_rope_size": 4, "v_size": 12, "ffn_size": 48,
            "num_dense_layers": 1, "expert_ffn_size": 16, "shared_ffn_size": 24, "num_experts": 8,
            "experts_per_token": 2, "num_predictors": 1,
        },
    }  # fmt: skip
    built = build_model(read_config({"kind": request.param, "init_std": 0.3, **of_all, **shapes[request.param]}))
    built.initialize(1)
    return built.eval()


def read(model: LanguageModel, memory: Memory, ids: Tensor, places: Tensor) -> Tensor:
    memory.expect(places)
    with torch.no_grad():
        return model.states(ids, places.clamp(min=0), memory)


def filled(rows: list[list[int]], filling: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [filling] * (longest - len(row)) for row in rows])


def test_rows_of_different_lengths_go_on_as_if_read_at_once(model: LanguageModel) -> None:
    """Prompts of 9, 4 and 1 tokens together, then 55 single tokens each: past where the buffers grow."""
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 300, (3, 64), generator=random)
    with torch.no_grad():
        whole = model.states(ids, torch.arange(64).expand(3, 64), None)
    memory = Memory()
    prompts = [ids[row, :length].tolist() for row, length in enumerate(LENGTHS)]
    states = read(model, memory, filled(prompts, 7), filled([list(range(length)) for length in LENGTHS], NOTHING))
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(states[row, :length], whole[row, :length], atol=1e-4, rtol=0)
    for step in range(64 - max(LENGTHS)):
        places = torch.tensor([[length + step] for length in LENGTHS])
        states = read(model, memory, ids.gather(1, places), places)
        for row, length in enumerate(LENGTHS):
            torch.testing.assert_close(states[row, 0], whole[row, length + step], atol=1e-4, rtol=0)


def test_memories_are_cut_repeated_and_joined_by_rows(model: LanguageModel) -> None:
    ids = torch.randint(0, 300, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = model.states(ids, torch.arange(12).expand(2, 12), None)
    long, short = Memory(), Memory()
    read(model, long, ids[:1, :9], torch.arange(9).unsqueeze(0))
    read(model, short, ids[1:, :5], torch.arange(5).unsqueeze(0))
    joined = long.beside(short).rows([1, 0, 1])
    places = torch.tensor([[5, 6], [9, 10], [5, 6]])
    states = read(model, joined, torch.stack([ids[1, 5:7], ids[0, 9:11], ids[1, 5:7]]), places)
    torch.testing.assert_close(states[0], whole[1, 5:7], atol=1e-4, rtol=0)
    torch.testing.assert_close(states[1], whole[0, 9:11], atol=1e-4, rtol=0)
    torch.testing.assert_close(states[2], states[0], atol=1e-6, rtol=0)
    assert joined.rows([0]).length == 7, "columns that only the other rows need are given up"


def test_a_window_is_counted_in_places(model: LanguageModel) -> None:
    """Local attention over a memory is local attention over the whole row."""
    q, k, v = torch.randn(3, 1, 2, 10, 8, generator=torch.Generator().manual_seed(2)).unbind()
    whole = attend(q, k, v, attention_mask(None, torch.empty(1, 10, 8), torch.float32, window=3))
    memory, parts = Memory(), []
    for start, stop in ((0, 4), (4, 5), (5, 10)):
        memory.expect(torch.arange(start, stop).unsqueeze(0))
        sight = attention_mask(memory, torch.empty(0), torch.float32, window=3)
        parts.append(attend(q[:, :, start:stop], k[:, :, start:stop], v[:, :, start:stop], sight))
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def opened(trained: Path) -> Trained:
    return open_trained(trained)


@pytest.mark.parametrize("reset_mask", [True, False])
@pytest.mark.parametrize("reset_positions", [True, False])
@pytest.mark.parametrize("prompt", [[], [5, 6, 7], [5, 0, 9], [5, 0]])
def test_greedy_text_is_that_of_reading_everything_anew(
    opened: Trained, make_preset: Callable[..., Preset], reset_mask: bool, reset_positions: bool, prompt: list[int]
) -> None:
    """The reference lays end-of-document (id 0), prompt and text out as a training row, and runs the model on it."""
    from trainer.compute import separate_documents
    from trainer.data.batches import make_batch

    config = make_preset(reset_attention_mask=reset_mask, reset_position_ids=reset_positions).training
    expected = list(prompt)
    for _ in range(12):
        row = np.array([0, *expected, 0])
        batch = make_batch([row], 0, config)
        if reset_mask and not reset_positions:
            behind = max(number for number, token in enumerate(row[:-1]) if token == 0)
            batch.positions.sub_(behind + 1).clamp_(min=0)  # any beginning will do there; ours is 0
        with torch.no_grad():
            logits = opened.model(batch.tokens, batch.positions, separate_documents(batch, config))[0, -1]
        chosen = int(logits[: opened.vocabulary.size].argmax())
        if chosen == 0:
            break
        expected.append(chosen)
    greedy = Sampling(max_tokens=12, temperature=0)
    assert generate_tokens(opened.model, prompt, opened.vocabulary, config, greedy) == expected[len(prompt) :]


def write(opened: Trained, prompts: list[str], **changes: object) -> list[Continuation]:
    tokenizer = open_tokenizer(opened.tokenizer_file)
    sampling = Sampling(**{"max_tokens": 20, "seed": 3, **changes})  # type: ignore[arg-type]
    continuations = [Continuation(tokenizer.encode(text).ids, sampling, tokenizer) for text in prompts]
    return continue_all(opened.model, continuations, opened.vocabulary, opened.training)


def test_a_text_does_not_depend_on_its_company(opened: Trained) -> None:
    prompts = ["The miller", "", "A river carries rye. " * 3, "水车"] * 12
    together = [it.ids for it in write(opened, prompts)]
    assert together[:4] == [write(opened, [prompt])[0].ids for prompt in prompts[:4]]
    assert together[:4] == together[-4:]


def test_texts_join_while_others_are_being_written(opened: Trained) -> None:
    tokenizer = open_tokenizer(opened.tokenizer_file)
    running = Continuations(opened.model, opened.vocabulary, opened.training)
    sampling = Sampling(max_tokens=10, seed=3)
    first, second = (Continuation(tokenizer.encode(text).ids, sampling) for text in ("The miller", "A river"))
    running.add([first])
    for _ in range(4):
        running.step()
    running.add([second])
    while len(running):
        running.step()
    assert [first.ids, second.ids] == [it.ids for it in write(opened, ["The miller", "A river"], max_tokens=10)]
    assert {first.finish, second.finish} <= {"stop", "length"}


def test_text_goes_on_past_the_window(opened: Trained) -> None:
    """No end-of-document is drawn where it is given no chance: 100 tokens through a window of 32."""
    model, vocabulary = opened.model, opened.vocabulary
    quiet = Vocabulary(**{**vars(vocabulary), "end_of_document": vocabulary.size})
    found = generate_tokens(model, [5] * 40, quiet, opened.training, Sampling(max_tokens=100, temperature=0))
    assert len(found) == 100


def test_stop_texts_end_the_writing_and_are_left_out(opened: Trained) -> None:
    whole = write(opened, ["The miller"], temperature=0, max_tokens=30)[0].text
    stop = whole[8:11]
    stopped = write(opened, ["The miller"], temperature=0, max_tokens=30, stop=(stop, "never"))[0]
    assert stopped.text == whole[: whole.index(stop)] and stopped.finish == "stop"
    assert write(opened, ["x"], max_tokens=0)[0].finish == "length"


def test_what_is_shown_early_is_never_taken_back(opened: Trained) -> None:
    tokenizer = open_tokenizer(opened.tokenizer_file)
    sampling = Sampling(max_tokens=40, seed=1, temperature=1.5, stop=("mahlt", "carries rye"))
    text, running = Continuation([], sampling, tokenizer), None
    running = Continuations(opened.model, opened.vocabulary, opened.training)
    running.add([text])
    shown = [text.sure_text]
    while len(running):
        running.step()
        shown.append(text.sure_text)
    assert all(later.startswith(earlier) for earlier, later in zip(shown, shown[1:], strict=False))
    assert shown[-1] == text.text


def test_draws_keep_to_top_k_and_top_p() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    random = torch.Generator().manual_seed(0)

    def drawn(**changes: object) -> set[int]:
        sampling = Sampling(**{"temperature": 1.0, "top_k": 0, **changes})  # type: ignore[arg-type]
        return {choose_token(logits, sampling, random) for _ in range(300)}

    assert drawn() == {0, 1, 2, 3} and drawn(top_k=3) == {0, 1, 2}
    assert drawn(top_p=0.8) == {0, 1} and drawn(top_p=0.81) == {0, 1, 2} and drawn(top_p=1e-9) == {0}
    counts = [
        sum(choose_token(logits, Sampling(temperature=1.0, top_k=0), random) == it for _ in range(2000)) for it in (0,)
    ]
    assert abs(counts[0] / 2000 - 0.5) < 0.05
