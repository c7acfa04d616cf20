"""Texts without their surplus: what `remove_repeated_spans` writes.

Invariant: what stays is the bytes outside the given spans, in their order; spans lie between characters, so the text is
valid UTF-8 as it was. Nothing is put where a span was: what is left of it, and whether it is worth keeping, is for the
policy to say of the new text.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dedup.columns import numbers, read_only, string_buffers
from pipelines.dedup.compiled import compiled
from pipelines.dedup.spans.measure import REPEATED
from storage.stage import BatchFunction, Stage

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

REMOVE = "remove_repeated_spans"
TEXT = pa.field("text", pa.string(), nullable=False)
WRITES = pa.schema([TEXT, pa.field("removed_bytes", pa.int64(), nullable=False)])


def cut_stage(measured: tuple[str, ...]) -> Stage:
    """The rewrite that cuts the surplus of the REPEATED columns `measured`, which stand beside the text."""
    return Stage(
        name=REMOVE, version=1, kind="rewrite", config=measured, reads=("text", *measured), writes=WRITES, make=_open
    )


def _open(measured: tuple[str, ...]) -> BatchFunction:
    place = REPEATED.get_field_index("surplus")

    def cut(batch: pa.RecordBatch) -> pa.RecordBatch:
        texts = batch.column("text")
        kept = cut_texts(texts, *(batch.column(name).field(place) for name in measured))
        removed = pc.subtract(pc.binary_length(texts), pc.binary_length(kept)).cast(pa.int64())
        return pa.RecordBatch.from_arrays([kept, removed], schema=WRITES)

    return cut


def cut_texts(texts: pa.Array, *surplus: pa.ListArray) -> pa.Array:
    """string[n]: the texts without any of the spans (lists of `start` and `end`, aligned with the texts)."""
    offsets, data = string_buffers(texts)
    gone = np.zeros(len(data), np.bool_)
    for spans in surplus:
        rows = spans.value_parent_indices().to_numpy().astype(np.int64)
        flat = spans.flatten()
        starts, ends = (numbers(flat.field(name), np.int64) for name in ("start", "end"))
        mark(offsets, read_only(rows), starts, ends, gone)
    kept_offsets, kept = drop(offsets, data, gone)
    buffers = [None, pa.py_buffer(kept_offsets), pa.py_buffer(kept)]
    return pa.Array.from_buffers(pa.large_string(), len(texts), buffers).cast(pa.string())


@compiled
def mark(offsets: Integers, rows: Integers, starts: Integers, ends: Integers, gone: npt.NDArray[np.bool_]) -> None:
    """Set what spans cover."""
    for i in range(len(rows)):
        gone[offsets[rows[i]] + starts[i] : offsets[rows[i]] + ends[i]] = True


@compiled
def drop(offsets: Integers, data: Bytes, gone: npt.NDArray[np.bool_]) -> tuple[Integers, Bytes]:
    """(offsets int64[n+1], data) of what is not gone."""
    out, out_offsets, size = np.empty(offsets[-1] - offsets[0], np.uint8), np.zeros(len(offsets), np.int64), 0
    for text in range(len(offsets) - 1):
        for i in range(offsets[text], offsets[text + 1]):
            if not gone[i]:
                out[size] = data[i]
                size += 1
        out_offsets[text + 1] = size
    return out_offsets, out[:size].copy()
