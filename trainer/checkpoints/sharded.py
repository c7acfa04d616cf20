"""Saving and loading by many processes at once, through PyTorch's distributed checkpoints over safetensors files.

PyTorch plans who writes which piece (one that several processes hold is written once, by the one with least to do)
and which parts of which files fill the pieces of another layout. Importing this takes 0.15 s beside an optimizer, 3 s
without one, so `folders` does it late.
"""

from __future__ import annotations

import math
import os
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from storage.identity import hash_file
from trainer.checkpoints.pieces import Pieces
from trainer.checkpoints.tensor_files import Slices, file_name, make_key, parse_key, tensor_files

Files = Mapping[str, Mapping[str, Any]]
Group = dist.ProcessGroup | None


def write_pieces(folder: Path, tensors: Mapping[str, Pieces], group: Group, commit: Callable[[Files], None]) -> None:
    """Write tensors named `KIND/NAME` into a new folder, each process of `group` its own pieces.

    When all have written, `commit` is called on the first one with every file's size and sha256. What goes wrong on
    one process is raised on all.
    """
    rank, size = (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))
    with _single_errors():
        save(
            _held(tensors),
            storage_writer=TensorFilesWriter(folder, rank, size, commit),
            planner=PiecesSaver(),
            process_group=group,
            no_dist=group is None,
        )


def read_pieces(folder: Path, names: Iterable[str], tensors: Mapping[str, Pieces], group: Group) -> None:
    """Fill tensors named `KIND/NAME` in place from the files `names`; each process reads what it holds."""
    with _single_errors():
        load(
            _held(tensors),
            storage_reader=TensorFilesReader(folder, names),
            planner=PiecesLoader(),
            process_group=group,
            no_dist=group is None,
        )


@dataclass(frozen=True)
class Held:
    """Pieces in the words of PyTorch's planners."""

    pieces: Pieces

    def size(self) -> torch.Size:
        return torch.Size(self.pieces.shape)

    def __create_write_items__(self, name: str, _: object) -> list[WriteItem]:
        return [
            WriteItem(
                index=MetadataIndex(name, chunk.offsets),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(
                    chunk=chunk, properties=TensorProperties(dtype=tensor.dtype), size=self.size()
                ),
            )
            for chunk, (_, tensor) in zip(self.__create_chunk_list__(), self.pieces.parts, strict=True)
        ]

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        return [ChunkStorageMetadata(torch.Size(offsets), tensor.shape) for offsets, tensor in self.pieces.parts]

    def at(self, index: MetadataIndex) -> Tensor:
        return next(tensor for offsets, tensor in self.pieces.parts if torch.Size(offsets) == index.offset)


class PiecesSaver(DefaultSavePlanner):
    """Plans who writes what."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def lookup_object(self, index: MetadataIndex) -> Any:
        return self.state_dict[index.fqn].at(index)


class PiecesLoader(DefaultLoadPlanner):
    """Plans which parts of which files fill this process's pieces."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def set_up_planner(
        self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        self.state_dict, self.metadata, self.is_coordinator = state_dict, metadata, is_coordinator

    def lookup_tensor(self, index: MetadataIndex) -> Tensor:
        held: Held = self.state_dict[index.fqn]
        return held.at(index)


class TensorFilesWriter(StorageWriter):
    """Process `rank` of `size` writes tensors named `KIND/NAME` into a new folder.

    When all have written, `commit` is called on the first process with every file's size and sha256.
    """

    def __init__(self, folder: Path, rank: int, size: int, commit: Callable[[Files], None]) -> None:
        self.folder, self.rank, self.size, self.commit = folder, rank, size, commit

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        return None

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        if is_coordinator:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        tensors: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for item in plan.items:
            kind, name = item.index.fqn.split("/", 1)
            tensors[kind][_key(name, item)] = cast(Tensor, planner.resolve_data(item)).detach().contiguous()
        return _done([self._write(kind, own) for kind, own in tensors.items()])

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        self.commit({result.index.fqn: result.storage_data for written in results for result in written})

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return True

    def _write(self, kind: str, tensors: dict[str, Tensor]) -> WriteResult:
        path = self.folder / file_name(kind, self.rank, self.size)
        save_file(tensors, path)
        path.chmod(0o644)  # safetensors makes files that only their owner can read
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
        facts = {"bytes": path.stat().st_size, "sha256": hash_file(path)}
        return WriteResult(index=MetadataIndex(path.name), size_in_bytes=path.stat().st_size, storage_data=facts)


class TensorFilesReader(StorageReader):
    """Reads the parts of the files in `names` that a process asks for, and nothing else of them."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.folder, self.names = folder, sorted(names)
        self.places: dict[MetadataIndex, tuple[Path, str, Slices]] = {}

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        self.places = {}

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        chunks: dict[str, list[ChunkStorageMetadata]] = defaultdict(list)
        for path, kind in tensor_files(self.folder, self.names):
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118
                    name, slices = parse_key(key, file.get_slice(key).get_shape())
                    offsets = torch.Size(part.start for part in slices)
                    sizes = torch.Size(part.stop - part.start for part in slices)
                    chunks[f"{kind}/{name}"].append(ChunkStorageMetadata(offsets, sizes))
                    self.places[MetadataIndex(f"{kind}/{name}", offsets)] = path, key, slices
        return Metadata({name: self._describe(name, own) for name, own in chunks.items()})

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        return None

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        wanted: dict[Path, list[tuple[str, Slices, ReadItem]]] = defaultdict(list)
        for item in plan.items:
            path, key, slices = self.places[item.storage_index]
            wanted[path].append((key, slices, item))
        for path, items in wanted.items():
            with safe_open(path, framework="pt") as file:
                for key, slices, item in items:
                    target = planner.resolve_tensor(item)
                    target.detach().copy_(_read(file, key, slices, item))
                    planner.commit_tensor(item, target)
        return _done(None)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return True

    def _describe(self, name: str, chunks: list[ChunkStorageMetadata]) -> TensorStorageMetadata:
        dimensions = range(len(chunks[0].sizes))
        shape = torch.Size(max(chunk.offsets[dim] + chunk.sizes[dim] for chunk in chunks) for dim in dimensions)
        if sum(chunk.sizes.numel() for chunk in chunks) != shape.numel():
            raise ValueError(f"it does not hold all of {name}")
        return TensorStorageMetadata(TensorProperties(), shape, chunks)


def _key(name: str, item: WriteItem) -> str:
    data = cast(TensorWriteData, item.tensor_data)
    return make_key(name, data.chunk.offsets, data.chunk.sizes, data.size)


def _read(file: Any, key: str, slices: Slices, item: ReadItem) -> Tensor:
    if math.prod(item.lengths) == math.prod(part.stop - part.start for part in slices):
        tensor: Tensor = file.get_tensor(key)
        return tensor
    ranges = zip(item.storage_offsets, item.lengths, strict=True)
    part: Tensor = file.get_slice(key)[tuple(slice(start, start + length) for start, length in ranges)]
    return part


def _held(tensors: Mapping[str, Pieces]) -> dict[str, Any]:
    return {name: Held(pieces) for name, pieces in tensors.items()}


@contextmanager
def _single_errors() -> Iterator[None]:
    """The first failure in place of PyTorch's collection of them; one process needs no telling that it is alone."""
    warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
    try:
        yield
    except CheckpointException as error:
        raise next(iter(error.failures.values()))[0] from error


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future
