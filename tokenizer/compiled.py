"""How the tokenizer's kernels are compiled: without the interpreter lock, kept on disk for the next process.

They allocate nothing and return no array, so numba keeps no reference counts in them: counting each array up and down
at every call of a piece costs more than the piece. What must grow is grown between two calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from storage.kernels import prepare_kernel_cache

prepare_kernel_cache()

import numba  # noqa: E402  numba reads the cache folder when it is imported

Function = TypeVar("Function", bound=Callable[..., Any])
_OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False}


def kernel(function: Function) -> Function:
    """Compile `function` at its first call, and keep the result in the user's kernel folder."""
    return cast(Function, numba.njit(**_OPTIONS, cache=True)(function))


def piece(function: Function) -> Function:
    """A piece of a kernel of the same file, inlined into it."""
    return cast(Function, numba.njit(**_OPTIONS, forceinline=True)(function))
