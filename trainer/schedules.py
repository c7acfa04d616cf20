"""What changes while a run goes on: its length, the learning rate, dropout, which steps are passed over.

Everything is a function of the step and the plan, so nothing of it stands in a checkpoint. Lengths are counted in
samples as Megatron's OptimizerParamScheduler counts them: a warm-up of 2,048,000 samples at 1,024 a step gives
1/2,000 of the highest rate at step 1, whatever is told in steps or tokens instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import cos, pi, sqrt

from trainer.settings import TrainingConfig, step_ranges

SHAPES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: 0.5 * (1 + cos(pi * progress)),
    "exponential": lambda progress: 2 * float(0.5**progress) - 1,
    "minus_sqrt": lambda progress: 1 - sqrt(progress),
}
"""What is left of the range between highest and lowest rate after `progress` (0 to 1) of the fall."""


def effective_steps(config: TrainingConfig, train_tokens: int) -> int:
    """The steps of a run: as told in steps, samples or tokens, or as one pass over the tokens fills; at least one."""
    if config.steps:
        return config.steps
    tokens_of_step = config.sequence_length * config.global_batch
    if config.train_samples:
        return max(1, config.train_samples // config.global_batch)
    return max(1, (config.train_tokens or train_tokens - 1) // tokens_of_step)


def learning_rate_at(step: int, steps: int, config: TrainingConfig) -> float:
    """Learning rate of the 1-based `step` of `steps`."""
    high, low = config.learning_rate, config.min_learning_rate
    done, end = step * config.global_batch, steps * config.global_batch
    warmup = warmup_samples(config, steps)
    if done <= warmup:
        return high * done / warmup
    start = warmup if config.schedule != "wsd" else max(warmup, end - decay_samples(config, steps))
    if config.schedule == "constant" or done <= start:
        return high
    shape = config.decay if config.schedule == "wsd" else config.schedule
    return low + SHAPES[shape]((done - start) / (end - start)) * (high - low)


def warmup_samples(config: TrainingConfig, steps: int) -> float:
    """Samples with a rising learning rate."""
    told = (config.warmup_steps, config.warmup_samples, config.warmup_tokens)
    return _samples(config, told, round(config.warmup_fraction * steps))


def decay_samples(config: TrainingConfig, steps: int) -> float:
    """Samples of the fall at the end of `wsd`."""
    told = (config.decay_steps, config.decay_samples, config.decay_tokens)
    return _samples(config, told, round(config.decay_fraction * steps))


def _samples(config: TrainingConfig, told: tuple[int | None, int | None, int | None], otherwise_steps: int) -> float:
    steps, samples, tokens = told
    if samples is not None:
        return samples
    if tokens is not None:
        return tokens / config.sequence_length
    return (otherwise_steps if steps is None else steps) * config.global_batch


def dropout_at(step: int, steps: int, config: TrainingConfig) -> float:
    """The share of elements dropped in the 1-based `step`: none before `dropout_start` of the run (2305.13230)."""
    return config.dropout if step > round(config.dropout_start * steps) else 0.0


def is_within(step: int, ranges: str) -> bool:
    """Whether the 1-based `step` is one of those told as `120-140,300`."""
    return any(first <= step <= last for first, last in step_ranges(ranges))
