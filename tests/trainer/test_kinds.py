"""Every kind of model keeps one contract: documents apart, exact gradients, recomputation and dropout by attribute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.data.batches import cut_documents
from trainer.models.contract import LanguageModel, Losses
from trainer.models.deepseek_v3 import weights_ahead
from trainer.models.experts import MixtureOfExperts, Router, grouped_linear
from trainer.models.kinds import KINDS, build_model, read_config
from trainer.optimizer import load_model, make_optimizer, model_tensors
from trainer.settings import Preset, load_preset

END = 0
VOCABULARY = 96
OF_ALL = {"vocabulary_size": VOCABULARY, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_positions": 64}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"num_kv_heads": 2, "ffn_size": 48},
    "olmo2": {"kind": "llama", "num_kv_heads": 4, "ffn_size": 48, "qk_norm": True, "norm_after": True},
    "gpt_neo": {"ffn_size": 64, "window_size": 6},
    "deepseek_v3": {
        "kv_latent_size": 16, "qk_size": 8, "qk_rope_size": 4, "v_size": 12, "ffn_size": 48, "num_dense_layers": 1,
        "expert_ffn_size": 16, "shared_ffn_size": 24, "num_experts": 8, "experts_per_token": 2, "num_predictors": 2,
        "q_latent_size": 20, "num_groups": 4, "groups_per_token": 2, "routed_scaling": 1.5,
    },
}  # fmt: skip


def build(name: str, **changes: Any) -> LanguageModel:
    model = build_model(read_config({"kind": name, **OF_ALL, "init_std": 0.3, **SHAPES[name], **changes}))
    model.initialize(3)
    return model


def packed(seed: int = 5) -> tuple[list[list[int]], Tensor, Tensor, Tensor]:
    """(documents, all of them in one row, their positions, their numbers)."""
    generator = torch.Generator().manual_seed(seed)
    documents = [torch.randint(1, VOCABULARY, (n,), generator=generator).tolist() + [END] for n in (9, 1, 17, 0, 20)]
    row = np.array([sum(documents, [])])
    numbers, positions = cut_documents(row, END)
    return documents, torch.tensor(row), torch.tensor(positions), torch.tensor(numbers)


def labelled(model: LanguageModel) -> tuple[Losses, Tensor, Tensor]:
    """(losses of the packed row, its labels, their weights)."""
    _, tokens, positions, numbers = packed()
    labels, weights = tokens.roll(-1, dims=1), torch.ones(tokens.shape)
    weights[:, 5] = 0.0
    return model(tokens, positions, numbers, labels, weights), labels, weights


@pytest.mark.parametrize("name", SHAPES)
def test_packed_logits_are_those_of_each_document_alone(name: str) -> None:
    model = build(name).eval()
    documents, tokens, positions, numbers = packed()
    with torch.no_grad():
        together = model(tokens, positions, numbers)[0]
        alone = [model(torch.tensor([d]), torch.arange(len(d)).unsqueeze(0))[0] for d in documents]
    assert float(together.abs().max()) > 0.1
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SHAPES)
def test_gradients_are_those_of_plain_float64(name: str) -> None:
    model, exact = build(name).eval(), build(name).double().eval()
    losses, labels, weights = labelled(model)
    losses.total.backward()
    _, tokens, positions, numbers = packed()
    logits = exact(tokens, positions, numbers).flatten(0, 1)
    plain = (F.cross_entropy(logits, labels.flatten(), reduction="none") * weights.flatten()).sum()
    plain.backward()
    torch.testing.assert_close(losses.total.double(), plain, rtol=1e-5, atol=0)
    for (where, mine), other in zip(model.named_parameters(), exact.parameters(), strict=True):
        if other.grad is None:
            assert mine.grad is None and where.startswith("predictors."), where
            continue
        assert mine.grad is not None, where
        torch.testing.assert_close(mine.grad.double(), other.grad, rtol=1e-3, atol=1e-4 * float(other.grad.abs().max()))


@pytest.mark.parametrize("name", SHAPES)
def test_bfloat16_is_near_float32(name: str) -> None:
    """Warnings are errors here: a slower kernel that PyTorch falls back to is one."""
    model = build(name, init_std=0.05).train()
    exact, _, _ = labelled(model)
    exact.total.backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        near, _, _ = labelled(model)
    near.total.backward()
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert float(near.nats) == pytest.approx(float(exact.nats), rel=0.01)
    assert float(F.cosine_similarity(found, expected, dim=0)) > 0.98


@pytest.mark.parametrize("name", SHAPES)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    """Of the training loss, z-loss and predictors included; routing and its bookkeeping stay put for small steps."""
    model = build(name, num_layers=2, init_std=0.2).double().train()
    model.z_loss = 1e-2
    losses, _, _ = labelled(model)
    losses.total.backward()
    generator = torch.Generator().manual_seed(7)
    for where, parameter in model.named_parameters():
        assert parameter.grad is not None, where
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        slope = float((parameter.grad * direction).sum())
        totals = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                parameter += step * direction
                totals.append(float(labelled(model)[0].total))
        with torch.no_grad():
            parameter += 1e-6 * direction
        assert (totals[0] - totals[1]) / 2e-6 == pytest.approx(slope, rel=1e-3, abs=1e-3), where


@pytest.mark.parametrize("name", SHAPES)
def test_recomputed_blocks_give_the_same_gradients(name: str) -> None:
    kept, again = build(name).train(), build(name).train()
    again.recompute = True
    for model in (kept, again):
        model.set_dropout(0.2)
        torch.manual_seed(11)
        labelled(model)[0].total.backward()
    for mine, other in zip(kept.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad)  # type: ignore[arg-type]
    for mine, other in zip(kept.buffers(), again.buffers(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("name", SHAPES)
def test_dropout_starts_when_it_is_told(name: str) -> None:
    model = build(name).train()
    before, _, _ = labelled(model)
    assert float(labelled(model)[0].nats) == float(before.nats)
    model.set_dropout(0.3)
    assert float(labelled(model)[0].nats) != float(before.nats)
    assert float(labelled(model.eval())[0].nats) == pytest.approx(float(before.nats), rel=1e-6)


@pytest.mark.parametrize("name", SHAPES)
def test_z_loss_is_the_squared_logarithm_of_the_denominator(name: str) -> None:
    model = build(name).eval()
    plain, _, weights = labelled(model)
    model.z_loss = 0.01
    losses, _, _ = labelled(model)
    _, tokens, positions, numbers = packed()
    expected = 0.01 * (model(tokens, positions, numbers).logsumexp(-1).square() * weights).sum()
    torch.testing.assert_close(losses.nats, plain.total)
    torch.testing.assert_close(losses.total - losses.nats, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(losses.extra["z_loss"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SHAPES)
def test_one_batch_is_learned_by_heart(name: str, make_preset: Callable[..., Preset]) -> None:
    model = build(name, init_std=0.05).train()
    optimizer = make_optimizer(model.parameters(), make_preset(learning_rate=1e-2).training)
    first, _, weights = labelled(model)
    for _ in range(60):
        model.before_step()
        losses, _, _ = labelled(model)
        losses.total.div(weights.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
        model.after_step(lambda tensor: tensor)
    assert float(first.nats / weights.sum()) > 4.0
    assert float(losses.nats / weights.sum()) < 0.5


@pytest.mark.parametrize("name", SHAPES)
def test_all_weights_come_from_the_seed(name: str) -> None:
    first, again = build(name), build(name)
    for parameter in again.parameters():
        torch.nn.init.constant_(parameter, float("nan"))
    again.initialize(3)
    for mine, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, other)
    writers = [float(p.detach().std()) for n, p in first.named_parameters() if n.endswith(type(first).residual_writers)]
    assert len(writers) >= 2 * (2 + getattr(first.config, "num_predictors", 0))
    assert all(std == pytest.approx(0.15, rel=0.2) for std in writers)


def test_local_layers_see_their_window_only() -> None:
    model = build("gpt_neo", num_layers=2).eval()
    tokens = torch.randint(1, VOCABULARY, (1, 30), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(30).unsqueeze(0)
    seen: list[Tensor] = []
    model.blocks[1].attention.register_forward_hook(lambda module, inputs, output: seen.append(output))  # type: ignore[union-attr]
    states = torch.randn(1, 30, 32, generator=torch.Generator().manual_seed(2))
    model.blocks[0].register_forward_hook(lambda module, inputs, output: states)
    with torch.no_grad():
        model(tokens, positions)
        states = states.clone()
        states[0, 10, 0] += 5.0
        model(tokens, positions)
    changed = (seen[0] - seen[1]).abs().amax(-1)[0] > 1e-6
    assert changed.nonzero().flatten().tolist() == list(range(10, 16))


def plain_experts(layer: MixtureOfExperts, x_D: Tensor) -> Tensor:
    """One token by the definition: equations 12 to 16 of 2412.19437."""
    config = layer.router.config
    scores = torch.sigmoid(layer.router.weight @ x_D)
    biased = (scores + layer.router.bias_E).tolist()
    size = config.num_experts // config.num_groups
    groups = [list(range(first, first + size)) for first in range(0, config.num_experts, size)]
    groups.sort(key=lambda group: -sum(sorted((biased[e] for e in group), reverse=True)[:2]))
    open_experts = sorted(sum(groups[: config.groups_per_token], []), key=lambda e: -biased[e])
    chosen = open_experts[: config.experts_per_token]
    total = sum(scores[e] for e in chosen) if config.normalized else 1.0
    y_D = layer.shared(x_D) if layer.shared is not None else torch.zeros_like(x_D)
    for e in chosen:
        gate, up = (layer.experts.gate_up[e] @ x_D).chunk(2)
        y_D = y_D + scores[e] / total * config.scaling * (layer.experts.down[e] @ (F.silu(gate) * up))
    return y_D


@pytest.mark.parametrize("changes", [{}, {"num_groups": 1, "groups_per_token": 1}, {"normalized_weights": False}])
def test_experts_are_those_of_the_definition(changes: dict[str, Any]) -> None:
    layer = build("deepseek_v3", **changes).eval().blocks[1].ffn
    assert isinstance(layer, MixtureOfExperts)
    generator = torch.Generator().manual_seed(3)
    layer.router.bias_E += torch.randn(8, generator=generator) * 0.2
    x_BTD = torch.randn(2, 11, 32, generator=generator)
    with torch.no_grad():
        y_BTD, routing = layer(x_BTD)
        expected = torch.stack([torch.stack([plain_experts(layer, x_D) for x_D in x_TD]) for x_TD in x_BTD])
    torch.testing.assert_close(y_BTD, expected, atol=1e-5, rtol=1e-4)
    assert int(routing.load_E.sum()) == 2 * 11 * 2
    assert routing.imbalance_B.shape == (2,) and bool((routing.imbalance_B > 0.9).all())


def test_even_experts_are_balanced_and_crowded_ones_are_not() -> None:
    layer = build("deepseek_v3", num_groups=1, groups_per_token=1).blocks[1].ffn
    assert isinstance(layer, MixtureOfExperts)
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.router.weight[:, 0] = torch.arange(8.0)
        _, routing = layer(torch.full((1, 6, 32), 3.0))
    assert float(routing.imbalance_B) > 1.0
    assert routing.load_E.tolist() == [0, 0, 0, 0, 0, 0, 6, 6]


def test_biases_move_by_the_load_of_all_batches_of_a_step() -> None:
    """As it should be under gradient accumulation and with several processes: loads are summed, then compared."""
    model = build("deepseek_v3").train()
    routers = [module for module in model.modules() if isinstance(module, Router)]
    labelled(model), labelled(model)
    loads = [router.load_E.clone() for router in routers]
    assert all(int(load.sum()) == 2 * 52 * 2 for load in loads)
    others = torch.randint(0, 300, (len(routers), 8), generator=torch.Generator().manual_seed(4)).float()
    model.after_step(lambda own: own + others)
    for router, own, other in zip(routers, loads, others, strict=True):
        sums = own + other
        assert router.bias_E.tolist() == pytest.approx([1e-3 * float(s) for s in (sums.mean() - sums).sign()])
    model.before_step()
    assert not any(router.load_E.any() for router in routers)
    biased = build("deepseek_v3")
    load_model(biased, {name: tensor.clone() for name, tensor in model_tensors(model).items()})
    found = [module.bias_E for module in biased.modules() if isinstance(module, Router)]
    assert all(torch.equal(bias_E, router.bias_E) for bias_E, router in zip(found, routers, strict=True))


def test_predictors_stay_within_documents_and_rows() -> None:
    documents = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 2]])
    weights = torch.tensor([[1.0, 1, 1, 1, 1, 1, 1, 0.5, 1]])
    assert weights_ahead(weights, documents, 1).tolist() == [[1, 1, 0, 1, 0, 1, 0.5, 1, 0]]
    assert weights_ahead(weights, documents, 2).tolist() == [[1, 0, 0, 0, 0, 0.5, 1, 0, 0]]
    assert weights_ahead(weights, None, 2).tolist() == [[1, 1, 1, 1, 1, 0.5, 1, 0, 0]]


def test_a_predictor_learns_the_token_after_the_next() -> None:
    """Its loss is that of logits two ahead, and the main model's alone is what is told as `nats`."""
    model = build("deepseek_v3", num_predictors=1).train()
    losses, labels, weights = labelled(model)
    assert set(losses.extra) == {"balance_loss", "mtp_loss"}
    torch.testing.assert_close(losses.total, losses.nats + losses.extra["balance_loss"] + losses.extra["mtp_loss"])
    _, tokens, positions, numbers = packed()
    caught: list[Tensor] = []
    model.predictors[0].register_forward_hook(lambda module, inputs, output: caught.append(output[0]))  # type: ignore[operator, index, union-attr]
    labelled(model)
    logits = model.head(caught[0])[0]
    known = [i for i in range(51) if numbers[0, i] == numbers[0, i + 1] and weights[0, i + 1]]
    expected = sum(F.cross_entropy(logits[i], labels[0, i + 1]) for i in known)
    torch.testing.assert_close(losses.extra["mtp_loss"], 0.3 * expected, rtol=1e-4, atol=1e-4)  # type: ignore[arg-type, operator]


