"""A DeepSeek-V3 type language model (2412.19437): latent attention, a mixture of experts, multi-token prediction.

Its logits equal `transformers`' DeepseekV3ForCausalLM for the same weights. Keys and values of all heads come from one
small latent, and one rotary key serves all heads. Predictors see the states of the whole model and the token that
follows, and predict the one after it; they train the states, count in no logits, and stay within documents too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from trainer.models.attention import Documents, Mask, attend, attention_mask
from trainer.models.contract import Fault, LanguageModel, Losses, ModelConfig, ParameterCounts
from trainer.models.experts import ExpertsConfig, MixtureOfExperts, Router, Routing
from trainer.models.layers import RMSNorm, Rotary, Rotation, SwiGLU, rotate
from trainer.models.loss import compute_dtype

LATENT_EPSILON = 1e-6
"""Of the latents' norms, whatever the other norms': DeepSeek's own code and transformers have no setting for it."""


@dataclass(frozen=True, kw_only=True)
class DeepSeekV3Config(ModelConfig):
    """The shape; sizes in elements. `ffn_size` is that of the first `num_dense_layers`, which have no experts."""

    kind: str = "deepseek_v3"
    rope_base: float = 10_000.0
    q_latent_size: int | None = None
    kv_latent_size: int
    qk_size: int
    qk_rope_size: int
    v_size: int
    latent_norms: bool = True
    ffn_size: int
    num_dense_layers: int
    expert_ffn_size: int
    shared_ffn_size: int = 0
    num_experts: int
    experts_per_token: int
    num_groups: int = 1
    groups_per_token: int = 1
    normalized_weights: bool = True
    routed_scaling: float = 1.0
    bias_update_rate: float = 1e-3
    balance_coefficient: float = 1e-4
    num_predictors: int = 0
    prediction_coefficient: float = 0.3

    @property
    def experts(self) -> ExpertsConfig:
        return ExpertsConfig(
            hidden_size=self.hidden_size,
            ffn_size=self.expert_ffn_size,
            shared_ffn_size=self.shared_ffn_size,
            num_experts=self.num_experts,
            experts_per_token=self.experts_per_token,
            num_groups=self.num_groups,
            groups_per_token=self.groups_per_token,
            normalized=self.normalized_weights,
            scaling=self.routed_scaling,
        )

    def faults(self) -> list[Fault]:
        sizes = ("kv_latent_size", "qk_size", "qk_rope_size", "v_size", "ffn_size", "expert_ffn_size")
        counts = ("num_experts", "experts_per_token", "num_groups", "groups_per_token")
        if faults := [*super().faults(), *self.too_small(*sizes, *counts)]:
            return faults
        if self.qk_rope_size % 2:
            faults.append(("qk_rope_size", f"is {self.qk_rope_size}; it must be even"))
        if self.num_experts % self.num_groups or self.groups_per_token > self.num_groups:
            faults.append(
                ("num_groups", f"is {self.num_groups}; it must divide num_experts, and hold groups_per_token")
            )
        elif self.experts_per_token > self.num_experts // self.num_groups * self.groups_per_token:
            faults.append(
                ("experts_per_token", f"is {self.experts_per_token}; so many experts are not open to a token")
            )
        if not 0 <= self.num_dense_layers <= self.num_layers:
            faults.append(("num_dense_layers", f"is {self.num_dense_layers}; it must be 0 to {self.num_layers}"))
        return faults

    def flops_per_token(self, sequence_length: int) -> float:
        """As PaLM counts them, of the experts those that serve a token; predictors count too."""
        layers, dense = self.num_layers + self.num_predictors, self.num_dense_layers
        served = self.experts_per_token * self.expert_ffn_size + self.shared_ffn_size
        ffn = 3 * self.hidden_size * (dense * self.ffn_size + (layers - dense) * served)
        router = (layers - dense) * self.hidden_size * self.num_experts
        scores = layers * self.num_heads * (self.qk_size + self.qk_rope_size + self.v_size) * sequence_length
        heads = (1 + self.num_predictors) * self.hidden_size * self.vocabulary_size
        joints = self.num_predictors * 2 * self.hidden_size**2
        return 6.0 * (layers * self._attention_weights + ffn + router + scores + heads + joints)

    @property
    def _attention_weights(self) -> int:
        query = self.num_heads * (self.qk_size + self.qk_rope_size)
        latent = self.q_latent_size
        queries = latent * (self.hidden_size + query) if latent else self.hidden_size * query
        keys = self.hidden_size * (self.kv_latent_size + self.qk_rope_size)
        values = self.kv_latent_size * self.num_heads * (self.qk_size + self.v_size)
        return queries + keys + values + self.num_heads * self.v_size * self.hidden_size


