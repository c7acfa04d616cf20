"""On a GPU every kind of model computes what it does on the CPU: exactly in float32, nearly in bfloat16."""

from __future__ import annotations

import pytest
import torch

from tests.trainer.test_kinds import SHAPES, build, packed
from trainer.models.contract import Losses
from trainer.models.experts import grouped_linear

TOLERANCE = 0.03
"""Of losses and gradients in bfloat16, relative."""
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


def losses_and_gradients(name: str, device: str, *, half: bool) -> tuple[float, torch.Tensor]:
    """(nats, all gradients in one vector) of the packed row, wide enough for the fast kernels."""
    model = build(name, hidden_size=128, init_std=0.05).to(device).train()
    _, *inputs = packed()
    tokens, positions, numbers = (tensor.to(device) for tensor in inputs)
    with torch.autocast(device, torch.bfloat16, enabled=half):
        losses = model(tokens, positions, numbers, tokens.roll(-1, dims=1), torch.ones(tokens.shape, device=device))
    assert isinstance(losses, Losses)
    losses.total.backward()
    gradients = [p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]
    return float(losses.nats), torch.cat(gradients)


@pytest.mark.parametrize("name", SHAPES)
def test_losses_and_gradients_are_those_of_the_cpu(name: str) -> None:
    nats, gradients = losses_and_gradients(name, "cpu", half=False)
    exact_nats, exact = losses_and_gradients(name, "cuda", half=False)
    near_nats, near = losses_and_gradients(name, "cuda", half=True)
    assert exact_nats == pytest.approx(nats, rel=1e-4) and near_nats == pytest.approx(nats, rel=TOLERANCE)
    assert float((exact - gradients).norm() / gradients.norm()) < 1e-2
    similar = torch.nn.functional.cosine_similarity(near, gradients, dim=0)
    assert float(similar) > 1 - TOLERANCE


@pytest.mark.parametrize("name", SHAPES)
def test_packed_logits_are_those_of_each_document_alone(name: str) -> None:
    model = build(name, hidden_size=128, init_std=0.05).cuda().eval()
    documents, *inputs = packed()
    tokens, positions, numbers = (tensor.cuda() for tensor in inputs)
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        together = model(tokens, positions, numbers)[0]
        alone = [model(torch.tensor([d]).cuda(), torch.arange(len(d)).unsqueeze(0).cuda())[0] for d in documents]
    assert float((together - torch.cat(alone)).norm() / together.norm()) < TOLERANCE


def test_the_grouped_kernel_gives_the_loops_products_and_gradients() -> None:
    """Groups of any size, none included: what a router gives is never a multiple of anything."""
    ends = torch.tensor([7, 7, 40, 41, 300], dtype=torch.int32)
    generator = torch.Generator().manual_seed(1)
    rows, weight = torch.randn(300, 128, generator=generator), torch.randn(5, 64, 128, generator=generator)
    found = []
    for device in ("cpu", "cuda"):
        x, w = (tensor.to(device).bfloat16().requires_grad_() for tensor in (rows, weight))
        y = grouped_linear(x, w, ends.to(device))
        (y.float().square().sum()).backward()
        assert x.grad is not None and w.grad is not None
        found.append([tensor.detach().float().cpu() for tensor in (y, x.grad, w.grad)])
    for loop, kernel in zip(*found, strict=True):
        assert float((loop - kernel).norm() / loop.norm()) < TOLERANCE
