"""Documents laid end to end come to the states that transformers gives each alone, and never touch one another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from classifiers.encoders.attention import attend
from classifiers.encoders.packed import PackedEncoder, pack_encoder

CPU = torch.device("cpu")
LENGTHS = [1, 2, 17, 64, 3, 31, 40]
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 0.05}
SIZES = {
    "vocab_size": 500, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96,
    "max_position_embeddings": 80,
}  # fmt: skip


def build(kind: str, **options: Any) -> Any:
    """An encoder of random weights, large enough that attention is far from uniform."""
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

    torch.manual_seed(0)
    config, model = {"bert": (BertConfig, BertModel), "roberta": (RobertaConfig, RobertaModel)}[kind]
    module = model(config(**SIZES, **options), add_pooling_layer=False).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module


def packed_inputs(lengths: list[int], first_position: int) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    ids = torch.from_numpy(np.random.default_rng(0).integers(5, 500, sum(lengths)))
    positions = torch.cat([torch.arange(length) + first_position for length in lengths])
    return ids, positions, [0, *np.cumsum(lengths).tolist()]


def run(encoder: PackedEncoder, lengths: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return encoder(*packed_inputs(lengths, encoder.first_position))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_states_are_those_of_transformers(kind: str, dtype: torch.dtype) -> None:
    module = build(kind)
    encoder = pack_encoder(module, dtype, CPU)
    assert encoder is not None
    states = run(encoder, LENGTHS)
    ids, _, offsets = packed_inputs(LENGTHS, 0)
    with torch.inference_mode():
        alone = [
            module(input_ids=ids[None, a:b]).last_hidden_state[0] for a, b in zip(offsets, offsets[1:], strict=False)
        ]
    expected = torch.cat(alone)
    assert states.dtype == torch.float32
    assert (states - expected).abs().max() < TOLERANCE[dtype] * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neighbours_do_not_change_a_bit(dtype: torch.dtype) -> None:
    """The same document first, last, between others, and beside one other token."""
    encoder = pack_encoder(build("bert"), dtype, CPU)
    assert encoder is not None
    ids, positions, _ = packed_inputs([37], 0)
    with torch.inference_mode():
        alone = encoder(ids, positions, [0, 37])
        for before in (1, 3, 20, 64):
            for behind in (1, 11, 70):
                others, places, _ = packed_inputs([before, behind], 0)
                whole = [torch.cat([o[:before], own, o[before:]]) for o, own in ((others, ids), (places, positions))]
                found = encoder(whole[0], whole[1], [0, before, before + 37, before + 37 + behind])
                assert torch.equal(found[before : before + 37], alone)


def test_long_documents_are_attended_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    qkv = torch.randn(90, 3, 4, 8).bfloat16()
    whole = attend(qkv, [0, 60, 90])
    monkeypatch.setattr("classifiers.encoders.attention.SCORES_AT_ONCE", 4 * 60 * 7)
    strips = attend(qkv, [0, 60, 90])
    q, k, v = qkv[:60].float().permute(1, 2, 0, 3)
    expected = torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], scale=1.0)[0].transpose(0, 1)
    for found in (whole, strips):
        assert (found[:60].float() - expected).abs().max() < 0.03


@pytest.mark.parametrize("options", [{"hidden_act": "relu"}, {"is_decoder": True}])
def test_another_architecture_is_left_to_transformers(options: dict[str, Any]) -> None:
    assert pack_encoder(build("bert", **options), torch.float32, CPU) is None


def test_a_model_that_computes_something_else_is_left_to_transformers() -> None:
    module = build("bert")
    module.encoder.layer[1].output.dropout = torch.nn.Tanh()
    assert pack_encoder(module, torch.float32, CPU) is None
    assert pack_encoder(module, torch.bfloat16, CPU) is None
