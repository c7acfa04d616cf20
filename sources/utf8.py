"""A character as UTF-8 into a kernel's output: at most four bytes, no checks; the caller has seen that it is one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sources.compiled import part


@part
def write_character(out: NDArray[np.uint8], n: int, code: int) -> int:
    """Write the character at `n`; the place behind it."""
    if code < 0x80:
        out[n] = code
        return n + 1
    if code < 0x800:
        out[n] = 0xC0 | code >> 6
        out[n + 1] = 0x80 | code & 63
        return n + 2
    if code < 0x10000:
        out[n] = 0xE0 | code >> 12
        out[n + 1] = 0x80 | code >> 6 & 63
        out[n + 2] = 0x80 | code & 63
        return n + 3
    out[n] = 0xF0 | code >> 18
    out[n + 1] = 0x80 | code >> 12 & 63
    out[n + 2] = 0x80 | code >> 6 & 63
    out[n + 3] = 0x80 | code & 63
    return n + 4