class LatentAttention(nn.Module):
    """Causal attention whose keys and values are made from a latent; a part of each key is rotary and shared."""

    def __init__(self, config: DeepSeekV3Config) -> None:
        super().__init__()
        self.num_heads, self.kv_latent_size = config.num_heads, config.kv_latent_size
        self.q_sizes = [config.qk_size, config.qk_rope_size]
        self.kv_sizes = [config.qk_size, config.v_size]
        width, latent = config.num_heads * sum(self.q_sizes), config.q_latent_size
        self.q_down = nn.Linear(config.hidden_size, latent, bias=False) if latent else nn.Identity()
        self.q_norm = latent_norm(latent, config) if latent else nn.Identity()
        self.q = nn.Linear(latent or config.hidden_size, width, bias=False)
        self.kv_down = nn.Linear(config.hidden_size, config.kv_latent_size + config.qk_rope_size, bias=False)
        self.kv_norm = latent_norm(config.kv_latent_size, config)
        self.kv = nn.Linear(config.kv_latent_size, config.num_heads * sum(self.kv_sizes), bias=False)
        self.out = nn.Linear(config.num_heads * config.v_size, config.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor, rotation: Rotation, mask: Mask) -> Tensor:
        shape = (*x_BTD.shape[:2], self.num_heads, -1)
        q_BTHK, q_turned_BTHR = self.q(self.q_norm(self.q_down(x_BTD))).view(shape).split(self.q_sizes, dim=-1)
        latent_BTL, k_turned_BTR = self.kv_down(x_BTD).split([self.kv_latent_size, self.q_sizes[1]], dim=-1)
        k_BTHK, v_BTHV = self.kv(self.kv_norm(latent_BTL)).view(shape).split(self.kv_sizes, dim=-1)
        k_turned_BTHR = rotate(k_turned_BTR.unsqueeze(2), rotation).expand(-1, -1, self.num_heads, -1)
        q_BTHC = torch.cat([q_BTHK, rotate(q_turned_BTHR, rotation)], dim=-1)
        k_BTHC = torch.cat([k_BTHK, k_turned_BTHR], dim=-1)
        mixed_BHTV = attend(q_BTHC.transpose(1, 2), k_BTHC.transpose(1, 2), v_BTHV.transpose(1, 2), mask)
        return self.out(mixed_BHTV.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def latent_norm(size: int, config: DeepSeekV3Config) -> nn.Module:
    return RMSNorm(size, LATENT_EPSILON) if config.latent_norms else nn.Identity()


class Block(nn.Module):
    """Latent attention, then experts, or one dense feed-forward."""

    def __init__(self, config: DeepSeekV3Config, *, dense: bool) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.attention = LatentAttention(config)
        self.ffn_norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.ffn = SwiGLU(config.hidden_size, config.ffn_size) if dense else MixtureOfExperts(config.experts)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x_BTD: Tensor, rotation: Rotation, mask: Mask) -> tuple[Tensor, Routing | None]:
        """The states and, of a mixture of experts, how it was used."""
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD), rotation, mask))
        done = self.ffn(self.ffn_norm(x_BTD))
        y_BTD, routing = done if isinstance(done, tuple) else (done, None)
        return x_BTD + self.dropout(y_BTD), routing


