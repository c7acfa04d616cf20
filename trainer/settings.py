"""What a run is told: the shape of the model and how to train it, from a preset (YAML) and the command line.

Fields marked `outcome` change the numbers that come out; a run is only resumed with the same ones. The others (how
often to save, how many threads) may differ from one start to the next. Unknown keys, wrong types and impossible
values are refused, all at once, with their lines.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from storage.errors import RecipeError
from trainer.models.contract import ModelConfig
from trainer.models.kinds import DEFAULT_KIND, KINDS, read_config

PRESETS = Path(__file__).parent / "presets"
SCHEDULES = ("cosine", "linear", "constant", "wsd")
DECAYS = ("linear", "cosine", "exponential", "minus_sqrt")
PRECISIONS = ("auto", "bf16", "fp32")
DEVICES = ("auto", "cpu", "cuda")
ON_NAN = ("stop", "skip")
LENGTHS = ("steps", "train_samples", "train_tokens")
WARMUPS = ("warmup_fraction", "warmup_steps", "warmup_samples", "warmup_tokens")
FALLS = ("decay_fraction", "decay_steps", "decay_samples", "decay_tokens")


def outcome(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """A field that changes what is trained."""
    return field(default=default, metadata={"help": help, "choices": choices, "outcome": True})


def manner(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """A field that changes only how it is done."""
    return field(default=default, metadata={"help": help, "choices": choices, "outcome": False})


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to train. A batch is counted in samples of `sequence_length` tokens, a step is one optimizer update."""

    steps: int | None = outcome(None, "optimizer steps; without any length told, one pass over the training tokens")
    train_samples: int | None = outcome(None, "length of the run in samples instead")
    train_tokens: int | None = outcome(None, "length of the run in tokens instead")
    sequence_length: int = outcome(256, "tokens a sample")
    global_batch: int = outcome(8, "samples a step, over all processes")
    micro_batch: int = manner(8, "samples a process takes at once; the rest is accumulated")
    seed: int = outcome(1234, "seed of the weights and of the data order")
    learning_rate: float = outcome(1e-3, "highest learning rate")
    min_learning_rate: float = outcome(0.0, "learning rate at the end")
    schedule: str = outcome("cosine", "learning rate after the warm-up", SCHEDULES)
    warmup_fraction: float = outcome(0.05, "fraction of the steps with a rising learning rate")
    warmup_steps: int | None = outcome(None, "steps with a rising learning rate, instead of the fraction")
    warmup_samples: int | None = outcome(None, "the same, counted in samples")
    warmup_tokens: int | None = outcome(None, "the same, counted in tokens")
    decay_fraction: float = outcome(0.2, "wsd: fraction of the steps with a falling learning rate")
    decay_steps: int | None = outcome(None, "wsd: steps with a falling learning rate, instead of the fraction")
    decay_samples: int | None = outcome(None, "the same, counted in samples")
    decay_tokens: int | None = outcome(None, "the same, counted in tokens")
    decay: str = outcome("linear", "wsd: shape of the fall", DECAYS)
    weight_decay: float = outcome(0.1, "AdamW's weight decay; not for norms")
    beta1: float = outcome(0.9, "AdamW's first moment")
    beta2: float = outcome(0.95, "AdamW's second moment")
    epsilon: float = outcome(1e-8, "AdamW's epsilon")
    clip: float = outcome(1.0, "largest gradient norm; 0 clips nothing")
    z_loss: float = outcome(0.0, "weight of the squared logarithm of the softmax's sum (2204.02311) in the loss")
    dropout: float = outcome(0.0, "share of elements dropped from embeddings and from what each block adds")
    dropout_start: float = outcome(0.0, "fraction of the run before any are dropped (2305.13230: late is as good)")
    init_from: str = manner("", "checkpoint (a run's folder or iter_…) whose weights the run starts from")
    init_optimizer: bool = outcome(False, "with `init_from`: start with its optimizer's moments too")
    reset_attention_mask: bool = outcome(True, "tokens do not look past an end of document")
    reset_position_ids: bool = outcome(True, "positions start anew after an end of document")
    eod_mask_loss: bool = outcome(False, "no loss for what follows an end of document")
    precision: str = outcome("auto", "matrix products; auto: bf16 where the hardware has it", PRECISIONS)
    recompute: bool = manner(False, "keep only what enters each block, and compute the rest again when going back")
    skip_iterations: str = manner("", "steps whose samples are passed over, as 120-140,300; may differ when resuming")
    on_nan: str = manner("stop", "a loss or gradient that is no number: stop, or pass over the step", ON_NAN)
    nan_limit: int = manner(10, "faulty steps in a row that may be passed over before the run stops")
    spike_limit: float = manner(0.0, "a loss over this times its running mean is treated as no number; 0: never")
    device: str = manner("auto", "auto: a GPU where there is one", DEVICES)
    threads: int = manner(2, "CPU threads a process; no more than there are cores")
    data_parallel_shard: int = manner(1, "processes that share weights, gradients and moments (FSDP2)")
    tensor_parallel: int = manner(1, "processes that share heads and feed-forward columns")
    sequence_parallel: bool = manner(False, "with tensor_parallel: what lies between is cut along the sequence")
    pipeline_parallel: int = manner(1, "processes that each take some of the layers (1F1B)")
    pipeline_chunks: int = manner(1, "stages a process; more than one are interleaved")
    expert_parallel: int = manner(
        1, "processes that share the experts and send each other tokens; goes with shards and stages"
    )
    compile: bool = manner(False, "torch.compile; on a CPU it needs a C++ compiler and half a minute at the start")
    timeout_minutes: float = manner(30.0, "how long processes wait for each other before the run ends")
    async_save: bool = manner(False, "checkpoints are written from a copy while training goes on")
    save_every: int = manner(100, "steps between checkpoints; the last step is always saved")
    keep: int = manner(2, "checkpoints kept; at least 2, so that a damaged one has a predecessor")
    keep_every: int = manner(0, "checkpoints of every so many steps are kept for good; 0 keeps none beyond `keep`")
    stage: int = manner(0, "number of the stage in names of checkpoints; 0: one more than that of `init_from`, else 1")
    ingredient: int = manner(0, "number in names of checkpoints, of a stage trained several times; 0: none")
    log_every: int = manner(10, "steps between log lines")
    evaluate_every: int = manner(0, "steps between evaluations on held-out texts, into the metrics; 0: only at the end")
    tensorboard: bool = manner(False, "write TensorBoard's event files too (needs the package tensorboard)")
    wandb: str = manner("", "project of Weights & Biases to write to; offline unless WANDB_MODE says otherwise")
    profile: str = manner("", "steps to trace, as 10-12: a Chrome trace of each process under `profile/`")
    profile_memory: bool = manner(False, "with `profile`: memory too; on a GPU a snapshot of its allocations")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A model's shape, its vocabulary size only where the preset fixes one, and how to train it."""

    name: str
    model: Mapping[str, Any]
    training: TrainingConfig

    def model_config(self, padded_vocabulary_size: int) -> ModelConfig:
        """The shape for a vocabulary; the preset's own size wins."""
        return read_config({"vocabulary_size": padded_vocabulary_size, **self.model})


