"""How the page kernels are compiled: without the interpreter lock, kept on disk for the next process.

They allocate nothing and return no array, so numba keeps no reference counts in them; what they fill is made by their
callers. Pieces stand in files of their own, and numba notices changes in a kernel's file alone: so the kernels of each
state of this folder's sources are kept apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from storage.kernels import prepare_kernel_cache

_KERNELS = prepare_kernel_cache()

import numba  # noqa: E402  numba reads the cache folder when it is imported

Function = TypeVar("Function", bound=Callable[..., Any])
Scalar = Any
"""A number in a kernel: an int or a numpy scalar, as its arrays have it; numba finds out which."""
_OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False}


def _folder() -> Path:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return _KERNELS / f"pages-{hashlib.sha256(b''.join(path.read_bytes() for path in sources)).hexdigest()[:16]}"


def kernel(function: Function) -> Function:
    """Compile `function` at its first call, and keep the result in the user's kernel folder."""
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(_folder())
    try:
        return cast(Function, numba.njit(**_OPTIONS, cache=True)(function))
    finally:
        numba.config.CACHE_DIR = before


def piece(function: Function) -> Function:
    """A piece of a kernel of the same file, compiled with it."""
    return cast(Function, numba.njit(**_OPTIONS)(function))