class Predictor(nn.Module):
    """One token further ahead than the states it is given (2412.19437, section 2.2)."""

    def __init__(self, config: DeepSeekV3Config) -> None:
        super().__init__()
        self.token_norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.state_norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.join = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.block = Block(config, dense=config.num_dense_layers == config.num_layers)
        self.norm = RMSNorm(config.hidden_size, config.norm_epsilon)

    def forward(
        self, x_BTD: Tensor, token_BTD: Tensor, rotation: Rotation, mask: Mask
    ) -> tuple[Tensor, Routing | None]:
        joined_BTD = self.join(torch.cat([self.token_norm(token_BTD), self.state_norm(x_BTD)], dim=-1))
        y_BTD, routing = self.block(joined_BTD, rotation, mask)
        return self.norm(y_BTD), routing


class DeepSeekV3(LanguageModel):
    """Tokens to logits, or to the losses when labels are given."""

    residual_writers: ClassVar = ("attention.out.weight", "ffn.down.weight", "experts.down", "shared.down.weight")
    exit: ClassVar = ("norm", "head", "predictors")
    config: DeepSeekV3Config
    norm: RMSNorm

    def __init__(self, config: DeepSeekV3Config) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocabulary_size, config.hidden_size)
        self.blocks = nn.ModuleList(
            Block(config, dense=number < config.num_dense_layers) for number in range(config.num_layers)
        )
        self.norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.head = nn.Linear(config.hidden_size, config.vocabulary_size, bias=False)
        if config.tied_embeddings:
            self.head.weight = self.embedding.weight
        self.predictors = nn.ModuleList(Predictor(config) for _ in range(config.num_predictors))
        self.rotary = Rotary(config.qk_rope_size, config.max_positions, config.rope_base)

    @property
    def layers(self) -> list[nn.Module]:
        return [*self.blocks, *self.predictors]

    @property
    def loss_names(self) -> tuple[str, ...]:
        return (*super().loss_names, "balance_loss", *(["mtp_loss"] if self.config.num_predictors else []))

    @property
    def embeds_labels(self) -> bool:
        return self.config.num_predictors > 0

    def forward(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor,
        documents_BT: Documents = None,
        labels_BT: Tensor | None = None,
        weights_BT: Tensor | None = None,
    ) -> Tensor | Losses:
        """As of every kind; in training the losses hold those of balance and of the predictors."""
        rotation, mask = self._sight(tokens_BT, positions_BT, documents_BT)
        x_BTD, imbalance_B = self._read(self.embed(tokens_BT, positions_BT), rotation, mask)
        if labels_BT is None or weights_BT is None:
            return self.head(x_BTD)  # type: ignore[no-any-return]
        losses = self.losses(x_BTD, labels_BT, weights_BT)
        if not self.training:
            return losses
        apart_BT = documents_BT if isinstance(documents_BT, Tensor) else None
        ahead = losses.nats.new_zeros(())
        for depth, predictor in enumerate(self.predictors, start=1):
            token_BTD = self.embedding(labels_BT.roll(1 - depth, dims=1))
            x_BTD, routing = self.run_block(predictor, x_BTD, token_BTD, rotation, mask)
            imbalance_B = imbalance_B + self._note(predictor, routing)
            known_BT = weights_ahead(weights_BT, apart_BT, depth)
            ahead = ahead + self.cross_entropy(x_BTD, labels_BT.roll(-depth, dims=1), known_BT)[0]
        balance = self._balance(imbalance_B, weights_BT)
        ahead = ahead * (self.config.prediction_coefficient / max(1, len(self.predictors)))
        told = {"balance_loss": balance.detach()} | ({"mtp_loss": ahead.detach()} if self.predictors else {})
        return Losses(losses.total + balance + ahead, losses.nats, losses.extra | told)

    def states(self, tokens_BT: Tensor, positions_BT: Tensor, documents_BT: Documents) -> Tensor:
        sight = self._sight(tokens_BT, positions_BT, documents_BT)
        return self._read(self.embed(tokens_BT, positions_BT), *sight)[0]

    def hand_on(
        self, tokens_BT: Tensor, positions_BT: Tensor, documents_BT: Documents, weights_BT: Tensor
    ) -> tuple[Tensor, Losses]:
        sight = self._sight(tokens_BT, positions_BT, documents_BT)
        x_BTD, imbalance_B = self._read(self.embed(tokens_BT, positions_BT), *sight)
        balance = self._balance(imbalance_B, weights_BT)
        return x_BTD, Losses(balance, torch.zeros_like(balance), {"balance_loss": balance.detach()})

    def _sight(self, tokens_BT: Tensor, positions_BT: Tensor, documents_BT: Documents) -> tuple[Rotation, Mask]:
        rotation = self.rotary(positions_BT)
        return rotation, attention_mask(documents_BT, tokens_BT, compute_dtype(rotation[0]))

    def _read(self, x_BTD: Tensor, rotation: Rotation, mask: Mask) -> tuple[Tensor, Tensor]:
        """The normed states, and how unevenly each sequence was shared out among the experts."""
        imbalance_B = x_BTD.new_zeros(len(x_BTD), dtype=torch.promote_types(x_BTD.dtype, torch.float32))
        for block in self.blocks:
            x_BTD, routing = self.run_block(block, x_BTD, rotation, mask)
            imbalance_B = imbalance_B + self._note(block, routing)
        return self.norm(x_BTD), imbalance_B

    def _balance(self, imbalance_B: Tensor, weights_BT: Tensor) -> Tensor:
        """The loss by sequence, each as often as it has labels."""
        return self.config.balance_coefficient * (imbalance_B * weights_BT.sum(1)).sum()

    def _note(self, block: nn.Module, routing: Routing | None) -> Tensor | float:
        """Count the tokens of each expert for `after_step`; returns the imbalance of each sequence."""
        if routing is None:
            return 0.0
        if self.training:
            (router,) = (module for module in block.modules() if isinstance(module, Router))
            router.load_E += routing.load_E
        return routing.imbalance_B

    def before_step(self) -> None:
        """No expert has served any token of this step."""
        for module in self.modules():
            if isinstance(module, Router):
                module.load_E.zero_()

    @torch.no_grad()
    def after_step(self, sum_over_processes: Callable[[Tensor], Tensor]) -> None:
        """Raise the bias of experts that served fewer tokens of this step than the mean, lower that of the others."""
        routers = [module for module in self.modules() if isinstance(module, Router)]
        if not routers:
            return
        load_LE = sum_over_processes(torch.stack([router.load_E for router in routers]))
        moves_LE = self.config.bias_update_rate * (load_LE.mean(1, keepdim=True) - load_LE).sign()
        for router, move_E in zip(routers, moves_LE, strict=True):
            router.bias_E += move_E

    def count_parameters(self) -> ParameterCounts:
        predictors = sum(parameter.numel() for parameter in self.predictors.parameters())
        total = sum(parameter.numel() for parameter in self.parameters()) - predictors
        config = self.config
        layers = config.num_layers - config.num_dense_layers
        idle = (config.num_experts - config.experts_per_token) * 3 * config.hidden_size * config.expert_ffn_size
        return ParameterCounts(total=total, active=total - layers * idle, predictors=predictors)


def weights_ahead(weights_BT: Tensor, documents_BT: Tensor | None, depth: int) -> Tensor:
    """The weights of the labels `depth` tokens further; none past the row's end, nor past that of a document."""
    known_BT = weights_BT.roll(-depth, dims=1)
    known_BT[:, -depth:] = 0
    return known_BT if documents_BT is None else known_BT * (documents_BT == documents_BT.roll(-depth, dims=1))
