"""How the page kernels are compiled: without the interpreter lock, kept on disk for the next process.

They allocate nothing and return no array, so numba keeps no reference counts in them; what they fill is made by their
callers. A kernel calls only pieces of its own file, because numba's cache does not see a change in another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from storage.kernels import prepare_kernel_cache

prepare_kernel_cache()

import numba  # noqa: E402  numba reads the cache folder when it is imported

Function = TypeVar("Function", bound=Callable[..., Any])
Scalar = Any
"""A number in a kernel: an int or a numpy scalar, as its arrays have it; numba finds out which."""
_OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False}


def kernel(function: Function) -> Function:
    """Compile `function` at its first call, and keep the result in the user's kernel folder."""
    return cast(Function, numba.njit(**_OPTIONS, cache=True)(function))


def piece(function: Function) -> Function:
    """A piece of a kernel of the same file, compiled with it."""
    return cast(Function, numba.njit(**_OPTIONS)(function))
