"""What all kinds of models have in common: a frozen shape, and tokens to logits or to a summed loss.

Whatever the kind, a document's logits in a packed sample equal those of the document alone: `positions` start anew
with each document, and tokens of different `documents` do not see each other. Dropout, z-loss and recomputation are
attributes that the loop may change between steps; dropout covers embeddings and what blocks add to the residual
stream, never the attention weights, so that fused attention stays possible.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.utils.checkpoint import checkpoint

from trainer.models.attention import Documents
from trainer.models.loss import compute_dtype, summed_loss

Fault = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What every shape has; sizes in elements. Each kind adds its own fields."""

    kind: str
    vocabulary_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    max_positions: int
    norm_epsilon: float = 1e-5
    tied_embeddings: bool = True
    init_std: float = 0.02

    def faults(self) -> list[Fault]:
        """(field, what is wrong with it) of a shape that no model can have."""
        return self.too_small("vocabulary_size", "hidden_size", "num_layers", "num_heads", "max_positions")

    def too_small(self, *names: str) -> list[Fault]:
        """Those of the fields that are not positive."""
        return [(name, f"is {getattr(self, name)}; it must be at least 1") for name in names if getattr(self, name) < 1]

    def flops_per_token(self, sequence_length: int) -> float:
        """Forward and backward, as PaLM counts them (2204.02311, appendix B), embeddings' look-up free."""
        raise NotImplementedError


class Losses(NamedTuple):
    """Sums over the tokens of weight · loss, float32 scalars: `total` is to be differentiated, the rest is told.

    `nats` is the cross-entropy alone, and what perplexity and bits per byte are made of. `extra` are parts of `total`
    beside it, by name, their coefficients applied.
    """

    total: Tensor
    nats: Tensor
    extra: dict[str, Tensor]

    def scaled(self, factor: Tensor) -> Losses:
        return Losses(self.total * factor, self.nats * factor, {name: x * factor for name, x in self.extra.items()})

    def plus(self, other: Losses) -> Losses:
        extra = {name: x + other.extra[name] for name, x in self.extra.items()}
        return Losses(self.total + other.total, self.nats + other.nats, extra)

    def detached(self) -> Losses:
        """The same numbers, to be told."""
        return Losses(self.total.detach(), self.nats.detach(), {name: x.detach() for name, x in self.extra.items()})


class ParameterCounts(NamedTuple):
    """Of a model without its predictors: all parameters, and those that serve one token; `predictors` come on top."""

    total: int
    active: int
    predictors: int


class LanguageModel(nn.Module):
    """A model of any kind. Subclasses make `embedding`, `blocks`, `norm` and `head`, and say what lies between."""

    residual_writers: ClassVar[tuple[str, ...]]
    """Ends of the names of weights that write into the residual stream."""
    entrance: ClassVar[tuple[str, ...]] = ("embedding",)
    """Modules before the blocks, and after them: of a pipeline's stages only the first and the last need them."""
    exit: ClassVar[tuple[str, ...]] = ("norm", "head")
    embedding: nn.Embedding
    blocks: nn.ModuleList
    norm: nn.Module
    head: nn.Linear

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.dropout = nn.Dropout(0.0)
        self.z_loss = 0.0
        self.recompute = False

    @property
    def layers(self) -> list[nn.Module]:
        """What is computed one after the other, and may be gathered so."""
        return list(self.blocks)

    @property
    def loss_names(self) -> tuple[str, ...]:
        """The parts of the losses in training beside the cross-entropy."""
        return ("z_loss",) if self.z_loss else ()

    @property
    def embeds_labels(self) -> bool:
        """What follows the blocks needs the embedding too."""
        return False

    def embed(self, tokens_BT: Tensor, positions_BT: Tensor) -> Tensor:
        """What the first block reads."""
        return self.dropout(self.embedding(tokens_BT))  # type: ignore[no-any-return]

    def states(self, tokens_BT: Tensor, positions_BT: Tensor, documents_BT: Documents) -> Tensor:
        """The normed states [B, T, hidden] that the head turns into logits."""
        raise NotImplementedError

    def hand_on(
        self, tokens_BT: Tensor, positions_BT: Tensor, documents_BT: Documents, weights_BT: Tensor
    ) -> tuple[Tensor, Losses]:
        """The states of a model without an end, and what its blocks lose by themselves."""
        x_BTD = self.states(tokens_BT, positions_BT, documents_BT)
        return x_BTD, Losses(x_BTD.new_zeros(()), x_BTD.new_zeros(()), {})

    def forward(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor,
        documents_BT: Documents = None,
        labels_BT: Tensor | None = None,
        weights_BT: Tensor | None = None,
    ) -> Tensor | Losses:
        """Logits [B, T, vocabulary] without labels; with labels and weights their losses.

        `documents_BT` numbers the documents of a row, or is the memory of what was read before (`models.memory`);
        without it, attention is causal over the whole row.
        """
        x_BTD = self.states(tokens_BT, positions_BT, documents_BT)
        if labels_BT is None or weights_BT is None:
            return self.head(x_BTD)  # type: ignore[no-any-return]
        return self.losses(x_BTD, labels_BT, weights_BT)

    def losses(self, x_BTD: Tensor, labels_BT: Tensor, weights_BT: Tensor) -> Losses:
        """Cross-entropy of the states' logits, and the z-loss where there is one."""
        total, nats = self.cross_entropy(x_BTD, labels_BT, weights_BT)
        return Losses(total, nats, {"z_loss": total.detach() - nats} if self.z_loss else {})

    def cross_entropy(self, x_BTD: Tensor, labels_BT: Tensor, weights_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over the tokens: (with z-loss, to be differentiated; without, to be told)."""
        rows_ND = x_BTD.flatten(0, 1).to(compute_dtype(x_BTD))
        labels_N, weights_N, fused = labels_BT.flatten(), weights_BT.flatten(), x_BTD.is_cpu and is_compiling()
        return summed_loss(rows_ND, self.head.weight, labels_N, weights_N, self.z_loss, fused)  # type: ignore[no-any-return]

    def run_block(self, block: nn.Module, *inputs: object) -> Any:
        """What the block gives; with `recompute` its inner states are made again in the backward pass, not kept."""
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return block(*inputs)
        return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=self.dropout.p > 0)

    def set_dropout(self, rate: float) -> None:
        """The fraction of elements that dropout sets to zero from now on, in training."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = rate

    def before_step(self) -> None:
        """What a kind does before the batches of each step, also when the step before was passed over."""

    def after_step(self, sum_over_processes: Callable[[Tensor], Tensor]) -> None:
        """What a kind does after each optimizer step besides; the function adds up a tensor over all processes."""

    def count_parameters(self) -> ParameterCounts:
        """The model may lie on the meta device."""
        total = sum(parameter.numel() for parameter in self.parameters())
        return ParameterCounts(total=total, active=total, predictors=0)

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Normal weights of `init_std`, those that write into the residual stream divided by sqrt(2 · layers).

        Norms are one, biases zero.
        """
        generator = torch.Generator().manual_seed(seed)
        residual_std = self.config.init_std / math.sqrt(2 * self.config.num_layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            std = residual_std if name.endswith(self.residual_writers) else self.config.init_std
            parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))
