"""Megatron's command line as FlagScale makes it, and what one block of the YAML silently takes from another.

FlagScale lays `system`, `model` and `data` over each other in this order, key by key of their first level, then writes
every leaf as `--leaf value`, whatever it stands under; of a word that comes twice, argparse takes the last. So a value
in `model` beats the same in `system` (OpenSeek's hparam_exp sets moe_aux_loss_coeff to 0.0001 there, and trains with
0.02), and an `optimizer` in two blocks is the later one alone. `find_overrides` names all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.flagscale.config import BLOCKS, FlagScaleConfig, merge

IGNORED = ("log_dir", "details_dir", "scripts_dir", "pids_dir")
"""What FlagScale keeps for its own runner."""
RUNNERS_OWN = (
    "type", "backend", "per_node_task", "hostfile", "ssh_port", "master_addr", "master_port", "enable_monitoring",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """A value, and where in the task it stands."""

    place: tuple[str, ...]
    value: Any

    @property
    def name(self) -> str:
        """The option that it becomes."""
        return self.place[-1]

    def __str__(self) -> str:
        return f"{'.'.join(self.place)}: {self.value}"


@dataclass(frozen=True, kw_only=True)
class Override:
    """A value that does not count, and the one that does; None where the whole mapping around it was replaced."""

    lost: Leaf
    won: Leaf | None

    def __str__(self) -> str:
        by = str(self.won) if self.won else "nothing: the mapping around it was replaced by a later block's"
        return f"{self.lost}  is overridden by  {by}"


def folders(config: FlagScaleConfig) -> dict[str, dict[str, str]]:
    """`system.checkpoint` and `system.logging` with the paths that FlagScale fills in."""
    system, home = config.task["system"], config.exp_dir
    checkpoint, logging = system.get("checkpoint") or {}, system.get("logging") or {}

    def at(told: Any, name: str) -> str:
        return str(Path(str(told)).absolute()) if told else str(home / name)

    logs = at(logging.get("log_dir"), "logs")
    return {
        "checkpoint": {name: at(checkpoint.get(name), "checkpoints") for name in ("save", "load")},
        "logging": {
            "log_dir": logs,
            "scripts_dir": f"{logs}/scripts",
            "pids_dir": f"{logs}/pids",
            "details_dir": f"{logs}/details",
            "tensorboard_dir": at(logging.get("tensorboard_dir"), "tensorboard"),
            "wandb_save_dir": at(logging.get("wandb_save_dir"), "wandb"),
        },
    }


def blocks(config: FlagScaleConfig) -> dict[str, dict[str, Any]]:
    """The task's blocks as FlagScale has them when it makes arguments: its paths filled in."""
    told = config.task
    runner = config.experiment.get("runner") or {}
    shared = {"no_shared_fs": True} if runner.get("no_shared_fs") else {}
    return {**told, "system": merge({**told["system"], **shared}, folders(config))}


def merged(config: FlagScaleConfig) -> dict[str, Any]:
    """The blocks laid over each other."""
    found: dict[str, Any] = {}
    for block in BLOCKS:
        found.update(blocks(config)[block])
    return found


def flatten(tree: Mapping[str, Any]) -> list[str]:
    """FlagScale's `flatten_dict_to_args`."""
    words: list[str] = []
    for key, value in tree.items():
        if key in IGNORED:
            continue
        option = f"--{key.replace('_', '-')}"
        if isinstance(value, dict):
            words += flatten(value)
        elif isinstance(value, list):
            words += [option, *(str(item) for item in value)]
        elif isinstance(value, bool):
            words += [option] if value else []
        else:
            words += [option, str(value)]
    return words


def megatron_words(config: FlagScaleConfig) -> list[str]:
    """The arguments of Megatron's training script."""
    return flatten(merged(config))


def launch_words(config: FlagScaleConfig) -> list[str]:
    """The whole command of the first node: torchrun with its options, the entry point, the arguments.

    FlagScale's log folder ends in the time of the start besides.
    """
    runner, task = dict(config.experiment.get("runner") or {}), config.experiment.get("task") or {}
    own = {key: runner.pop(key, None) for key in RUNNERS_OWN}
    address = f"{own['master_addr'] or 'localhost'}:{own['master_port'] or 29500}"
    defaults = {"rdzv_id": "default", "nnodes": 1, "node_rank": 0, "nproc_per_node": 1, "rdzv_backend": "c10d"}
    logs = {"log_dir": f"{folders(config)['logging']['details_dir']}/host_0_localhost", "redirects": "3", "tee": "3"}
    for key, value in {**defaults, "rdzv_endpoint": address, **logs}.items():
        runner.setdefault(key, value)
    words = [str(own["backend"] or "torchrun")]
    for key, value in runner.items():
        words += ([f"--{key}"] if value else []) if isinstance(value, bool) else [f"--{key}", str(value)]
    return [*words, str(task.get("entrypoint", "pretrain_gpt.py")), *megatron_words(config)]


def effective(config: FlagScaleConfig) -> list[Leaf]:
    """The values that count, in the order of the arguments, each option once: the last of those of one name.

    A flag that is false is no word at all, and takes nothing from one that is true.
    """
    chosen: dict[str, Leaf] = {}
    for leaf in _surviving(config):
        if leaf.value is False and leaf.name in chosen:
            continue
        chosen.pop(leaf.name, None)
        chosen[leaf.name] = leaf
    return list(chosen.values())


def find_overrides(config: FlagScaleConfig) -> list[Override]:
    """Every value of the task that another one takes the place of."""
    winners = {leaf.name: leaf for leaf in effective(config)}
    written = [leaf for block in BLOCKS for leaf in _leaves(config.task[block], (block,))]
    lost = [leaf for leaf in written if leaf.name not in winners or winners[leaf.name].place != leaf.place]
    return [Override(lost=leaf, won=winners.get(leaf.name)) for leaf in lost]


def _surviving(config: FlagScaleConfig) -> Iterator[Leaf]:
    """The leaves that are left when the blocks were laid over each other, in the order of the arguments."""
    own = blocks(config)
    owner = {key: block for block in BLOCKS for key in own[block]}
    for key, value in merged(config).items():
        yield from _leaves({key: value}, (owner[key],))


def _leaves(tree: Mapping[str, Any], place: tuple[str, ...]) -> Iterator[Leaf]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*place, str(key)))
        else:
            yield Leaf(place=(*place, str(key)), value=value)
