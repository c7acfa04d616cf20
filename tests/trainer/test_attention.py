"""Attention by blocks, and on a GPU by FlashAttention, is the masked softmax written out: values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.models import attention, blockwise
from trainer.models.attention import attend, attention_mask, document_mask
from trainer.models.blockwise import Blocks, block_spans, first_of_document, see

HEADS, KV_HEADS, SIZE = 4, 2, 16
Results = tuple[Tensor, ...]


def heads(length: int, rows: int = 2, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Results:
    generator = torch.Generator().manual_seed(1)
    shapes = [(rows, count, length, SIZE) for count in (HEADS, KV_HEADS, KV_HEADS, HEADS)]
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype) for shape in shapes)


def documents(length: int, mean: int, rows: int = 2) -> Tensor:
    ends = torch.rand(rows, length, generator=torch.Generator().manual_seed(2)) < 1 / mean
    return ends.long().cumsum(1)


def differentiate(inputs: Results, mask: attention.Mask) -> Results:
    q, k, v, given = inputs
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    mixed = attend(*leaves, mask)  # type: ignore[misc]
    return (mixed.detach(), *torch.autograd.grad(mixed, leaves, given))


def written_out(inputs: Results, mask: Tensor) -> Results:
    q, k, v, given = (x.double().cpu() for x in inputs)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    wide = [x.repeat_interleave(HEADS // KV_HEADS, dim=1) for x in leaves[1:]]
    mixed = F.softmax(leaves[0] @ wide[0].mT / SIZE**0.5 + mask.double(), -1) @ wide[1]
    return (mixed.detach(), *torch.autograd.grad(mixed, leaves, given))


@pytest.mark.parametrize("length", [1, 40, 128, 200, 300, 700])
@pytest.mark.parametrize(("mean", "window"), [(None, None), (30, None), (500, None), (None, 64), (90, 150)])
def test_blocks_give_the_masked_softmax(length: int, mean: int | None, window: int | None) -> None:
    numbers = None if mean is None else documents(length, mean)
    inputs = heads(length)
    mask = attention_mask(numbers, torch.empty(2, length, 1), torch.float64, window)
    assert isinstance(mask, Blocks)
    plain = document_mask(torch.zeros(2, length) if numbers is None else numbers, torch.float64, window)
    for ours, exact in zip(differentiate(inputs, mask), written_out(inputs, plain), strict=True):
        torch.testing.assert_close(ours, exact)


def test_bfloat16_stays_near() -> None:
    numbers, inputs = documents(300, 60), heads(300, dtype=torch.bfloat16)
    mask = attention_mask(numbers, torch.empty(2, 300, 1), torch.bfloat16)
    for ours, exact in zip(differentiate(inputs, mask), written_out(inputs, document_mask(numbers)), strict=True):
        assert float((ours.double() - exact).abs().mean() / exact.abs().mean()) < 0.01


def test_values_may_have_another_size() -> None:
    q, k, v, _ = heads(200)
    mask = attention_mask(None, torch.empty(2, 200, 1), torch.float64)
    whole, part = attend(q, k, v, mask), attend(q, k, v[..., :5], mask)
    torch.testing.assert_close(part, whole[..., :5])


def test_the_compiler_may_trust_the_operation() -> None:
    """PyTorch's own check: shapes without data, gradients and traced calls are those of the operation itself."""
    q, k, v, _ = (x.requires_grad_() for x in heads(200))
    blocks = see(documents(200, 60), 200, torch.float64)
    keys, values = (x.detach().repeat_interleave(HEADS // KV_HEADS, dim=1).requires_grad_() for x in (k, v))
    torch.library.opcheck(torch.ops.gristmill.mix.default, (q, keys, values, *blocks))


def test_longer_samples_go_to_pytorchs_kernel() -> None:
    x = torch.empty(1, blockwise.LONGEST + 1, 1)
    assert attention_mask(None, x, torch.float32) is None
    numbers = documents(blockwise.LONGEST + 1, 500, rows=1)
    assert isinstance(attention_mask(numbers, x, torch.float32), Tensor)
    inputs = heads(1200, rows=1)
    for ours, exact in zip(
        differentiate(inputs, None), differentiate(inputs, see(None, 1200, torch.float64)), strict=True
    ):
        torch.testing.assert_close(ours, exact)


def test_keys_of_other_documents_are_not_multiplied() -> None:
    """Of 4 × 4 blocks of a row causality leaves 10; documents that begin at 128 and 256 leave 1 + 1 + 1 + 2."""
    numbers = torch.zeros(1, 512, dtype=torch.int64)
    numbers[:, 128:256], numbers[:, 256:] = 1, 2
    blocks = [
        sum((stop - first) // 128 for _, _, stop, first, _ in block_spans(see(seen, 512, torch.float32).first_RT, 1))
        for seen in (None, numbers)
    ]
    assert blocks == [10, 5]
    assert first_of_document(numbers)[0, [0, 127, 128, 300, 511]].tolist() == [0, 0, 128, 256, 256]


@pytest.mark.gpu
@pytest.mark.parametrize(("mean", "window"), [(30, None), (500, None), (None, 64), (90, 150)])
@pytest.mark.parametrize("kernel", ["varlen", "flex"])
def test_the_gpus_kernels_give_the_masked_softmax(
    mean: int | None, window: int | None, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "has_varlen", lambda: kernel == "varlen")
    numbers = torch.zeros(2, 512, dtype=torch.int64) if mean is None else documents(512, mean)
    inputs = heads(512, dtype=torch.bfloat16, device="cuda")
    mask = attention_mask(numbers.cuda(), torch.empty(2, 512, 1, device="cuda"), torch.bfloat16, window)
    plain = document_mask(numbers, torch.float64, window)
    for ours, exact in zip(differentiate(inputs, mask), written_out(inputs, plain), strict=True):
        assert float((ours.double().cpu() - exact).abs().mean() / exact.abs().mean()) < 0.01
