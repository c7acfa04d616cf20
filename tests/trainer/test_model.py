"""The model: packed documents do not see each other, the chunked loss is the plain one, shapes count as published."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trainer.data.batches import cut_documents
from trainer.models.kinds import build_model, count_parameters
from trainer.models.llama import Llama, LlamaConfig
from trainer.models.loss import summed_loss
from trainer.settings import load_preset

END = 0
Shape = Callable[..., LlamaConfig]


def initialized(config: LlamaConfig) -> Llama:
    model = Llama(config)
    model.initialize(3)
    return model.eval()


@pytest.mark.parametrize("changes", [{}, {"num_kv_heads": 4}, {"tied_embeddings": False}])
def test_packed_logits_are_those_of_each_document_alone(shape: Shape, changes: dict[str, object]) -> None:
    model = initialized(shape(init_std=0.3, **changes))
    generator = torch.Generator().manual_seed(5)
    documents = [torch.randint(1, 384, (length,), generator=generator).tolist() + [END] for length in (9, 1, 17, 0, 30)]
    packed = np.array([sum(documents, [])])
    numbers, positions = cut_documents(packed, END)
    with torch.no_grad():
        together = model(torch.tensor(packed), torch.tensor(positions), torch.tensor(numbers))[0]
        alone = [model(torch.tensor([d]), torch.arange(len(d)).unsqueeze(0))[0] for d in documents]
    assert float(together.abs().max()) > 0.1
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


@pytest.mark.parametrize("vocabulary", [384, 9_000])
def test_chunked_loss_and_gradients_are_the_plain_ones(vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(300, 24, generator=generator, requires_grad=True)
    head = torch.randn(vocabulary, 24, generator=generator, requires_grad=True)
    labels = torch.randint(0, vocabulary, (300,), generator=generator)
    weights = torch.rand(300, generator=generator) * (torch.rand(300, generator=generator) > 0.2)
    plain = (F.cross_entropy(rows @ head.T, labels, reduction="none") * weights).sum()
    expected = torch.autograd.grad(plain * 0.5, [rows, head])
    ours, _ = summed_loss(rows, head, labels, weights)
    found = torch.autograd.grad(ours * 0.5, [rows, head])
    torch.testing.assert_close(ours, plain)
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


def test_the_loss_of_a_hopeless_label_is_finite() -> None:
    rows, head = torch.tensor([[300.0, 0.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert float(summed_loss(rows, head, torch.tensor([1]), torch.ones(1))[0]) == 600.0


def test_chuxin_has_its_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = build_model(load_preset("chuxin-1.6b").model_config(100_096))
    assert count_parameters(model) == 1_652_656_128


def test_tiny_is_tiny() -> None:
    config = load_preset("tiny").model_config(8_192)
    with torch.device("meta"):
        model = build_model(config)
    outside = count_parameters(model) - 8_192 * config.hidden_size
    assert 1_000_000 < outside < 2_000_000
    products = 6 * sum(p.numel() for p in model.parameters() if p.dim() > 1)
    assert products < config.flops_per_token(256) < 1.3 * products


def test_weights_come_from_the_seed_alone(shape: Shape) -> None:
    first, again, other = Llama(shape()), Llama(shape()), Llama(shape())
    first.initialize(1), again.initialize(1), other.initialize(2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)
    assert float(first.head.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(first.blocks[0].ffn.down.weight.detach().std()) == pytest.approx(0.01, rel=0.1)  # type: ignore[union-attr]


def test_labels_that_are_all_but_impossible_have_a_finite_loss() -> None:
    """A share of exp(-400) is no float32; the loss and its gradient are those of float64."""
    rows = torch.tensor([[400.0, 0.0], [0.0, 1.0]], requires_grad=True)
    head = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    labels, weights = torch.tensor([1, 0]), torch.tensor([1.0, 2.0])
    total, nats = summed_loss(rows, head, labels, weights)
    plain = F.cross_entropy(rows.double() @ head.double().T, labels, reduction="none") @ weights.double()
    assert nats.item() == pytest.approx(plain.item()) and plain.item() > 400
    torch.testing.assert_close(*(torch.autograd.grad(loss, rows)[0] for loss in (total, plain)))
