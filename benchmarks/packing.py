"""LZ4 as web archives have it: each record a frame of its own, by fastwarc's writer."""

from __future__ import annotations

import io

from fastwarc.stream_io import Lz4Writer


def pack_lz4(data: bytes) -> bytes:
    """One frame that holds `data`."""
    out = io.BytesIO()
    writer = Lz4Writer(out)
    writer.write(data)
    writer.finish()
    writer.flush()
    return out.getvalue()
