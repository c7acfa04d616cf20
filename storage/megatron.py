"""Megatron-LM's indexed token files: `.bin` (tokens, nothing else) and `.idx` (where each sequence lies in it).

What this module writes is byte for byte what `megatron.core.datasets.indexed_dataset` writes, and what it reads may
come from there. An `.idx` may point anywhere into its `.bin`, in any order and with repeats, so a mixture is an index
over stored tokens and copies none of them. The `.idx` is committed last: a `.bin` without it is not a dataset.

Layout of `.idx`, little-endian: magic (9 bytes), version (u64 = 1), dtype code (u8), number of sequences N (u64),
length of the document list D+1 (u64), lengths in tokens (i32[N]), byte offsets into `.bin` (i64[N]), documents as
sequence numbers starting with 0 (i64[D+1]). With one sequence a document that is 42 + 20·N bytes.
"""

from __future__ import annotations

import struct
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from storage.commit import atomic_path, exclusive, write_atomically
from storage.errors import DatasetError, disk_errors

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
DTYPE_CODES = {"uint8": 1, "int8": 2, "int16": 3, "int32": 4, "int64": 5, "uint16": 8}
DTYPES = {code: np.dtype(name).newbyteorder("<") for name, code in DTYPE_CODES.items()}
FLOAT_CODES = {6: "float64", 7: "float32"}
SMALLEST_INT32_VOCABULARY = 65_500
WRITE_BUFFER_BYTES = 4 << 20

Tokens = npt.NDArray[Any]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]


def token_dtype(vocabulary_size: int) -> np.dtype[Any]:
    """Megatron's rule (`DType.optimal_dtype`): uint16 below 65,500 entries, else int32."""
    return np.dtype(np.uint16 if vocabulary_size < SMALLEST_INT32_VOCABULARY else np.int32)


def bin_path(prefix: Path) -> Path:
    """The token file of a prefix."""
    return prefix.with_name(prefix.name + ".bin")


def prefix_of(path: Path) -> Path:
    """The prefix that a path names, itself or by one of its two files."""
    return path.with_suffix("") if path.suffix in (".bin", ".idx") else path


def idx_path(prefix: Path) -> Path:
    """The index file of a prefix."""
    return prefix.with_name(prefix.name + ".idx")


def write_index(
    path_idx: Path,
    *,
    dtype: npt.DTypeLike,
    lengths: npt.ArrayLike,
    pointers: npt.ArrayLike,
    documents: npt.ArrayLike,
) -> None:
    """Write an `.idx` atomically: `lengths` in tokens [N], `pointers` in bytes into the `.bin` [N], `documents` [D+1].

    Raises DatasetError when the three do not describe one another.
    """
    lengths_N = np.ascontiguousarray(lengths, dtype="<i4")
    pointers_N = np.ascontiguousarray(pointers, dtype="<i8")
    documents_D = np.ascontiguousarray(documents, dtype="<i8")
    fault = _fault_in(lengths_N, pointers_N, documents_D)
    if fault:
        raise DatasetError(f"this index cannot be written: {fault}", at=str(path_idx))
    header = HEADER.pack(MAGIC, VERSION, _code_of(dtype), len(lengths_N), len(documents_D))

    def write(file: BinaryIO) -> None:
        file.write(header)
        for array in (lengths_N, pointers_N, documents_D):
            file.write(array.tobytes())

    write_atomically(path_idx, write)