def load_preset(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> Preset:
    """Read a shipped preset by name, or any YAML file of the same form, and lay `overrides` of training fields on it.

    Raises RecipeError that lists everything wrong at once.
    """
    path = PRESETS / f"{name_or_path}.yaml"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        names = ", ".join(sorted(preset.stem for preset in PRESETS.glob("*.yaml")))
        raise RecipeError(f"no preset `{name_or_path}`", hint=f"give one of {names}, or the path of a YAML file")
    sections, lines = _read_sections(path)
    training = overlay(sections["training"], overrides or {})
    return make_preset(path.stem, sections["model"], training, at=path, lines=lines)


def make_preset(
    name: str,
    model: Mapping[str, Any],
    training: Mapping[str, Any],
    *,
    at: Path,
    lines: Mapping[str, int] | None = None,
) -> Preset:
    """A preset of these two sections, which stand in `at`, their keys in `lines`.

    Raises RecipeError that lists everything wrong at once.
    """
    faults = [*_faults(TrainingConfig, training, "training"), *_model_faults(model)]
    if not faults:
        faults = _training_faults(TrainingConfig(**training), model)
    if faults:
        told = "\n".join(f"    {_line_of(key, lines or {})}`{key}` {fault}" for key, fault in faults)
        raise RecipeError(f"this preset cannot be used:\n{told}", at=str(at), hint="mend these and start again")
    return Preset(name=name, model=model, training=TrainingConfig(**training))


def overlay(training: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Training fields with others laid over them: whoever tells a length in tokens means no more the one in steps."""
    replaced = {name for ways in (LENGTHS, WARMUPS, FALLS) if set(ways) & set(overrides) for name in ways}
    return {**{name: value for name, value in training.items() if name not in replaced}, **overrides}


def step_ranges(told: str) -> tuple[tuple[int, int], ...]:
    """`"120-140,300"` as ((120, 140), (300, 300)). Raises ValueError for anything else."""
    pairs = [part.split("-") for part in told.replace(" ", "").split(",") if part]
    ranges = tuple((int(pair[0]), int(pair[-1])) for pair in pairs if len(pair) <= 2)
    if len(ranges) < len(pairs) or any(not 1 <= first <= last for first, last in ranges):
        raise ValueError(told)
    return ranges


def _read_sections(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """The two sections as mappings, and the line of every key in them."""
    try:
        text = path.read_text("utf-8")
        document, tree = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"not YAML: {' '.join(str(error).split())}", at=str(path)) from error
    shape_is_right = isinstance(document, dict) and set(document) == {"model", "training"}
    if not shape_is_right or not all(isinstance(section, dict) for section in document.values()):
        raise RecipeError(
            "a preset has two sections, `model` and `training`, and nothing else",
            at=str(path),
            hint=f"see {PRESETS / 'tiny.yaml'}",
        )
    sections = tree.value if isinstance(tree, yaml.MappingNode) else []
    lines = {key.value: key.start_mark.line + 1 for _, section in sections for key, _ in section.value}
    return document, lines


def _faults(
    kind: type, given: Mapping[str, Any], section: str, optional: tuple[str, ...] = ()
) -> list[tuple[str, str]]:
    """Unknown keys, missing keys, wrong types and wrong choices of one section."""
    fields, types = {item.name: item for item in dataclasses.fields(kind)}, get_type_hints(kind)
    faults = [(key, f"is not a key of `{section}`") for key in given if key not in fields]
    for name, item in fields.items():
        required = item.default is dataclasses.MISSING and name not in optional
        if name not in given:
            faults += [(name, f"is missing from `{section}`")] if required else []
        elif not _is_a(given[name], types[name]):
            wanted = getattr(types[name], "__name__", str(types[name]))
            faults.append((name, f"is {given[name]!r}; it must be of type {wanted}"))
        elif (choices := item.metadata.get("choices")) and given[name] not in choices:
            faults.append((name, f"is `{given[name]}`; it must be one of {', '.join(choices)}"))
    return faults


def _is_a(value: object, kind: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _model_faults(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with a shape, its vocabulary size aside."""
    kind = model.get("kind", DEFAULT_KIND)
    if kind not in KINDS:
        return [("kind", f"is `{kind}`; it must be one of {', '.join(KINDS)}")]
    faults = _faults(KINDS[kind].config, model, "model", optional=("vocabulary_size",))
    return faults or read_config({"vocabulary_size": 1, **model}).faults()


def _training_faults(config: TrainingConfig, model: Mapping[str, Any]) -> list[tuple[str, str]]:
    faults = [*_range_faults(config), *_duration_faults(config), *_step_faults(config)]
    if config.keep < 2:
        faults.append(("keep", f"is {config.keep}; it must be at least 2"))
    if config.learning_rate <= 0 or not 0 <= config.min_learning_rate <= config.learning_rate:
        faults.append(("learning_rate", f"is {config.learning_rate}; it must be positive, and not below the minimum"))
    if config.sequence_length > model["max_positions"]:
        limit = model["max_positions"]
        faults.append(("sequence_length", f"is {config.sequence_length}; the model has {limit} positions"))
    return faults


def _step_faults(config: TrainingConfig) -> list[tuple[str, str]]:
    """Ranges of steps that cannot be read."""
    faults = []
    for name in ("skip_iterations", "profile"):
        try:
            step_ranges(getattr(config, name))
        except ValueError:
            faults.append((name, f"is `{getattr(config, name)}`; steps are told as 120-140,300"))
    return faults


def _range_faults(config: TrainingConfig) -> list[tuple[str, str]]:
    """Values that are too small or too large, whatever the others are."""
    counts = (
        "sequence_length", "global_batch", "micro_batch", "threads", "save_every", "log_every", "nan_limit",
        "data_parallel_shard", "tensor_parallel", "pipeline_parallel", "pipeline_chunks", "expert_parallel",
    )  # fmt: skip
    shares = ("warmup_fraction", "decay_fraction", "dropout_start")
    values = {name: getattr(config, name) for name in (*counts, *shares, *LENGTHS, *WARMUPS[1:], *FALLS[1:])}
    faults = [
        (name, f"is {values[name]}; it must be at least 1")
        for name in (*LENGTHS, *counts)
        if values[name] is not None and values[name] < 1
    ]
    faults += [
        (name, f"is {values[name]}; it must be between 0 and 1") for name in shares if not 0 <= values[name] <= 1
    ]
    floors = {name: values[name] or 0 for name in (*WARMUPS[1:], *FALLS[1:])}
    floors |= {name: getattr(config, name) for name in ("z_loss", "spike_limit", "evaluate_every")}
    faults += [(name, f"is {value}; it must not be negative") for name, value in floors.items() if value < 0]
    if not 0 <= config.dropout < 1:
        faults.append(("dropout", f"is {config.dropout}; it must be at least 0 and under 1"))
    return faults


def _duration_faults(config: TrainingConfig) -> list[tuple[str, str]]:
    """A duration told twice: nobody can know which of both is meant."""
    faults = []
    for ways in (LENGTHS, WARMUPS[1:], FALLS[1:]):
        told = [name for name in ways if getattr(config, name) is not None]
        if len(told) > 1:
            faults.append((told[1], f"is told beside `{told[0]}`; give one of {', '.join(ways)}"))
    return faults


def _line_of(key: str, lines: Mapping[str, int]) -> str:
    return f"line {lines[key]}: " if key in lines else ""
