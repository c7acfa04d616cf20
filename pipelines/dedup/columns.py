"""Arrow columns as the flat numpy arrays that kernels read, and back; nothing is copied where Arrow's layout allows.

Views are made read-only, so that each kernel meets one signature only (see `storage.kernels`).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storage.schema import IDENTIFIER

Scalar = TypeVar("Scalar", bound=np.generic)
Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


def whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The column as one array; not copied where it is one already."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def string_buffers(texts: pa.Array) -> tuple[Integers, npt.NDArray[np.uint8]]:
    """(offsets int64[n+1], data uint8[]) of a string column, sliced or not; nulls have length 0."""
    texts = pc.fill_null(texts.cast(pa.large_string()), "")
    _, offset_buffer, data_buffer = texts.buffers()
    if len(texts) == 0:
        return read_only(np.zeros(1, np.int64)), read_only(np.zeros(0, np.uint8))
    offsets = np.frombuffer(offset_buffer, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.zeros(0, np.uint8)
    return read_only(offsets), read_only(data)


def numbers(column: pa.Array | pa.ChunkedArray, dtype: type[Scalar]) -> npt.NDArray[Scalar]:
    """A column of numbers without nulls, read-only."""
    return read_only(np.ascontiguousarray(whole(column).to_numpy(zero_copy_only=False), dtype))


def identifier_halves(identifiers: pa.Array | pa.ChunkedArray) -> tuple[Hashes, Hashes]:
    """(high, low): 16-byte identifiers without nulls as big-endian halves, which sort as the bytes do."""
    raw = identifier_bytes(identifiers).view(">u8").astype(np.uint64)
    return np.ascontiguousarray(raw[:, 0]), np.ascontiguousarray(raw[:, 1])


def identifier_bytes(identifiers: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.uint8]:
    """uint8[n, 16]; the bytes of nulls are undefined."""
    array = whole(identifiers)
    if len(array) == 0:
        return np.zeros((0, 16), np.uint8)
    data = np.frombuffer(array.buffers()[1], np.uint8)
    return data[array.offset * 16 : (array.offset + len(array)) * 16].reshape(-1, 16)


def identifier_array(digests: list[bytes | None]) -> pa.Array:
    """16-byte identifiers as Arrow has them."""
    return pa.array(digests, IDENTIFIER)


def band_array(keys: Hashes, present: npt.NDArray[np.bool_]) -> pa.Array:
    """fixed_size_list<uint64>[bands] of keys uint64[n, bands]; null where not present."""
    values = pa.array(keys.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, keys.shape[1], mask=pa.array(~present))


def read_only(array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """A view that cannot be written, as kernels take their input."""
    view = array.view()
    view.setflags(write=False)
    return view