def test_grouped_products_are_one_product_an_expert_even_of_none() -> None:
    generator = torch.Generator().manual_seed(6)
    rows, weight = torch.randn(10, 6, generator=generator), torch.randn(4, 5, 6, generator=generator)
    found = grouped_linear(rows, weight, torch.tensor([3, 3, 9, 10], dtype=torch.int32))
    parts = [rows[:3] @ weight[0].T, rows[3:9] @ weight[2].T, rows[9:] @ weight[3].T]
    torch.testing.assert_close(found, torch.cat(parts))


@pytest.mark.parametrize("name", KINDS)
def test_products_are_counted_as_palm_does(name: str) -> None:
    """Six times the weights of products that a token meets, and the attention's own products over the whole row."""
    all_experts: dict[str, Any] = {"num_experts": 2, "num_groups": 1, "groups_per_token": 1}
    model = build(name, num_layers=4, **(all_experts if name == "deepseek_v3" else {}))
    skipped = ("embedding.weight", "positions.weight")
    weights = sum(p.numel() for n, p in model.named_parameters() if p.dim() > 1 and not n.endswith(skipped))
    config = model.config
    heads = (1 + getattr(config, "num_predictors", 0)) * config.vocabulary_size * config.hidden_size
    attention = {
        "llama": 4 * 2 * 32 * 50,
        "gpt_neo": 2 * 32 * (50 + 6) * 2,
        "deepseek_v3": 6 * 4 * (8 + 4 + 12) * 50,
    }[name]
    assert config.flops_per_token(50) == 6.0 * (weights + heads + attention)


PUBLISHED = {
    "chuxin-1.6b": 1_652_656_128,
    "olmo2-1b": 1_484_916_736,
    "olmo2-7b": 7_298_617_344,
    "olmo2-13b": 13_716_198_400,
    "tinystories-1m": 3_745_984,
    "tinystories-3m": 8_278_400,
}
"""Of the released checkpoints' tensors."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_have_their_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        counts = build_model(load_preset(name).model_config(512)).count_parameters()
    assert counts.total == counts.active == PUBLISHED[name]


@pytest.mark.parametrize(
    ("name", "total", "active"), [("openseek-small-v1", 1.395e9, 0.397e9), ("openseek-16b", 15.9e9, 2.87e9)]
)
def test_openseek_has_its_published_size(name: str, total: float, active: float) -> None:
    with torch.device("meta"):
        counts = build_model(load_preset(name).model_config(512)).count_parameters()
    assert counts.total == pytest.approx(total, rel=2e-3) and counts.active == pytest.approx(active, rel=2e-3)
