"""The one way in which dedup's kernels are compiled: without the interpreter lock, kept on disk for the next worker.

And the three machine instructions that scanning eight bytes at a time needs and numba has no name for. Words of the
machine are little-endian, as on every processor that numba compiles for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from storage.kernels import prepare_kernel_cache

prepare_kernel_cache()

import numba  # noqa: E402  numba reads the cache folder when it is imported
from llvmlite import ir  # noqa: E402
from numba.core import types  # noqa: E402
from numba.extending import intrinsic  # noqa: E402

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
_WORD = ir.IntType(64)


def compiled(function: Kernel) -> Kernel:
    """`numba.njit(nogil=True, cache=True)`, with the type of what it wraps."""
    return cast(Kernel, numba.njit(nogil=True, cache=True, error_model="numpy")(function))


@intrinsic
def load_word(typing: Any, data: Any, position: Any) -> Any:
    """load_word(uint8[], position) -> uint64: eight bytes, unaligned, unchecked."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(_word_pointer(context, builder, signature, values), align=1)

    return types.uint64(data, types.int64), generate


@intrinsic
def store_word(typing: Any, data: Any, position: Any, word: Any) -> Any:
    """store_word(uint8[], position, uint64): eight bytes, unaligned, unchecked."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[2], _word_pointer(context, builder, signature, values), align=1)
        return context.get_dummy_value()

    return types.void(data, types.int64, types.uint64), generate


@intrinsic
def count_trailing_zeros(typing: Any, word: Any) -> Any:
    """count_trailing_zeros(uint64) -> int64; 64 for zero."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


def _word_pointer(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, value=values[0])
    return builder.bitcast(builder.gep(array.data, [values[1]]), _WORD.as_pointer())
