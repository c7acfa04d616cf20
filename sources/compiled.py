"""How the readers' kernels are compiled: without the interpreter lock, kept on disk for the next process.

They allocate nothing and return no array: counting references of arrays at every call of a piece costs more than the
piece. A kernel and its pieces stand in one file, because numba's cache does not notice a change in another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from storage.kernels import prepare_kernel_cache

prepare_kernel_cache()

import numba  # noqa: E402  numba reads the cache folder when it is imported

Function = TypeVar("Function", bound=Callable[..., Any])
Scalar = Any
"""A number in a kernel: an int or what its arrays hold; numba finds out which."""
_OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False}


def kernel(function: Function) -> Function:
    """Compile `function` at its first call, and keep the result in the user's kernel folder."""
    return cast(Function, numba.njit(**_OPTIONS, cache=True)(function))


def piece(function: Function) -> Function:
    """A piece of a kernel of the same file, inlined into it."""
    return cast(Function, numba.njit(**_OPTIONS, forceinline=True)(function))


def part(function: Function) -> Function:
    """A larger or rarer piece of a kernel: a function of its own in the same file."""
    return cast(Function, numba.njit(**_OPTIONS)(function))
