"""BERT and RoBERTa encoders over documents laid end to end: no padding, and one matrix product for many documents.

Invariant: on a CPU a document's states do not depend on its neighbours, bit for bit: products of two rows or more give
each row the same sums in the same order (oneDNN, tested), attention sees one document at a time, all else is by row.
Matrices are multiplied in `dtype`; between them, in residuals and normalisation, everything is float32. That halves
bfloat16's error (elements of unit vectors move by 0.0017 at most, not by 0.0033) and costs nothing that was measured.
Trade-off: one more forward to keep right, compared with transformers' own when a model opens (20 ms), for 1.6 times its
speed on one core: weights laid out once for oneDNN, GELU within the product, no mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from classifiers.encoders.attention import attend, attend_on_cuda

if TYPE_CHECKING:
    import torch

LEAST_ROWS = 16
"""Fewer rows than these are filled up: a product of one row sums in another order."""
LAYOUT_ROWS = 1024
"""For how many rows at a time weights are laid out."""
PROBE_TOKENS = 12
PROBE_TOLERANCE = 1e-3
"""Relative to the largest state, in float32; another activation or order of layers moves them by 0.1 and more."""

_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert")
_ALIKE = ("bert", *_AFTER_PADDING)

Linear = Callable[["torch.Tensor"], "torch.Tensor"]


@dataclass(frozen=True, slots=True)
class Norm:
    """Layer normalisation, in float32."""

    weight: torch.Tensor
    bias: torch.Tensor
    epsilon: float

    def __call__(self, x_TD: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.nn.functional.layer_norm(x_TD, self.weight.shape, self.weight, self.bias, self.epsilon)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's matrices and norms; `project` gives scaled queries, keys and values side by side."""

    project: Linear
    merge: Linear
    after_attention: Norm
    widen: Linear
    narrow: Linear
    after_widening: Norm


class PackedEncoder:
    """`encoder(ids_T, positions_T, offsets) -> states_TD`, float32; make one with `pack_encoder`."""

    def __init__(self, module: Any, dtype: torch.dtype) -> None:
        config = module.config
        self.dtype = dtype
        self.first_position = config.pad_token_id + 1 if config.model_type in _AFTER_PADDING else 0
        self._heads = config.num_attention_heads
        embeddings = module.embeddings
        self._words = embeddings.word_embeddings.weight.detach()
        self._positions = (embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0]).detach()
        self._norm = _norm(embeddings.LayerNorm)
        self._layers = [_layer(layer, dtype) for layer in module.encoder.layer]

    def __call__(self, ids_T: torch.Tensor, positions_T: torch.Tensor, offsets: Sequence[int]) -> torch.Tensor:
        attend_rows = self._attention(offsets, ids_T.device)
        x_TD = self._norm(self._words[ids_T] + self._positions[positions_T])
        for layer in self._layers:
            h_TD = x_TD.to(self.dtype)
            x_TD = layer.after_attention(layer.merge(attend_rows(layer.project(h_TD))) + x_TD)
            h_TD = x_TD.to(self.dtype)
            x_TD = layer.after_widening(layer.narrow(layer.widen(h_TD)) + x_TD)
        return x_TD

    def _attention(self, offsets: Sequence[int], device: torch.device) -> Linear:
        import torch

        heads = (-1, 3, self._heads, self._words.shape[1] // self._heads)
        if device.type != "cuda":
            return lambda qkv_TE: attend(qkv_TE.view(heads), offsets).flatten(1)
        places = torch.tensor(offsets, dtype=torch.int32).to(device, non_blocking=True)
        longest = max(end - start for start, end in zip(offsets, offsets[1:], strict=False))
        return lambda qkv_TE: attend_on_cuda(qkv_TE.view(heads), places, longest).flatten(1)


def pack_encoder(module: Any, dtype: torch.dtype, device: torch.device) -> PackedEncoder | None:
    """transformers' float32 encoder, which lies on the CPU, for packed work in `dtype` on `device`.

    None where its architecture is not one that we know, and for float32 on CUDA, where attention is of 16 bits only.
    """
    import torch

    if device.type == "cuda" and dtype == torch.float32:
        return None
    if _is_alike(module.config) and _agrees(module, PackedEncoder(module, torch.float32)):
        return PackedEncoder(module.to(device), dtype)
    return None


def _is_alike(config: Any) -> bool:
    return (
        config.model_type in _ALIKE
        and config.hidden_act == "gelu"
        and getattr(config, "position_embedding_type", None) in (None, "absolute")
        and not getattr(config, "is_decoder", False)
    )


def _agrees(module: Any, packed: PackedEncoder) -> bool:
    """Whether two short documents come to the same states as through transformers."""
    import torch

    ids_T = torch.arange(2 * PROBE_TOKENS) % module.config.vocab_size
    # No id of padding: RoBERTa would not count it.
    ids_T[ids_T == module.config.pad_token_id] = module.config.vocab_size - 1
    positions_T = torch.arange(2 * PROBE_TOKENS) % PROBE_TOKENS + packed.first_position
    with torch.inference_mode():
        expected = module(input_ids=ids_T.view(2, PROBE_TOKENS)).last_hidden_state.flatten(0, 1)
        found = packed(ids_T, positions_T, [0, PROBE_TOKENS, 2 * PROBE_TOKENS])
    return bool((found - expected).abs().max() <= PROBE_TOLERANCE * expected.abs().max())


def _layer(layer: Any, dtype: torch.dtype) -> Layer:
    return Layer(
        project=_projection(layer.attention.self, dtype),
        merge=_linear(layer.attention.output.dense, dtype),
        after_attention=_norm(layer.attention.output.LayerNorm),
        widen=_linear(layer.intermediate.dense, dtype, "gelu"),
        narrow=_linear(layer.output.dense, dtype),
        after_widening=_norm(layer.output.LayerNorm),
    )


def _norm(norm: Any) -> Norm:
    return Norm(norm.weight.detach().float(), norm.bias.detach().float(), norm.eps)


def _projection(attention: Any, dtype: torch.dtype) -> Linear:
    """Queries, keys and values in one product, with attention's scale within the queries' weights."""
    import torch

    scale = attention.attention_head_size**-0.5
    parts = [attention.query, attention.key, attention.value]
    factors = [scale, 1.0, 1.0]
    weight = torch.cat([part.weight.detach() * factor for part, factor in zip(parts, factors, strict=True)])
    bias = torch.cat([part.bias.detach() * factor for part, factor in zip(parts, factors, strict=True)])
    return _multiplier(weight.to(dtype), bias.to(dtype), "none")


def _linear(linear: Any, dtype: torch.dtype, activation: str = "none") -> Linear:
    return _multiplier(linear.weight.detach().to(dtype), linear.bias.detach().to(dtype), activation)


def _multiplier(weight: torch.Tensor, bias: torch.Tensor, activation: str) -> Linear:
    """x -> activation(x @ weight.T + bias), by oneDNN with the weight laid out once where torch offers that."""
    import torch

    prepare = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
    offered = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if weight.device.type == "cpu" and offered and prepare is not None:
        laid_out = prepare(weight.contiguous(), LAYOUT_ROWS)
        multiply = torch.ops.mkldnn._linear_pointwise
        return lambda x: multiply(x, laid_out, bias, activation, [], "none")
    plain = torch.nn.functional.linear
    if activation == "gelu":
        return lambda x: torch.nn.functional.gelu(plain(x, weight, bias))
    return lambda x: plain(x, weight, bias)
