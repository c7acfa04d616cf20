"""How the readers' kernels are compiled: without the interpreter lock, kept on disk for the next process.

They allocate nothing and return no array: counting references of arrays at every call of a piece costs more than the
piece. Pieces may stand in another file of the same folder or in `sources/utf8.py`, and numba notices changes in a
kernel's own file alone: so the kernels of each state of those sources are kept apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from storage.kernels import prepare_kernel_cache

_KERNELS = prepare_kernel_cache()

import numba  # noqa: E402  numba reads the cache folder when it is imported
from numba.core import event  # noqa: E402

from sources.watch import compiling  # noqa: E402

Function = TypeVar("Function", bound=Callable[..., Any])
Scalar = Any
"""A number in a kernel: an int or what its arrays hold; numba finds out which."""
_OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False}


class _Compilation(event.Listener):  # type: ignore[misc]
    """Tells the watch over a record when its time is not the record's."""

    def on_start(self, event: object) -> None:
        compiling(1)

    def on_end(self, event: object) -> None:
        compiling(-1)


event.register("numba:compile", _Compilation())


def kernel(function: Function) -> Function:
    """Compile `function` at its first call, and keep the result in the user's kernel folder."""
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(_folder_of(function))
    try:
        return cast(Function, numba.njit(**_OPTIONS, cache=True)(function))
    finally:
        numba.config.CACHE_DIR = before


def _folder_of(function: Callable[..., Any]) -> Path:
    folder = Path(function.__code__.co_filename).parent
    files = [*sorted(folder.glob("*.py")), Path(__file__).with_name("utf8.py")]
    state = hashlib.sha256(b"".join(path.read_bytes() for path in files))
    return _KERNELS / f"{folder.name}-{state.hexdigest()[:16]}"


def piece(function: Function) -> Function:
    """A piece of a kernel of the same file, inlined into it."""
    return cast(Function, numba.njit(**_OPTIONS, forceinline=True)(function))


def part(function: Function) -> Function:
    """A larger or rarer piece of a kernel: a function of its own in the same file."""
    return cast(Function, numba.njit(**_OPTIONS)(function))
