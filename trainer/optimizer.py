"""AdamW for a model, and its state as named tensors: what a checkpoint holds besides the step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from storage.errors import ModelError
from trainer.settings import TrainingConfig


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW in one fused kernel; vectors (norms) do not decay."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=config.epsilon, fused=True
    )


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters by name, tied ones once."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def load_model(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy weights into a model of the same shape. Raises ModelError that names what does not fit."""
    own = model_tensors(model)
    wrong = sorted(set(own) ^ set(tensors)) or [name for name in own if own[name].shape != tensors[name].shape]
    if wrong:
        raise ModelError(f"the checkpoint holds another model: {', '.join(wrong[:5])} differ")
    for name, parameter in own.items():
        parameter.copy_(tensors[name])


def training_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Optimizer moments by parameter name, and the random states."""
    tensors = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"optimizer.{name}.{key}"] = value
    return tensors


def restore_training(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """The opposite of `training_tensors`."""
    torch.set_rng_state(tensors["rng.cpu"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    restore_moments(optimizer, model, tensors)


def restore_moments(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """AdamW's moments and step counts, from named tensors."""
    for name, parameter in model.named_parameters():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            device = parameter.device if key != "step" or parameter.is_cuda else torch.device("cpu")
            optimizer.state[parameter][key] = tensors[f"optimizer.{name}.{key}"].to(device)
