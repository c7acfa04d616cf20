"""Context extension in stages: longer sequences on a larger RoPE base, with what it does to short ones on record.

Each stage goes on from the one before with as many tokens a step. Its base is told, or NTK-aware: base · s^(d/(d−2))
for s-times longer sequences and d rotary dimensions, so that the slowest rotation covers the new length as it covered
the old one, and the fastest stay as they were. After every stage, and before the first, the held-out texts are scored
in rows of the first length and of every later one so far, and needles are hidden at each; `extension.json` has it all,
because a longer context that costs the short one is no gain.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from storage.commit import write_atomically
from storage.errors import InputError, ModelError
from trainer.checkpoints.folders import find_checkpoint
from trainer.checkpoints.trained import Trained, open_trained
from trainer.data.mixture import Mixture, open_mixture
from trainer.evaluation.held_out import score_readers
from trainer.evaluation.likelihood import LikelihoodModel
from trainer.evaluation.needle import NeedleGrid, find_needles
from trainer.models.contract import ModelConfig
from trainer.parallel.world import World, join_world
from trainer.registry.anneal import anneal_preset
from trainer.train import Tell, train

EXTENSION_FILE = "extension.json"
FORMAT_VERSION = 1
NTK = "ntk"


@dataclass(frozen=True, kw_only=True)
class ExtensionStage:
    """One stage: tokens a sample, the RoPE base, the mixture's folder."""

    length: int
    rope_base: float
    data: Path


@dataclass(frozen=True, kw_only=True)
class ContextScore:
    """What a model does at one length: mean bits per byte of the held-out sources, share of needles found."""

    length: int
    bits_per_byte: float
    needles: float | None


@dataclass(frozen=True, kw_only=True)
class StageScore:
    """A model after a stage: folder, length and base that it was trained with, and its scores by length."""

    folder: str
    length: int
    rope_base: float
    scores: tuple[ContextScore, ...]


def plan_stages(
    trained: Trained, lengths: Sequence[int], bases: Sequence[str], data: Sequence[Path]
) -> list[ExtensionStage]:
    """The stages, each longer than the one before; `bases` (numbers or `ntk`) and `data` one for all or one a stage.

    Raises InputError for plans that do not fit, ModelError for models without rotary positions.
    """
    size = rotary_size(trained.model.config)
    _check(trained, lengths, bases, data)
    stages, length, base = [], trained.training.sequence_length, float(trained.model.config.rope_base)  # type: ignore[attr-defined]
    for number, longer in enumerate(lengths):
        told = bases[number % len(bases)]
        base = ntk_base(base, longer / length, size) if told == NTK else float(told)
        stages.append(ExtensionStage(length=longer, rope_base=base, data=data[number % len(data)]))
        length = longer
    return stages


def ntk_base(base: float, factor: float, size: int) -> float:
    """The base whose slowest rotation of `size` turns as far over `factor` lengths as the old one's over one."""
    return float(base * factor ** (size / (size - 2)))


def rotary_size(config: ModelConfig) -> int:
    """Rotary dimensions of a head. Raises ModelError for a kind without any."""
    size = int(getattr(config, "qk_rope_size", 0) or getattr(config, "head_size", 0))
    if not hasattr(config, "rope_base") or size <= 2:
        raise ModelError(
            f"a model of kind {config.kind} has learned a vector for each position: its context cannot grow",
            hint="extend a model with rotary positions: llama or deepseek_v3",
        )
    return size


def extend_context(
    checkpoints: Path,
    stages: Sequence[ExtensionStage],
    out: Path,
    overrides: Mapping[str, Any],
    *,
    haystack: Sequence[str] = (),
    tell: Tell = print,
) -> list[StageScore]:
    """Train the stages one after the other below `out`, measuring before and after each; returns what was measured.

    Stages that are finished are not trained again.
    """
    parent, first = checkpoints, open_trained(checkpoints).training.sequence_length
    scores = [measure_contexts(parent, stages[0].data, [first, stages[0].length], haystack, tell)]
    for stage in stages:
        folder = out / f"length-{stage.length:07d}"
        checkpoint = find_checkpoint(parent).folder
        told = {**overrides, "sequence_length": stage.length}
        train(stage.data, anneal_preset(checkpoint, told, rope_base=stage.rope_base), folder, tell=tell)
        known = sorted({first, *(it.length for it in stages if it.length <= stage.length)})
        scores.append(measure_contexts(folder, stage.data, known, haystack, tell))
        _write(out, scores)
        parent = folder
    return scores


def measure_contexts(
    checkpoints: Path, data: Path, lengths: Sequence[int], haystack: Sequence[str], tell: Tell
) -> StageScore:
    """Held-out bits per byte in rows of each length that the model has positions for; needles where there is hay."""
    trained, mixture = open_trained(checkpoints), open_mixture(data)
    config = trained.model.config
    with join_world(trained.training.device) as world:
        trained.model.to(world.device)
        found = tuple(
            ContextScore(
                length=length,
                bits_per_byte=_bits_per_byte(trained, mixture, length, world),
                needles=_needles(trained, length, haystack),
            )
            for length in lengths
            if length <= config.max_positions
        )
    for score in found:
        needles = "" if score.needles is None else f", {score.needles:.0%} of needles"
        tell(f"{checkpoints.name} at {score.length} tokens: {score.bits_per_byte:.4f} bits/byte{needles}")
    return StageScore(
        folder=str(checkpoints),
        length=trained.training.sequence_length,
        rope_base=float(config.rope_base),  # type: ignore[attr-defined]
        scores=found,
    )


def _check(trained: Trained, lengths: Sequence[int], bases: Sequence[str], data: Sequence[Path]) -> None:
    steps = [trained.training.sequence_length, *lengths]
    if not lengths or any(later <= earlier for earlier, later in zip(steps, lengths, strict=False)):
        raise InputError(
            f"lengths {', '.join(map(str, lengths))} must grow from {steps[0]}, which the model was trained with"
        )
    for name, given in (("--rope-base", bases), ("--data", data)):
        if len(given) not in (1, len(lengths)):
            raise InputError(f"{len(given)} values of `{name}` for {len(lengths)} stages", hint="give one, or one each")
    for base in bases:
        if base != NTK and not _is_base(base):
            raise InputError(f"`{base}` is no RoPE base", hint=f"give a number above 1, or `{NTK}`")


def _is_base(told: str) -> bool:
    try:
        return 1 < float(told) < math.inf
    except ValueError:
        return False


def _bits_per_byte(trained: Trained, mixture: Mixture, length: int, world: World) -> float:
    """The mean over the held-out sources, in rows of this length."""
    config = trained.training
    rows = replace(
        config, sequence_length=length, micro_batch=max(1, config.micro_batch * config.sequence_length // length)
    )
    figures = [
        score_readers(trained.model, mixture.heldout_readers(name), mixture.vocabulary.end_of_document, rows, world)
        / math.log(2)
        / max(1, mixture.heldout[name].bytes)
        for name in mixture.heldout
    ]
    return sum(figures) / max(1, len(figures))


def _needles(trained: Trained, length: int, haystack: Sequence[str]) -> float | None:
    if not haystack:
        return None
    return find_needles(LikelihoodModel(trained, window=length), haystack, NeedleGrid(lengths=(length,))).mean_found


def _write(out: Path, scores: Sequence[StageScore]) -> None:
    row = {"format_version": FORMAT_VERSION, "stages": [asdict(score) for score in scores]}
    write_atomically(out / EXTENSION_FILE, (json.dumps(row, indent=2) + "\n").encode())
