"""AdamW for a model, and its state as named tensors: what a checkpoint holds besides the step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from storage.errors import ModelError
from trainer.settings import TrainingConfig


def make_optimizer(parameters: Iterable[nn.Parameter], config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW in one fused kernel; vectors (norms) do not decay."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=config.epsilon, fused=True
    )


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters by name, tied ones once, and the buffers that belong to the model's state."""
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    kept = model.state_dict().keys()
    return tensors | {name: buffer for name, buffer in model.named_buffers() if name in kept}


def load_model(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy weights into a model of the same shape. Raises ModelError that names what does not fit."""
    own = model_tensors(model)
    wrong = sorted(set(own) ^ set(tensors)) or [name for name in own if own[name].shape != tensors[name].shape]
    if wrong:
        raise ModelError(f"the checkpoint holds another model: {', '.join(wrong[:5])} differ")
    for name, parameter in own.items():
        parameter.copy_(tensors[name])


def moments(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """AdamW's step counts and moments by the parameters' names; zeros before the first step."""
    for parameter in parameters.values():
        if not optimizer.state[parameter]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
    return {
        f"optimizer.{name}.{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state[parameter].items()
    }
