"""Tensors of a checkpoint in safetensors files, whole or in pieces; nothing is pickled.

Each process writes `KIND.safetensors`, or `KIND-00001-of-00004.safetensors` among several, with the pieces that fell
to it. A piece's place stands in its key, as in `blocks.0.ffn.down.weight[0:64,96:192]`; a key without a place is a
whole tensor. So every file can be read alone by any safetensors library, and one process's files are plain ones.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from storage.errors import ModelError

KINDS = ("model", "training")
PLACE = re.compile(r"(.*)\[([\d:,]+)\]$")
FILE_NAME = re.compile(rf"({'|'.join(KINDS)})(-\d+-of-\d+)?\.safetensors$")

Slices = tuple[slice, ...]


def file_name(kind: str, rank: int, size: int) -> str:
    """The file of process `rank` of `size`."""
    return f"{kind}-{rank + 1:05d}-of-{size:05d}.safetensors" if size > 1 else f"{kind}.safetensors"


def make_key(name: str, offsets: Sequence[int], sizes: Sequence[int], shape: Sequence[int]) -> str:
    """The key of the piece of `sizes` at `offsets` in the tensor `name` of `shape`."""
    if tuple(sizes) == tuple(shape):
        return name
    ranges = zip(offsets, sizes, strict=True)
    return f"{name}[{','.join(f'{start}:{start + length}' for start, length in ranges)}]"


def parse_key(key: str, shape: Iterable[int]) -> tuple[str, Slices]:
    """A key as the tensor's name and the place of the piece in it."""
    match = PLACE.match(key)
    if not match:
        return key, tuple(slice(0, size) for size in shape)
    bounds = [part.split(":") for part in match[2].split(",")]
    return match[1], tuple(slice(int(start), int(stop)) for start, stop in bounds)


def tensor_files(folder: Path, names: Iterable[str]) -> list[tuple[Path, str]]:
    """Those of the files that hold tensors, with their kinds."""
    matches = [(name, FILE_NAME.match(name)) for name in names]
    return [(folder / name, match[1]) for name, match in matches if match]


def read_whole(folder: Path, names: Iterable[str], kind: str) -> dict[str, Tensor]:
    """All tensors of a kind put together, on the CPU. Raises ModelError for files that cannot be read."""
    tensors: dict[str, Tensor] = {}
    pieces: dict[str, list[tuple[Slices, Tensor]]] = defaultdict(list)
    for path, own in tensor_files(folder, sorted(names)):
        if own != kind:
            continue
        for key, tensor in _load(path).items():
            if PLACE.match(key):
                name, slices = parse_key(key, tensor.shape)
                pieces[name].append((slices, tensor))
            else:
                tensors[key] = tensor
    return tensors | {name: _join(name, parts, folder) for name, parts in pieces.items()}


def _join(name: str, parts: list[tuple[Slices, Tensor]], folder: Path) -> Tensor:
    whole = parts[0][1].new_empty([max(slices[dim].stop for slices, _ in parts) for dim in range(len(parts[0][0]))])
    if sum(tensor.numel() for _, tensor in parts) != whole.numel():
        raise ModelError(f"{folder.name} is damaged: it does not hold all of {name}", at=str(folder))
    for slices, tensor in parts:
        whole[slices] = tensor
    return whole


def _load(path: Path) -> Mapping[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path.name} cannot be read: {error}", at=str(path.parent)) from error
