"""How an encoder is fitted: every number that can change its weights, with defaults for frozen and for whole training.

FineWeb-Edu's classifier was frozen: 20 epochs at 3e-4 over 460,000 labels, the pooler and one linear layer learning.
With a few thousand labels a higher rate gets there; whole encoders want a tenth of it and four epochs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from storage.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """What can change a distilled encoder, beside its base model and its examples.

    `max_tokens` of a text, special tokens counted. `batch` texts make a step, `batch_tokens` padded tokens are read at
    once. `warm_up`: share of all steps. `patience`: epochs without a better validation loss. `threshold`: where grades
    and scores are cut for the figures. `scale`: lowest and highest grade. `shares`: of training, validation and test.
    `dtype` "auto" is bfloat16 under autocast on a GPU, float32 on the CPU. `threads` are the CPU's.
    """

    frozen: bool = False
    max_tokens: int = 512
    epochs: int | None = None
    learning_rate: float | None = None
    batch: int = 32
    batch_tokens: int = 16_384
    warm_up: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0
    patience: int = 3
    threshold: float = 3.0
    scale: tuple[float, float] = (0.0, 5.0)
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("max_tokens", "batch", "batch_tokens", "patience", "threads")
        faults = [f"{name} is {getattr(self, name)}, under 1" for name in counts if getattr(self, name) < 1]
        faults += [f"epochs is {self.epochs}, under 1"] if self.epochs is not None and self.epochs < 1 else []
        faults += [f"the learning rate is {self.rate:g}, not over 0"] if not self.rate > 0 else []
        faults += [f"warm_up is {self.warm_up:g}, outside 0-1"] if not 0 <= self.warm_up < 1 else []
        if abs(sum(self.shares) - 1) > 1e-9 or min(self.shares) <= 0:
            faults.append(f"the shares {self.shares} are not three parts of one")
        if not self.scale[0] < self.threshold <= self.scale[1]:
            faults.append(f"the threshold {self.threshold:g} is not on the scale {self.scale[0]:g}-{self.scale[1]:g}")
        if faults:
            raise RecipeError(f"the encoder's settings do not fit: {'; '.join(faults)}")

    @property
    def num_epochs(self) -> int:
        return self.epochs or (20 if self.frozen else 4)

    @property
    def rate(self) -> float:
        return self.learning_rate if self.learning_rate is not None else (1e-3 if self.frozen else 5e-5)