class IndexedWriter:
    """Writes one `.bin`/`.idx` pair, one sequence a document; nothing stands under the final names before `finish`.

    Use it as a context manager (leaving it finishes, an exception leaves no trace), or call `finish` yourself.
    Raises DatasetError when another writer of the same prefix is not done after `wait_seconds`.
    """

    def __init__(self, prefix: Path, dtype: npt.DTypeLike, *, wait_seconds: float = 0) -> None:
        self.prefix = prefix
        self.dtype = np.dtype(dtype)
        _code_of(self.dtype)
        self._limits = np.iinfo(self.dtype)
        self._lengths: list[int] = []
        self._held, self._commit = ExitStack(), ExitStack()
        self._held.enter_context(exclusive(prefix, wait_seconds=wait_seconds))
        temporary = self._commit.enter_context(atomic_path(bin_path(prefix)))
        self._file = self._commit.enter_context(open(temporary, "wb", buffering=WRITE_BUFFER_BYTES))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            with self._held:
                self._commit.__exit__(kind, error, trace)

    def add(self, tokens: npt.ArrayLike) -> None:
        """Append one document of token ids. Raises DatasetError for an id that the dtype cannot hold."""
        array = np.asarray(tokens)
        if array.dtype != self.dtype:
            array = self._narrowed(array)
        with disk_errors(bin_path(self.prefix)):
            self._file.write(np.ascontiguousarray(array, self.dtype.newbyteorder("<")).data)
        self._lengths.append(len(array))

    def add_documents(self, tokens: npt.ArrayLike, lengths: npt.ArrayLike) -> None:
        """Append documents that lie end to end, of `lengths` tokens each, in one write. Raises as `add` does."""
        counts = np.asarray(lengths, np.int64)
        if int(counts.sum()) != np.size(tokens):
            raise ValueError(f"documents of {int(counts.sum())} tokens in all, but {np.size(tokens)} were given")
        self.add(tokens)
        self._lengths[-1:] = counts.tolist()

    def finish(self) -> None:
        """Commit the `.bin`, then the `.idx` that makes it a dataset."""
        with self._held:
            self._finish()

    def _finish(self) -> None:
        self._commit.close()
        lengths_N = np.array(self._lengths, dtype=np.int32)
        pointers_N = np.zeros(len(lengths_N), dtype=np.int64)
        np.cumsum(lengths_N[:-1].astype(np.int64) * self.dtype.itemsize, out=pointers_N[1:])
        write_index(
            idx_path(self.prefix),
            dtype=self.dtype,
            lengths=lengths_N,
            pointers=pointers_N,
            documents=np.arange(len(lengths_N) + 1, dtype=np.int64),
        )

    def _narrowed(self, array: Tokens) -> Tokens:
        lowest, highest = (int(array.min()), int(array.max())) if array.size else (0, 0)
        if lowest < 0 or highest > self._limits.max:
            offending = highest if highest > self._limits.max else lowest
            raise DatasetError(
                f"token id {offending} does not fit into {self.dtype} (0 to {self._limits.max})",
                at=str(bin_path(self.prefix)),
                hint="write with `token_dtype(vocabulary_size)` of the tokenizer that made these ids",
            )
        return array.astype(self.dtype)


class IndexedReader:
    """One `.bin`/`.idx` pair, memory-mapped; every pointer is checked when it is opened, so reading never strays.

    `lengths` int32[N] in tokens, `pointers` int64[N] in bytes, `documents` int64[D+1], `dtype` of the tokens.
    Raises DatasetError for files that are missing, foreign, truncated, or that point outside their `.bin`.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        path = idx_path(prefix)
        for needed in (path, bin_path(prefix)):
            if not needed.is_file():
                raise DatasetError(
                    f"`{needed.name}` is missing",
                    at=str(prefix),
                    hint="a prefix names two files: PREFIX.bin and PREFIX.idx",
                )
        index = _map(path)
        self.dtype, num_sequences, num_entries = _read_header(path, index)
        start = HEADER.size
        self.lengths: Int32s = np.frombuffer(index, "<i4", num_sequences, start)
        self.pointers: Int64s = np.frombuffer(index, "<i8", num_sequences, start + 4 * num_sequences)
        self.documents: Int64s = np.frombuffer(index, "<i8", num_entries, start + 12 * num_sequences)
        self._bin = _map(bin_path(prefix))
        fault = _fault_in(self.lengths, self.pointers, self.documents) or self._outside()
        if fault:
            raise DatasetError(fault, at=str(path), hint="make this pair again: the two files do not belong together")

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, sequence: int) -> Tokens:
        """All tokens of one sequence, a view into the mapped file."""
        return self.read(sequence)

    def read(self, sequence: int, offset: int = 0, length: int | None = None) -> Tokens:
        """`length` tokens (None: the rest) of one sequence from token `offset` on, a view into the mapped file."""
        available = int(self.lengths[sequence]) - offset
        count = available if length is None else length
        if not 0 <= count <= available:
            raise IndexError(f"sequence {sequence} has {available} tokens from {offset} on, {count} were asked for")
        start = int(self.pointers[sequence]) + offset * self.dtype.itemsize
        return np.frombuffer(self._bin, self.dtype, count, start)

    def find_token(self, offset: int) -> tuple[int, int]:
        """(sequence, token in it) of the token at `offset` in the index's order. Raises IndexError beyond the last."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        if not 0 <= offset < self.num_tokens:
            raise IndexError(f"token {offset} of {self.num_tokens}")
        sequence = int(np.searchsorted(ends, offset, side="right"))
        return sequence, offset - int(ends[sequence]) + int(self.lengths[sequence])

    def find_byte(self, offset: int) -> tuple[int, int]:
        """(sequence, token in it) of the first sequence that holds a byte of the `.bin`. Raises IndexError if none."""
        holds = (self.pointers <= offset) & (offset < self.pointers + self.lengths.astype(np.int64) * self.itemsize)
        if not holds.any():
            raise IndexError(f"no sequence of this index holds byte {offset}")
        sequence = int(np.argmax(holds))
        return sequence, (offset - int(self.pointers[sequence])) // self.itemsize

    def start_of(self, sequence: int) -> int:
        """The offset of a sequence's first token in the index's order."""
        return int(self.lengths[:sequence].sum(dtype=np.int64))

    def bytes_at(self, start: int, size: int) -> memoryview:
        """`size` bytes of the `.bin` from `start` on, a view into the mapped file."""
        return self._bin[start : start + size].data

    @property
    def stored(self) -> Tokens:
        """All ids of the `.bin`, whatever the index points to; what is left of a cut file is not among them."""
        return np.frombuffer(self._bin, self.dtype, len(self._bin) // self.itemsize)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def num_tokens(self) -> int:
        """Tokens of all sequences, repeats counted as often as they stand in the index."""
        return int(self.lengths.sum(dtype=np.int64))

    def _outside(self) -> str | None:
        size = len(self._bin)
        beyond = self.pointers > size
        beyond |= np.minimum(self.pointers, size) + self.lengths.astype(np.int64) * self.dtype.itemsize > size
        if not beyond.any():
            return None
        first = int(np.argmax(beyond))
        return (
            f"sequence {first} lies at byte {int(self.pointers[first])} with {int(self.lengths[first])} tokens, "
            f"beyond the {size} bytes of `{bin_path(self.prefix).name}` ({int(beyond.sum())} such sequences)"
        )


def _map(path: Path) -> Tokens:
    """The file's bytes as an array; an empty file, which cannot be mapped, as an empty one."""
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=np.uint8)
    return np.memmap(path, dtype=np.uint8, mode="r")


def _read_header(path: Path, index: Tokens) -> tuple[np.dtype[Any], int, int]:
    """dtype, number of sequences and length of the document list, once the file's size agrees with them."""
    hint = "give the prefix of a Megatron-LM dataset (PREFIX.bin, PREFIX.idx), or copy the file again"
    if bytes(index[: len(MAGIC)]) != MAGIC:
        raise DatasetError("not a Megatron index: the first 9 bytes are not `MMIDIDX`", at=str(path), hint=hint)
    if len(index) < HEADER.size:
        raise DatasetError(f"truncated index: {len(index)} of {HEADER.size} header bytes", at=str(path), hint=hint)
    _, version, code, num_sequences, num_entries = HEADER.unpack(bytes(index[: HEADER.size]))
    if version != VERSION:
        raise DatasetError(f"index version {version}; only {VERSION} is known", at=str(path), hint=hint)
    if code not in DTYPES:
        kind = FLOAT_CODES.get(code, "unknown")
        raise DatasetError(f"dtype code {code} ({kind}) is none of token ids", at=str(path), hint=hint)
    expected = HEADER.size + 12 * num_sequences + 8 * num_entries
    if len(index) == expected + num_sequences and num_sequences:
        raise DatasetError("a multimodal index (with sequence modes), not one of text", at=str(path), hint=hint)
    if len(index) != expected:
        raise DatasetError(
            f"truncated or altered index: {len(index)} bytes, but its {num_sequences} sequences and "
            f"{num_entries} document entries take {expected}",
            at=str(path),
            hint=hint,
        )
    return DTYPES[code], num_sequences, num_entries


def _fault_in(lengths: Int32s, pointers: Int64s, documents: Int64s) -> str | None:
    """What keeps the three arrays from being an index, in words; None when they are one."""
    if lengths.ndim != 1 or lengths.shape != pointers.shape:
        return f"{lengths.size} lengths, but {pointers.size} pointers"
    if documents.ndim != 1 or not len(documents) or documents[0] != 0 or documents[-1] != len(lengths):
        return f"the document list must run from 0 to the number of sequences, {len(lengths)}"
    if (np.diff(documents) < 0).any():
        return "the document list must never fall"
    if len(lengths) and (lengths.min() < 0 or pointers.min() < 0):
        return "a length or a pointer is negative"
    return None


def _code_of(dtype: npt.DTypeLike) -> int:
    name = np.dtype(dtype).name
    if name not in DTYPE_CODES:
        raise DatasetError(f"token ids cannot be stored as {name}", hint=f"use one of {', '.join(DTYPE_CODES)}")
    return DTYPE_CODES[name]
